//! A network's bridge, VXLAN device, routes and map entries.

use std::{
    cmp::Reverse,
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
};

use bytemuck::Zeroable as _;
use ipnet::{IpNet, Ipv4Net};
use overlay_common::{
    maps::{self, MAX_PREFIX_LENGTHS},
    wire::{OVERHEAD_V4, SOURCE_PORT_MAX, SOURCE_PORT_MIN, vtep_mac},
};

use super::{Derived, Desired, Node, Obstacle, Problem, is_fast, names};
use crate::{
    model::{Mac, Network, Peer},
    objects::{
        Address, AttachmentState, Hook, Link, LinkId, LinkKind, LinkRef, Objects, PeerEntry, Route,
        RouteKey, Scope, Vxlan,
    },
};

/// Port of the device that is never up and so never opens it (RFC 863).
const DISCARD_PORT: u16 = 9;

pub(super) fn derive<'a>(
    node: &Node<'_>,
    network: &'a Network,
    obstacles: &mut Vec<Obstacle>,
) -> Option<Derived<'a>> {
    let room = node.underlay_mtu.saturating_sub(OVERHEAD_V4.into());
    let room = u16::try_from(room).unwrap_or(u16::MAX - OVERHEAD_V4);
    let mtu = network.mtu.unwrap_or(room);
    if mtu > room {
        obstacles.push(Obstacle::MtuTooBig {
            network: network.name.clone(),
            mtu,
            room,
            underlay: node.underlay_mtu,
        });
    }
    Some(Derived {
        network,
        bridge: names::bridge_name(network.vni)?,
        vxlan: names::vxlan_name(network.vni)?,
        headroom: names::headroom_name(network.vni)?,
        mtu,
        fast: is_fast(node.inputs, network),
    })
}

pub(super) fn build(node: &Node<'_>, derived: &Derived<'_>, desired: &mut Desired) {
    let network = derived.network;
    let gateway = network.gateway();
    let (Some(own_mac), Some(gateway_mac)) = (
        Mac::unicast(vtep_mac(node.vtep.octets())),
        names::gateway_mac(gateway),
    ) else {
        return;
    };
    add_devices(node, derived, own_mac, gateway_mac, &mut desired.objects);
    let objects = &mut desired.objects;
    let on_bridge = prefixed(gateway, network.subnet);
    objects.addresses.insert(Address {
        link: LinkId::node(derived.bridge),
        net: on_bridge,
    });
    if derived.fast {
        let value = map_value(node, derived, own_mac, gateway_mac);
        objects.entries.networks.insert(network.vni, value);
        let port = maps::Port {
            network: value,
            mac: own_mac.octets(),
            ..maps::Port::zeroed()
        };
        objects
            .entries
            .ports
            .insert(LinkRef::Name(derived.vxlan), port);
        objects
            .attachments
            .insert((derived.vxlan, Hook::FromHost), AttachmentState::Current);
    }
    for peer in &network.peers {
        build_peer(node, derived, peer, desired);
    }
}

fn add_devices(
    node: &Node<'_>,
    derived: &Derived<'_>,
    own_mac: Mac,
    gateway_mac: Mac,
    objects: &mut Objects,
) {
    let network = derived.network;
    let bridge = Link {
        kind: LinkKind::Bridge,
        mac: Some(gateway_mac),
        mtu: derived.mtu.into(),
        up: true,
        master: None,
        alias: Some(names::alias(node.instance)),
    };
    let settings = Vxlan {
        vni: network.vni,
        port: network.port,
        local: node.vtep.into(),
        source_ports: (SOURCE_PORT_MIN, SOURCE_PORT_MAX),
        learning: false,
    };
    let vxlan = Link {
        kind: LinkKind::Vxlan(settings.clone()),
        mac: Some(own_mac),
        ..bridge.clone()
    };
    // A bridge has its ports leave as much headroom before their packets as the neediest
    // of them asks for. With this one, which is never up, containers leave room for the
    // tunnel's headers; without it every UDP packet is copied to make that room.
    let headroom = Link {
        kind: LinkKind::Vxlan(Vxlan {
            port: DISCARD_PORT,
            ..settings
        }),
        mac: None,
        up: false,
        master: Some(derived.bridge),
        ..bridge.clone()
    };
    objects.links.insert(LinkId::node(derived.bridge), bridge);
    objects.links.insert(LinkId::node(derived.vxlan), vxlan);
    objects
        .links
        .insert(LinkId::node(derived.headroom), headroom);
}

fn build_peer(node: &Node<'_>, derived: &Derived<'_>, peer: &Peer, desired: &mut Desired) {
    let network = derived.network;
    let vtep = IpAddr::V4(peer.vtep);
    let way = node.around.ways.get(&vtep);
    if way.is_none() {
        desired.problems.push(Problem::NoWay {
            peer: peer.name.clone(),
            vtep,
        });
    }
    let objects = &mut desired.objects;
    objects.fdb.insert((derived.vxlan, peer.mac), vtep);
    for &subnet in &peer.subnets {
        // As flannel does it: the subnet's first address stands for the peer's VTEP.
        let next_hop = IpAddr::V4(subnet.network());
        objects
            .neighbours
            .insert((derived.vxlan, next_hop), peer.mac);
        objects.routes.insert(
            RouteKey {
                scope: Scope::Node,
                destination: IpNet::V4(subnet),
            },
            Route {
                dev: derived.vxlan,
                via: next_hop,
                onlink: true,
                // The node's own packets carry an address that the peer knows to be behind this VTEP.
                source: Some(network.gateway().into()),
            },
        );
        if derived.fast {
            let entry = PeerEntry {
                vtep,
                // An entry without a way still tells whose subnet it is; index 0 is no device.
                next_hop: way.map_or(vtep, |way| way.next_hop),
                underlay: way.map_or(LinkRef::Gone(0), |way| LinkRef::Name(way.link)),
                mac: peer.mac,
                index: 0,
            };
            objects
                .entries
                .peers
                .insert((network.vni, IpNet::V4(subnet)), entry);
        }
    }
    if derived.fast {
        objects.entries.vteps.insert((network.vni, vtep), 0);
    }
}

/// An address with the prefix length of its subnet.
pub(super) fn prefixed(address: Ipv4Addr, subnet: Ipv4Net) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(address, subnet.prefix_len()))
}

fn map_value(node: &Node<'_>, derived: &Derived<'_>, own: Mac, gateway: Mac) -> maps::Network {
    let network = derived.network;
    let lengths: BTreeSet<Reverse<u8>> = network
        .peers
        .iter()
        .flat_map(|peer| &peer.subnets)
        .map(|subnet| Reverse(subnet.prefix_len()))
        .collect();
    let mut peer_lengths4 = [0; MAX_PREFIX_LENGTHS];
    for (slot, Reverse(length)) in peer_lengths4.iter_mut().zip(lengths) {
        *slot = length;
    }
    maps::Network {
        vni: network.vni.get(),
        vtep: node.vtep.octets(),
        subnet: network.subnet.network().octets(),
        subnet_mask: network.subnet.netmask().octets(),
        peer_lengths4,
        mtu: derived.mtu,
        port_be: network.port.to_be_bytes(),
        vtep_mac: own.octets(),
        gateway_mac: gateway.octets(),
        ..maps::Network::zeroed()
    }
}
