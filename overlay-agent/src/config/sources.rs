//! What endpoints may send from besides their own addresses.

use ipnet::IpNet;

use super::{
    Report,
    error::Fault,
    raw,
    subnets::{no_such_family, subnets},
};
use crate::model::{Endpoint, Family, Network};

/// The prefixes behind an endpoint; the node leads them to it, so they must be nobody else's.
pub(super) fn validate(
    raw: &raw::Endpoint,
    field: &str,
    network: &Network,
    networks: &[Network],
    others: &[Endpoint],
    report: &mut Report<'_>,
) -> Vec<IpNet> {
    let Some(given) = &raw.allowed_sources else {
        return Vec::new();
    };
    let field = format!("{field}.allowed_sources");
    if !raw.forwarding {
        report.add(given.span(), &field, Fault::NotForwarding);
    }
    let sources = subnets(given, || field.clone(), report);
    for (place, &prefix) in sources.iter().enumerate() {
        let family = Family::of(prefix.addr());
        let earlier = sources[..place]
            .iter()
            .map(|&own| (own, "this endpoint".to_owned()));
        let taken = claimed(network, networks, others).chain(earlier);
        let fault = if network.range(family).is_none() {
            Some(no_such_family(&prefix, family))
        } else {
            overlap(prefix, taken)
        };
        if let Some(fault) = fault {
            report.add(given.span(), &field, fault);
        }
    }
    sources
}

fn overlap(prefix: IpNet, mut taken: impl Iterator<Item = (IpNet, String)>) -> Option<Fault> {
    let (other, owner) =
        taken.find(|(other, _)| other.contains(&prefix) || prefix.contains(other))?;
    Some(Fault::SourceTaken {
        prefix,
        other,
        owner,
    })
}

/// Everything that is somebody's, seen from an endpoint of `network`.
fn claimed<'a>(
    network: &'a Network,
    networks: &'a [Network],
    endpoints: &'a [Endpoint],
) -> impl Iterator<Item = (IpNet, String)> + 'a {
    let own = network
        .ranges
        .iter()
        .map(|range| (range.subnet, "this node".to_owned()));
    let peers = network.peers.iter().flat_map(|peer| {
        let owner = format!("peer {}", peer.name);
        peer.subnets
            .iter()
            .map(move |&subnet| (subnet, owner.clone()))
    });
    let other_networks = networks
        .iter()
        .filter(|other| other.vni != network.vni)
        .flat_map(|other| {
            let owner = format!("network {}", other.name);
            other
                .ranges
                .iter()
                .map(move |range| (range.cidr, owner.clone()))
        });
    let endpoints = endpoints.iter().flat_map(|endpoint| {
        let owner = format!("endpoint {}", endpoint.name);
        endpoint
            .allowed_sources
            .iter()
            .map(move |&prefix| (prefix, owner.clone()))
    });
    own.chain(peers).chain(other_networks).chain(endpoints)
}
