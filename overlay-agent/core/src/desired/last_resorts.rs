//! Routes of last resort, and where one would cut tunnels off.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Derived, Desired, Node, Problem, last_resort_metric};

pub(super) fn build(node: &Node<'_>, networks: &[Derived<'_>], desired: &mut Desired) {
    let metric = last_resort_metric(node.instance);
    for network in networks.iter().map(|derived| derived.network) {
        for cidr in network.ranges.iter().map(|range| range.cidr) {
            let cut_off = vteps(node, networks)
                .find(|vtep| cidr.contains(vtep) && !has_route_within(node, cidr, *vtep));
            if let Some(vtep) = cut_off {
                desired.problems.push(Problem::RangeAroundVtep {
                    network: network.name.clone(),
                    cidr,
                    vtep,
                });
            } else if node.around.in_place.contains_key(&(cidr, metric)) {
                desired.problems.push(Problem::LastResortTaken {
                    network: network.name.clone(),
                    cidr,
                    metric,
                });
            } else {
                desired.objects.last_resorts.insert(cidr);
            }
        }
    }
}

/// The outer addresses that tunnels lead to.
fn vteps<'a>(node: &'a Node<'_>, networks: &'a [Derived<'_>]) -> impl Iterator<Item = IpAddr> + 'a {
    let peers = networks.iter().flat_map(|derived| &derived.network.peers);
    let vteps = peers.map(|peer| peer.vtep);
    vteps.filter(|vtep| !node.vteps.contains(vtep))
}

/// Whether somebody's route leads to an address before one to the whole range would.
fn has_route_within(node: &Node<'_>, cidr: IpNet, address: IpAddr) -> bool {
    let on_links = node.others().flat_map(|(_, link)| &link.addresses);
    let mut routes = on_links
        .chain(node.around.routes.keys())
        .filter(|net| net.prefix_len() >= cidr.prefix_len());
    routes.any(|net| net.contains(&address))
}
