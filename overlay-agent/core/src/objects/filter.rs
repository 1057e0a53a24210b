//! The packet filter: what its table is called, and does.

use std::collections::BTreeSet;

use ipnet::IpNet;
use serde::Serialize;

use crate::model::{IfName, Name, Network, Range};

/// Name of the nftables table of an instance, of the family `inet`.
pub fn filter_table(instance: &Name) -> String {
    format!("overlay-{instance}")
}

/// A table of packet filter rules that has the name of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterTable {
    /// Whose it is.
    pub owner: TableOwner,
    /// Its rules.
    pub filter: Filter,
}

/// Whose a table of packet filter rules is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TableOwner {
    /// It has this instance's mark.
    This,
    /// It has no mark, but all that is in it, and nothing else, an earlier version has made.
    Earlier,
    /// It has the mark of another instance.
    Instance(Name),
    /// Nothing says whose it is.
    Unknown,
}

/// The state of the table of packet filter rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Filter {
    /// It does just this.
    Rules(FilterRules),
    /// Somebody has changed it.
    Altered,
}

/// Rules of the packet filter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FilterRules {
    /// Devices of the networks. Nothing is forwarded from one to another of them,
    pub isolated: BTreeSet<IfName>,
    /// except for these pairs, which are of one network or of two that are open to each other.
    pub together: BTreeSet<(IfName, IfName)>,
    /// Packets that get the node's address when they leave their network.
    pub masqueraded: BTreeSet<Masquerade>,
}

impl FilterRules {
    /// Whether the network of a device is kept apart from others.
    pub fn isolates(&self, device: IfName) -> bool {
        self.isolated.contains(&device)
    }

    /// Whether all ranges of a network are masqueraded.
    pub fn masquerades(&self, network: &Network) -> bool {
        let masqueraded = |range: &Range| {
            let mut subnets = self.masqueraded.iter().map(|rule| rule.subnet);
            subnets.any(|subnet| subnet == range.subnet)
        };
        network.ranges.iter().all(masqueraded)
    }
}

/// A range of a network whose packets get the node's address outside of the network.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Masquerade {
    /// The sources: this node's share.
    pub subnet: IpNet,
    /// The destinations for which they keep their address.
    pub cidr: IpNet,
    /// The devices through which they keep it.
    pub inside: BTreeSet<IfName>,
}
