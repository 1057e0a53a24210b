//! Subnets whose routes would lead the underlay's own packets into a tunnel or a bridge.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

use super::{
    Derived, Node,
    obstacles::{Inside, Obstacle},
};
use crate::{
    model::{IfName, Name},
    surroundings::Way,
};

/// A subnet of a network, and the peer whose it is.
type Owned<'a> = (IpNet, &'a Name, Option<&'a Name>);

pub(super) fn find(node: &Node<'_>, networks: &[Derived<'_>], obstacles: &mut Vec<Obstacle>) {
    let ranges = || networks.iter().flat_map(|derived| &derived.network.ranges);
    let in_network = |address: IpAddr| ranges().any(|range| range.cidr.contains(&address));
    let inside: Vec<Inside> = addresses(node, networks, in_network).collect();
    // Nothing, as a rule.
    if inside.is_empty() {
        return;
    }
    let subnets = subnets(networks);
    let mut seen = BTreeSet::new();
    for inside in inside {
        let address = inside.address();
        // One router leads to many.
        if !seen.insert(address) {
            continue;
        }
        // None overlaps another.
        let Some((_, &(subnet, network, peer))) = subnets.range(..=address).next_back() else {
            continue;
        };
        if !subnet.contains(&address) || !is_hidden(node, subnet, &inside, peer) {
            continue;
        }
        obstacles.push(Obstacle::AroundUnderlay {
            network: network.clone(),
            peer: peer.cloned(),
            subnet,
            inside,
        });
    }
}

/// Addresses that have to be reached, or be reachable, outside the tunnels.
fn addresses<'a>(
    node: &'a Node<'_>,
    networks: &'a [Derived<'_>],
    counts: impl Fn(IpAddr) -> bool + Copy + 'a,
) -> impl Iterator<Item = Inside> + 'a {
    let leaving = node.around.ways.values().flat_map(Way::links);
    let mut devices: Vec<IfName> = node.underlay.iter().copied().chain(leaving).collect();
    devices.sort_unstable();
    devices.dedup();
    let own = devices.into_iter().flat_map(move |device| {
        let link = node.around.links.get(&device);
        let addresses = link.into_iter().flat_map(|link| &link.addresses);
        // By one without a subnet nobody is reached: it may be a service's.
        let is_reached = move |net: &&IpNet| {
            net.prefix_len() < net.max_prefix_len() || node.vteps.contains(&net.addr())
        };
        let addresses = addresses.filter(is_reached);
        addresses.map(move |net| Inside::Own(net.addr(), device))
    });
    let peers = networks.iter().flat_map(|derived| &derived.network.peers);
    let vteps = peers.filter(move |peer| counts(peer.vtep));
    let vteps = vteps.map(|peer| Inside::Vtep(peer.vtep, peer.name.clone()));
    let ways = node.around.ways.iter();
    let routers = ways.flat_map(|(vtep, way)| {
        let others = way.hops.iter().map(|hop| hop.next_hop);
        let all = std::iter::once(way.next_hop).chain(others);
        all.filter(move |hop| hop != vtep).map(Inside::NextHop)
    });
    let all = own.chain(vteps).chain(routers);
    all.filter(move |inside| counts(inside.address()))
}

fn subnets<'a>(networks: &'a [Derived<'_>]) -> BTreeMap<IpAddr, Owned<'a>> {
    let of_network = |derived: &'a Derived<'_>| {
        let network = derived.network;
        let own = network.ranges.iter().map(|range| (range.subnet, None));
        let peers = network.peers.iter().flat_map(|peer| {
            let subnets = peer.subnets.iter();
            subnets.map(|subnet| (*subnet, Some(&peer.name)))
        });
        own.chain(peers)
            .map(|(subnet, peer)| (subnet.network(), (subnet, &network.name, peer)))
    };
    networks.iter().flat_map(of_network).collect()
}

/// Whether a route to a subnet goes before those that lead to an address in it, or as far as
/// the node's own go, to the machines beside it.
fn is_hidden(node: &Node<'_>, subnet: IpNet, inside: &Inside, peer: Option<&Name>) -> bool {
    let address = inside.address();
    let on_links = node.others().flat_map(|(_, link)| &link.addresses);
    let mut within = on_links
        .chain(node.around.routes.keys())
        .filter(|net| net.contains(&address) && net.prefix_len() > subnet.prefix_len());
    match inside {
        // It is this node's whatever leads there; those beside it are not.
        Inside::Own(..) => {
            let is_vtep = peer.is_some() && node.vteps.contains(&address);
            is_vtep || within.all(|net| net.prefix_len() == net.max_prefix_len())
        }
        Inside::Vtep(..) | Inside::NextHop(_) => within.next().is_none(),
    }
}

impl Inside {
    /// The address.
    pub fn address(&self) -> IpAddr {
        let (Self::Own(address, _) | Self::Vtep(address, _) | Self::NextHop(address)) = self;
        *address
    }
}
