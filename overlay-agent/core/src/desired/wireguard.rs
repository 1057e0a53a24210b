//! Tunnels that are encrypted: a `WireGuard` device of the network, by which all that leaves them goes.
//!
//! VTEPs keep their addresses. What is for a peer's VTEP is sent by this device without a question to
//! routes: by the rows of the maps on the fast path, by the forwarding entry's device (`via`) on the
//! kernel's. So no route and no rule of the node changes, and where the device is missing nothing
//! leaves, instead of leaving in the clear.

use std::{
    borrow::Cow,
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use super::{Derived, Desired, Node, Obstacle, Problem, names};
use crate::{
    model::{Family, IfName, Network, Peer, WireGuard},
    objects::{Address, Link, LinkId, LinkKind, Wireguard, WireguardPeer},
    surroundings::Way,
};

/// Nobody's (RFC 7600 §4.8), so that it can be everybody's: on a device without an address the loose
/// reverse path filter is as strict as the strict one.
const DUMMY: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);

/// Bytes that the underlay of a network's tunnels carries in one piece.
pub(super) fn outer_mtu(node: &Node<'_>, network: &Network) -> u32 {
    let overhead = network
        .wireguard
        .map_or(0, |_| WireGuard::overhead(Family::V4));
    node.underlay_mtu.saturating_sub(overhead)
}

/// The way to a VTEP as packets of the network's tunnels take it.
pub(super) fn way<'a>(
    derived: &Derived<'_>,
    vtep: IpAddr,
    outside: Option<&'a Way>,
) -> Option<Cow<'a, Way>> {
    let outside = outside?;
    let Some(link) = device(derived, vtep) else {
        return Some(Cow::Borrowed(outside));
    };
    Some(Cow::Owned(Way {
        link,
        next_hop: vtep,
        // It fragments nothing, and lets routers do it.
        path_mtu: None,
        hops: Vec::new(),
    }))
}

/// The device that encrypts for a peer.
pub(super) fn device(derived: &Derived<'_>, vtep: IpAddr) -> Option<IfName> {
    let mut second = derived.second.iter();
    let second = second.find(|second| second.carries.contains(&vtep));
    second.map_or(derived.wireguard, |second| Some(second.device))
}

/// Finds what stands in the way of encryption, before anything is changed.
pub(super) fn find(node: &Node<'_>, networks: &[Derived<'_>], obstacles: &mut Vec<Obstacle>) {
    let encrypted = networks.iter().find(|derived| derived.wireguard.is_some());
    if let (Some(derived), Some(why)) = (encrypted, &node.around.no_wireguard) {
        obstacles.push(Obstacle::NoWireguard {
            network: derived.network.name.clone(),
            why: why.clone(),
        });
    }
}

/// The devices, and whom they speak with.
pub(super) fn build(node: &Node<'_>, derived: &Derived<'_>, desired: &mut Desired) {
    let network = derived.network;
    let (Some(device), Some(WireGuard { port, next_port })) =
        (derived.wireguard, network.wireguard)
    else {
        return;
    };
    let own = node.around.public_key;
    let mut settings = Wireguard {
        public_key: own,
        port,
        ..Wireguard::default()
    };
    for peer in &network.peers {
        let Some(key) = peer.public_key.as_deref() else {
            continue;
        };
        if own == Some(*key) {
            desired.problems.push(Problem::OwnKey {
                peer: peer.name.clone(),
                key: *key,
            });
            continue;
        }
        let keepalive = derived.second.as_ref();
        let keepalive = keepalive.map_or(0, |second| second.keepalive_of_first(node, peer));
        settings.peers.insert(*key, inside(peer, port, keepalive));
    }
    add(node, derived, device, settings, desired);
    if let Some(second) = &derived.second {
        let settings = second.settings(node, network, next_port);
        add(node, derived, second.device, settings, desired);
    }
}

/// A peer, as a device that sends to this port of its node knows it.
pub(super) fn inside(peer: &Peer, port: u16, keepalive: u16) -> WireguardPeer {
    WireguardPeer {
        allowed: BTreeSet::from([peer.vtep.into()]),
        endpoint: Some(SocketAddr::new(peer.vtep, port)),
        keepalive,
    }
}

fn add(
    node: &Node<'_>,
    derived: &Derived<'_>,
    device: IfName,
    settings: Wireguard,
    desired: &mut Desired,
) {
    let id = LinkId::node(device);
    let link = Link {
        kind: LinkKind::Wireguard,
        mac: None,
        mtu: outer_mtu(node, derived.network),
        up: true,
        master: None,
        alias: Some(names::alias(node.instance)),
        altered: false,
        oversized: false,
    };
    desired.objects.links.insert(id.clone(), link);
    desired.objects.addresses.insert(Address {
        link: id,
        net: IpAddr::from(DUMMY).into(),
    });
    desired.objects.wireguard.insert(device, settings);
}
