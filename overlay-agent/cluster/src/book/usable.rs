//! Which entries can be peers, beside each other.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use super::MAX_LENGTHS;
use crate::{
    lease::{Lease, Mac, PublicKey, shown},
    network::Network,
    subnet::Subnet,
};

pub(super) fn unusable(
    subnet: Subnet,
    lease: &Lease,
    network: &Network,
    me: Option<Subnet>,
) -> Option<String> {
    if !network.has(&subnet) {
        return Some("it is not a part of the network, or of other families".to_owned());
    }
    if me.is_some_and(|me| me.overlaps(&subnet)) {
        return Some("it overlaps this node's own subnet".to_owned());
    }
    if network.encrypted && lease.public_key().is_none() {
        return Some(format!(
            "{} has no public key, and this node encrypts the network",
            shown(&name(lease))
        ));
    }
    let complete = lease.public_v6.is_some() && lease.v6.is_some();
    if subnet.v6.is_some() && !complete {
        return Some("it has no IPv6 address or device".to_owned());
    }
    if network.v6.is_some()
        && let (Some(_), Some(v6)) = (lease.public_v6, &lease.v6)
        && v6.mac == lease.v4.mac
    {
        return Some(format!("both its devices have MAC {}", v6.mac));
    }
    None
}

/// A node's name where nothing depends on it: the one that it gives itself, or its address.
pub(super) fn name(lease: &Lease) -> String {
    lease
        .node()
        .map_or_else(|| lease.public_v4.to_string(), str::to_owned)
}

/// Why an entry of another subnet cannot be a peer: it leads to this very node.
pub(super) fn is_ours(lease: &Lease, own: &Lease, network: &Network) -> Option<String> {
    let v4 = Some(IpAddr::V4(lease.public_v4)).filter(|_| lease.public_v4 == own.public_v4);
    let v6 = lease.public_v6.filter(|_| lease.public_v6 == own.public_v6);
    if let Some(address) = v4.or(v6.map(IpAddr::V6)) {
        return Some(format!("{address} is this node's own address"));
    }
    if !network.encrypted {
        return None;
    }
    let [own, theirs] = [own, lease].map(|lease| lease.overlay.as_ref());
    let (own, mut theirs) = (&own?.keys, theirs?.keys.all());
    let key = theirs.find(|key| own.all().any(|own| own == *key))?;
    Some(format!("{key} is this node's own key"))
}

/// Why a subnet cannot be looked up, if not: the data plane knows so many prefix lengths of each
/// family.
pub(super) fn one_length_more(
    lengths: &mut BTreeSet<(bool, u8)>,
    subnet: Subnet,
) -> Option<String> {
    let v4 = (false, subnet.v4.prefix_len());
    let v6 = subnet.v6.map(|v6| (true, v6.prefix_len()));
    for new in [Some(v4), v6].into_iter().flatten() {
        let alike = lengths.iter().filter(|(family, _)| *family == new.0);
        if !lengths.contains(&new) && alike.count() == MAX_LENGTHS {
            return Some(format!(
                "the network has subnets of {MAX_LENGTHS} other prefix lengths already"
            ));
        }
    }
    lengths.extend([Some(v4), v6].into_iter().flatten());
    None
}

/// Values that no two peers share: the addresses and MACs of their devices, and their keys.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Identity {
    Address(IpAddr),
    Mac(Mac),
    Key(PublicKey),
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "address {address}"),
            Self::Mac(mac) => write!(f, "MAC {mac}"),
            Self::Key(key) => write!(f, "public key {key}"),
        }
    }
}

pub(super) fn identity(lease: &Lease, network: &Network) -> impl Iterator<Item = Identity> {
    let v4 = [
        Some(Identity::Address(lease.public_v4.into())),
        Some(Identity::Mac(lease.v4.mac)),
    ];
    let v6 = network.v6.map(|_| {
        let address = lease
            .public_v6
            .map(|address| Identity::Address(address.into()));
        let mac = lease.v6.as_ref().map(|device| Identity::Mac(device.mac));
        [address, mac]
    });
    // Where they are needed: until then a machine may be a copy of another one.
    let keys = lease.overlay.iter().filter(move |_| network.encrypted);
    let keys = keys.flat_map(|overlay| overlay.keys.all());
    let keys = keys.map(|key| Identity::Key(key.clone()));
    let addresses = v4.into_iter().chain(v6.into_iter().flatten()).flatten();
    addresses.chain(keys)
}

/// One that overlaps, of those that do not overlap each other.
pub(super) fn overlapping<N>(nodes: &BTreeMap<Subnet, N>, subnet: Subnet) -> Option<Subnet> {
    // Nodes of both families have them by one number if they are ours; others may not.
    let end = Subnet {
        v4: ipnet::Ipv4Net::from(subnet.v4.broadcast()),
        v6: None,
    };
    let before = nodes.range(..=end).next_back();
    let after = nodes.range(subnet..).next();
    let v6 = subnet
        .v6
        .and_then(|_| nodes.iter().find(|(other, _)| other.overlaps(&subnet)));
    let near = [before, after, v6].into_iter().flatten();
    near.map(|(other, _)| *other)
        .find(|other| other.overlaps(&subnet))
}
