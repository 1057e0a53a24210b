//! A network's bridge, VXLAN devices, routes and map entries.

use std::net::IpAddr;

use overlay_common::wire::{OVERHEAD_V4, OVERHEAD_V6, SOURCE_PORT_MAX, SOURCE_PORT_MIN};

use super::{
    Derived, Desired, Node, Obstacle, Problem, Room, Tunnel, hooks, is_fast, names, rotation,
    settings, values, wireguard,
};
use crate::{
    model::{Dscp, Family, MIN_IPV6_MTU, Mac, Network},
    objects::{Address, AttachmentState, Hook, Link, LinkId, LinkKind, LinkRef, Objects, Vxlan},
};

/// Port of the device that is never up and so never opens it (RFC 863).
const DISCARD_PORT: u16 = 9;

pub(super) fn derive<'a>(
    node: &Node<'_>,
    network: &'a Network,
    obstacles: &mut Vec<Obstacle>,
) -> Option<Derived<'a>> {
    let gateway = network.ranges.first()?.gateway();
    let tunnels = tunnels(node, network);
    let bridge = names::bridge_name(network.vni)?;
    let wireguard = match network.wireguard {
        Some(_) => Some(names::wireguard_name(network.vni)?),
        None => None,
    };
    let (mtu, room) = mtu(node, network, &tunnels, obstacles);
    Some(Derived {
        network,
        bridge,
        hooks: hooks::Hooks::of(node, network, bridge, &tunnels),
        gateway_mac: names::gateway_mac(gateway)?,
        mtu,
        room,
        tunnels,
        headroom: names::headroom_name(network.vni)?,
        wireguard,
        second: rotation::second(node, network),
        decrypted_by: wireguard
            .and_then(|device| node.around.links.get(&device))
            .filter(|link| link.ours)
            .map_or(0, |link| link.index),
        fast: is_fast(node.inputs, network),
        followed: {
            let following = node.around.followed.get(&network.name);
            let translated = node.inputs.translated;
            if translated.is_some_and(|translated| translated.contains(&network.vni)) {
                Some(true)
            } else {
                following.map(|following| following.whole)
            }
        },
        crowded: false,
        keeps_priority: settings::keeps_priority(node),
    })
}

/// A device for each family of the peers' VTEPs that this node has an address of; without
/// peers, one that can be joined.
fn tunnels(node: &Node<'_>, network: &Network) -> Vec<Tunnel> {
    let first = node.vteps.first().copied();
    let in_use = |family| {
        if network.peers.is_empty() {
            first.map(Family::of) == Some(family)
        } else {
            network.peers.vtep_families().contains(&family)
        }
    };
    let vteps = node.vteps.iter().copied();
    vteps
        .filter(|vtep| in_use(Family::of(*vtep)))
        .filter_map(|local| {
            Some(Tunnel {
                device: names::vxlan_name(network.vni, Family::of(local))?,
                local,
                mac: Mac::of_vtep(local),
            })
        })
        .collect()
}

/// One for the whole network, so that the way to a peer does not decide what fits.
/// The MTU of a network, and the largest that the underlay has room for.
fn mtu(
    node: &Node<'_>,
    network: &Network,
    tunnels: &[Tunnel],
    obstacles: &mut Vec<Obstacle>,
) -> (u16, u16) {
    let families = network.peers.vtep_families().iter().copied();
    let mut families = families.chain(tunnels.iter().map(Tunnel::family));
    let overhead = if families.any(|family| family == Family::V6) {
        OVERHEAD_V6
    } else {
        OVERHEAD_V4
    };
    let room = wireguard::outer_mtu(node, network);
    let room = room.saturating_sub(overhead.into());
    let room = u16::try_from(room).unwrap_or(u16::MAX - overhead);
    let mtu = network.mtu.unwrap_or(room);
    if mtu > room {
        obstacles.push(Obstacle::MtuTooBig {
            network: network.name.clone(),
            mtu,
            room,
            underlay: node.underlay_mtu,
        });
    } else if network.has_ipv6() && mtu < MIN_IPV6_MTU {
        obstacles.push(Obstacle::MtuForIpv6 {
            network: network.name.clone(),
            mtu,
            underlay: node.underlay_mtu,
            needed: MIN_IPV6_MTU + overhead,
        });
    }
    (mtu, room)
}

