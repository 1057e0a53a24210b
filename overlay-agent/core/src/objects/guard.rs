//! The guard of the tunnels' ports: what it is called, and lets in.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{Hash as _, Hasher},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;
use serde::Serialize;

use super::Leaving;
use crate::{
    fnv::{START, fnv1a},
    model::{Family, IfName, Mac, Name, Security, Vni},
};

/// Name of the nftables tables of an instance's guard, of the families `inet` and `bridge`.
pub fn guard_table(instance: &Name) -> String {
    format!("guard.overlay-{instance}")
}

/// Why the guard drops what a container sends to a tunnel's port, of whichever node.
pub const TUNNEL_FROM_ENDPOINT: &str = "tunnel_from_endpoint";
/// Why it keeps what has an inner source from leaving by a default route.
pub const IN_THE_CLEAR: &str = "in_the_clear";
/// Why the kernel refuses what it has no route for; the guard counts it.
pub const UNREACHABLE: &str = "unreachable";

/// The reasons that no program has, with a sentence for people.
pub const KERNEL_REASONS: [(&str, &str); 3] = [
    (
        TUNNEL_FROM_ENDPOINT,
        "an endpoint sent to the port of a tunnel's end",
    ),
    (
        IN_THE_CLEAR,
        "it would have left by a default route of the node, with an address of a network as its source",
    ),
    (
        UNREACHABLE,
        "the destination is an address of a network, and no route leads there",
    ),
];

/// The state of the guard's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guard {
    /// It is to do this.
    Rules(Arc<GuardRules>),
    /// It does what rules of this digest say.
    Does(u64),
    /// Somebody has changed it.
    Altered,
}

/// The guard's rules for packets that the kernel receives for a tunnel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct GuardRules {
    /// UDP ports of the tunnels.
    pub ports: BTreeSet<u16>,
    /// Devices of the networks. What enters by them never gets to a tunnel's port.
    pub inside: BTreeSet<IfName>,
    /// The networks, with what each drops.
    #[serde(skip)]
    pub networks: BTreeMap<Vni, Security>,
    /// Networks whose tunnels are encrypted, with their ports and the devices that do it.
    #[serde(skip)]
    pub encrypted: BTreeMap<Vni, (u16, BTreeSet<IfName>)>,
    /// Addresses of this node's ends of the tunnels.
    pub own: BTreeSet<IpAddr>,
    /// The allowed senders.
    #[serde(skip)]
    pub senders: Arc<GuardSenders>,
    /// Packets that do not leave.
    #[serde(skip)]
    pub leaving: Leaving,
    /// Devices of networks, and the ranges of other networks that nobody gets at by those.
    #[serde(skip)]
    pub apart: BTreeMap<BTreeSet<IfName>, BTreeSet<IpNet>>,
    /// The containers that speak for themselves alone.
    #[serde(skip)]
    pub endpoints: BTreeSet<GuardedEndpoint>,
}

/// A container's port of the bridge, and who it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GuardedEndpoint {
    /// Interface index of the node's end.
    pub index: u32,
    /// Of the container's end.
    pub mac: Mac,
    /// Its addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// Those of others that it forwards for.
    pub behind: BTreeSet<IpNet>,
}

impl Guard {
    /// Whether it does just what these rules say.
    pub fn does(&self, rules: &GuardRules) -> bool {
        match self {
            Self::Rules(same) => same.as_ref() == rules,
            Self::Does(digest) => *digest == rules.digest(),
            Self::Altered => false,
        }
    }
}

/// To be raised when the same rules are written in another way.
const FORM: u32 = 7;

impl GuardRules {
    /// Stands for the rules where they cannot be read back; the same in every build.
    pub fn digest(&self) -> u64 {
        let mut hasher = Fnv::default();
        FORM.hash(&mut hasher);
        let words = format!(
            "{:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?}",
            self.ports,
            self.inside,
            self.networks,
            self.encrypted,
            self.own,
            self.leaving,
            self.apart,
            self.endpoints
        );
        hasher.write(words.as_bytes());
        hasher.write_u64(self.senders.digest);
        hasher.finish()
    }
}

/// The allowed senders into a tunnel, and their sources.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct GuardSenders {
    /// The peers' ends of the tunnels.
    pub vteps: BTreeSet<(Vni, IpAddr)>,
    /// Prefixes behind them, and their own addresses; no prefix is of length 0.
    pub sources: BTreeSet<(Vni, IpAddr, IpNet)>,
    /// The lengths of those.
    pub lengths: BTreeSet<Length>,
    /// Of all that.
    digest: u64,
}

/// How many bits of an inner source are compared, of which families outside and inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Length {
    /// Of the VTEP.
    pub outer: Family,
    /// Of the source.
    pub inner: Family,
    /// At least one.
    pub bits: u8,
}

/// Ends of tunnels, and what comes from there.
pub type Senders = (BTreeSet<(Vni, IpAddr)>, BTreeSet<(Vni, IpAddr, IpNet)>);

impl GuardSenders {
    /// Of these peers.
    pub fn new(vteps: BTreeSet<(Vni, IpAddr)>, sources: BTreeSet<(Vni, IpAddr, IpNet)>) -> Self {
        let ends = vteps.iter().map(number_of_end);
        let all = ends.chain(sources.iter().map(number_of_source));
        Self {
            lengths: lengths(&sources),
            digest: all.fold(0, u64::wrapping_add),
            vteps,
            sources,
        }
    }

    /// Without some, and with others.
    #[must_use]
    pub fn changed(&self, gone: &Senders, come: Senders) -> Self {
        let (mut vteps, mut sources) = (self.vteps.clone(), self.sources.clone());
        let mut digest = self.digest;
        for end in gone.0.iter().filter(|end| vteps.remove(end)) {
            digest = digest.wrapping_sub(number_of_end(end));
        }
        for source in gone.1.iter().filter(|source| sources.remove(source)) {
            digest = digest.wrapping_sub(number_of_source(source));
        }
        for end in come.0 {
            let number = number_of_end(&end);
            if vteps.insert(end) {
                digest = digest.wrapping_add(number);
            }
        }
        for source in come.1 {
            let number = number_of_source(&source);
            if sources.insert(source) {
                digest = digest.wrapping_add(number);
            }
        }
        Self {
            lengths: lengths(&sources),
            vteps,
            sources,
            digest,
        }
    }
}

fn lengths(sources: &BTreeSet<(Vni, IpAddr, IpNet)>) -> BTreeSet<Length> {
    let lengths = sources.iter().map(|(_, vtep, net)| Length {
        outer: Family::of(*vtep),
        inner: Family::of(net.addr()),
        bits: net.prefix_len(),
    });
    lengths.collect()
}

/// Numbers are added up, so that one that comes or goes needs no look at all others.
fn number_of_end((vni, vtep): &(Vni, IpAddr)) -> u64 {
    let mut hasher = Fnv::default();
    hasher.write(format!("{vni} {vtep}").as_bytes());
    hasher.finish()
}

fn number_of_source((vni, vtep, net): &(Vni, IpAddr, IpNet)) -> u64 {
    let mut hasher = Fnv::default();
    hasher.write(format!("{vni} {vtep} {net}").as_bytes());
    hasher.finish()
}

/// FNV-1a, as what stands in a table outlives the agent.
pub struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(START)
    }
}

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        // The end of a part counts, too.
        self.0 = fnv1a(self.0, bytes.iter().chain(&[0]));
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
