//! Addresses of networks that devices of this node have which are not ours: the kernel keeps what is
//! for them on the node, whoever should get it.

use std::net::IpAddr;

use super::{Derived, Node, Problem, address_of, problems::Whose};
use crate::model::{Endpoint, Family, Name, Network};

pub(super) fn find(node: &Node<'_>, networks: &[Derived<'_>], problems: &mut Vec<Problem>) {
    for (device, link) in node.others() {
        for net in &link.addresses {
            let address = net.addr();
            // An outer address in a network's range is told as that.
            if node.vteps.contains(&address) {
                continue;
            }
            let found = networks.iter().find_map(|derived| {
                let whose = whose(node, derived.network, address)?;
                Some((&derived.network.name, whose))
            });
            problems.extend(found.map(|(network, whose)| Problem::AddressTaken {
                network: network.clone(),
                net: *net,
                device,
                owner: link.owner.clone(),
                whose,
            }));
        }
    }
}

/// The same of the addresses that one endpoint asks for.
pub(super) fn of_endpoint(node: &Node<'_>, network: &Name, endpoint: &Endpoint) -> Option<Problem> {
    let mut others = node.others();
    others.find_map(|(device, link)| {
        let mut nets = link.addresses.iter();
        let net = nets.find(|net| endpoint.addresses.contains(&net.addr()))?;
        Some(Problem::AddressTaken {
            network: network.clone(),
            net: *net,
            device,
            owner: link.owner.clone(),
            whose: Whose::Endpoint(endpoint.name.clone()),
        })
    })
}

fn whose(node: &Node<'_>, network: &Network, address: IpAddr) -> Option<Whose> {
    let family = Family::of(address);
    let range = network.range(family)?;
    if !range.cidr.contains(&address) {
        return None;
    }
    if range.subnet.contains(&address) {
        let store = node.inputs.store;
        let has_it = |endpoint: &&Endpoint| {
            endpoint.network == network.name && address_of(store, endpoint, family) == Some(address)
        };
        let mut endpoints = node.inputs.model.endpoints.iter();
        let whose = endpoints.find(has_it).map(|it| it.name.clone());
        return Some(whose.map_or(Whose::Own, Whose::Endpoint));
    }
    let mut peers = network.peers.iter();
    let peer = peers.find(|peer| peer.subnets.iter().any(|subnet| subnet.contains(&address)))?;
    Some(Whose::Peer(peer.name.clone()))
}