pub(super) fn build(
    node: &Node<'_>,
    derived: &Derived<'_>,
    room: &mut Room,
    desired: &mut Desired,
) {
    let network = derived.network;
    add_devices(node, derived, &mut desired.objects);
    if node.inputs.loaded {
        add_ranges(derived, room, desired);
    }
    if derived.fast {
        add_entries(derived, room, desired);
    }
    for range in &network.ranges {
        desired.objects.addresses.insert(Address {
            link: LinkId::node(derived.bridge),
            net: range.on_link(range.gateway()),
        });
    }
    // On a device without an address the kernel's loose reverse-path filter is as strict as
    // the strict one: it would not take the answer that a node sends from its underlay address.
    let bases = network.ranges.iter().map(|range| range.subnet.network());
    for base in bases.filter(IpAddr::is_ipv4) {
        let devices = derived.tunnels.iter().map(|tunnel| tunnel.device);
        let address = |device| Address {
            link: LinkId::node(device),
            net: base.into(),
        };
        desired.objects.addresses.extend(devices.map(address));
    }
}

fn add_devices(node: &Node<'_>, derived: &Derived<'_>, objects: &mut Objects) {
    let network = derived.network;
    let bridge = Link {
        kind: LinkKind::Bridge,
        mac: Some(derived.gateway_mac),
        mtu: derived.mtu.into(),
        up: true,
        master: None,
        alias: Some(names::alias(node.instance)),
        altered: false,
        oversized: false,
    };
    let vxlan = |tunnel: &Tunnel, port| {
        LinkKind::Vxlan(Vxlan {
            vni: network.vni,
            port,
            local: tunnel.local,
            source_ports: (SOURCE_PORT_MIN, SOURCE_PORT_MAX),
            learning: false,
            copies_dscp: network.dscp == Dscp::Copy,
        })
    };
    for tunnel in &derived.tunnels {
        let link = Link {
            kind: vxlan(tunnel, network.port),
            mac: Some(tunnel.mac),
            ..bridge.clone()
        };
        objects.links.insert(LinkId::node(tunnel.device), link);
    }
    // A bridge has its ports leave as much headroom before their packets as the neediest
    // of them asks for. With this one, which is never up, containers leave room for the
    // tunnel's headers; without it every UDP packet is copied to make that room. IPv6 comes
    // last and asks for more.
    if let Some(tunnel) = derived.tunnels.last() {
        let headroom = Link {
            kind: vxlan(tunnel, DISCARD_PORT),
            mac: None,
            up: false,
            master: Some(derived.bridge),
            ..bridge.clone()
        };
        objects
            .links
            .insert(LinkId::node(derived.headroom), headroom);
    }
    objects.links.insert(LinkId::node(derived.bridge), bridge);
}

/// Also those of networks that the programs do not carry: others must not reach them.
fn add_ranges(derived: &Derived<'_>, room: &mut Room, desired: &mut Desired) {
    let network = derived.network;
    for cidr in network.ranges.iter().map(|range| range.cidr) {
        if let Err(full) = room.for_range() {
            desired.problems.push(Problem::RangeLeftOut {
                network: network.name.clone(),
                cidr,
                full,
            });
            continue;
        }
        desired.objects.entries.cidrs.insert(cidr, network.vni);
    }
}

fn add_entries(derived: &Derived<'_>, room: &mut Room, desired: &mut Desired) {
    let network = values::network(derived);
    let objects = &mut desired.objects;
    objects
        .entries
        .networks
        .insert(derived.network.vni, network);
    for tunnel in &derived.tunnels {
        if let Err(full) = room.for_tunnel() {
            desired.problems.push(Problem::TunnelLeftOut {
                network: derived.network.name.clone(),
                device: tunnel.device,
                full,
            });
            continue;
        }
        let port = values::tunnel_port(network, tunnel);
        objects
            .entries
            .ports
            .insert(LinkRef::Name(tunnel.device), port);
        objects
            .attachments
            .insert((tunnel.device, Hook::FromHost), AttachmentState::Current);
    }
}
