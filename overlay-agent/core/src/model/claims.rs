//! Whose a prefix is already.

use std::fmt;

use ipnet::IpNet;

use super::{Endpoint, Name, Network};

/// Something that is somebody's, seen from an endpoint that wants to have others behind it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim<'m> {
    pub(crate) prefix: IpNet,
    pub(crate) owner: Owner<'m>,
}

/// Whose.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Owner<'m> {
    Node,
    Peer(&'m Name),
    Network(&'m Name),
    Endpoint(&'m Name),
}

impl fmt::Display for Owner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node => f.write_str("this node"),
            Self::Peer(name) => write!(f, "peer {name}"),
            Self::Network(name) => write!(f, "network {name}"),
            Self::Endpoint(name) => write!(f, "endpoint {name}"),
        }
    }
}

/// The first of what is somebody's, seen from an endpoint of `network`, that a prefix overlaps.
pub(crate) fn taken<'m>(
    prefix: IpNet,
    network: &'m Network,
    networks: &'m [Network],
    endpoints: &'m [Endpoint],
) -> Option<Claim<'m>> {
    let claim = |owner| move |prefix| Claim { prefix, owner };
    let own = network.ranges.iter().map(|range| range.subnet);
    let own = own.map(claim(Owner::Node));
    let peers = network.peers.iter().flat_map(|peer| {
        let subnets = peer.subnets.iter().copied();
        subnets.map(claim(Owner::Peer(&peer.name)))
    });
    let others = networks.iter().filter(|other| other.vni != network.vni);
    let others = others.flat_map(|other| {
        let cidrs = other.ranges.iter().map(|range| range.cidr);
        cidrs.map(claim(Owner::Network(&other.name)))
    });
    let endpoints = endpoints.iter().flat_map(|endpoint| {
        let sources = endpoint.allowed_sources.iter().copied();
        sources.map(claim(Owner::Endpoint(&endpoint.name)))
    });
    let mut claims = own.chain(peers).chain(others).chain(endpoints);
    claims.find(|claim| overlap(claim.prefix, prefix))
}

/// Whether two prefixes have an address in common.
pub(crate) fn overlap(one: IpNet, other: IpNet) -> bool {
    one.contains(&other) || other.contains(&one)
}
