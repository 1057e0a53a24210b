//! What comes in on the underlay.

use std::net::IpAddr;

use overlay_common::{
    programs::FROM_UNDERLAY,
    reasons::{DropReason, PassReason},
};

use super::{Case, case, leaving::oddities, with};
use crate::{
    counters::Outcome,
    frames::{ARP, BROADCAST, IPV4, IPV6, Ip, TCP, VLAN, ethernet, header_of, udp, vxlan},
    traffic::{
        I_FLAG, UNDERLAY_MACS, arriving, arriving_as, datagram, from_remote, inner, inside, outer,
        tunnelled, tunnelled_with,
    },
    world::{MTU, OTHER_PEER_MAC, OVER4, OVER6, PORT, Road, VNI, roads},
};

pub(super) fn all() -> Vec<Case> {
    roads().iter().flat_map(of).collect()
}

pub(super) fn of(road: &Road) -> Vec<Case> {
    [
        strangers(road),
        outer_oddities(road),
        inner_oddities(road),
        not_to_an_endpoint(road),
        aggregates(road),
        padded(road),
        unusual_but_fine(road),
    ]
    .concat()
}

pub(super) fn received(what: &str, road: &Road, packet: Vec<u8>, outcome: Outcome) -> Case {
    let what = format!("{}: {what}", road.name());
    case(what, FROM_UNDERLAY, packet, outcome)
}

fn left(what: &str, road: &Road, packet: Vec<u8>, reason: PassReason) -> Case {
    received(what, road, packet, Outcome::Pass(reason))
}

/// Dropped, and charged to the road's peer.
pub(super) fn dropped(what: &str, road: &Road, packet: Vec<u8>, reason: DropReason) -> Case {
    let outcome = Outcome::Drop(reason, Some(road.tunnel.index));
    received(what, road, packet, outcome)
}

/// A packet in the tunnel from some VTEP on the road's underlay.
pub(super) fn from_vtep(road: &Road, vtep: IpAddr, header: Ip) -> Vec<u8> {
    arriving(outer(vtep), &tunnelled(road.tunnel, header))
}

pub(super) fn plain(road: &Road) -> Ip {
    inner(road.there, road.here)
}

pub(super) fn frame(road: &Road) -> Vec<u8> {
    tunnelled(road.tunnel, plain(road))
}

fn strangers(road: &Road) -> Vec<Case> {
    let (to, from) = UNDERLAY_MACS;
    let own = outer(road.tunnel.peer);
    let kind = own.ethertype();
    let payload = vxlan(I_FLAG, VNI, &frame(road));
    let next_port = own.around(&udp(50_000, PORT + 1, 0, &payload));
    let tcp = Ip {
        protocol: TCP,
        ..own
    };
    let elsewhere = Ip {
        destination: road.tunnel.stranger,
        ..own
    };
    let tagged = [&[0, 7][..], &from_remote(road)[12..]].concat();
    let other_type = if kind == IPV4 { IPV6 } else { IPV4 };
    let relabelled = with(from_remote(road), 14, from_remote(road)[14] ^ 0x20);
    let mut cases = vec![
        ("ARP", ethernet(BROADCAST, from, ARP, &[0; 28])),
        ("TCP", ethernet(to, from, kind, &tcp.around(&[0; 100]))),
        ("a VLAN tag", ethernet(to, from, VLAN, &tagged)),
        ("another's MAC", with(from_remote(road), 5, 1)),
        (
            "all MACs",
            [&BROADCAST[..], &from_remote(road)[6..]].concat(),
        ),
        ("another port", ethernet(to, from, kind, &next_port)),
        (
            "another VTEP of this machine",
            arriving(elsewhere, &frame(road)),
        ),
        (
            "another family's type",
            ethernet(to, from, other_type, &own.around(&payload)),
        ),
    ];
    if kind == IPV6 {
        cases.push(("another version", relabelled));
    }
    let wrong_vni = (0..24).map(|bit| {
        let vni = vxlan(I_FLAG, VNI ^ 1 << bit, &frame(road));
        left(
            &format!("VNI bit {bit}"),
            road,
            arriving_as(own, 0, &vni),
            PassReason::NotOurs,
        )
    });
    cases
        .into_iter()
        .map(|(what, packet)| left(what, road, packet, PassReason::NotOurs))
        .chain(wrong_vni)
        .collect()
}

fn outer_oddities(road: &Road) -> Vec<Case> {
    let own = outer(road.tunnel.peer);
    let payload = vxlan(I_FLAG, VNI, &frame(road));
    let right = own.udp_checksum(&udp(50_000, PORT, 0, &payload));
    let odd = oddities(own)
        .into_iter()
        .map(|(what, header, first, reason)| {
            let mut packet = arriving(header, &frame(road));
            packet[14] = first.unwrap_or(packet[14]);
            left(what, road, packet, reason)
        });
    let checksums = [
        ("a right checksum", right),
        ("a wrong checksum", right ^ 0x0100),
    ]
    .map(|(what, checksum)| {
        // A test run's packet is one that no device has looked at.
        let packet = arriving_as(own, checksum, &payload);
        left(what, road, packet, PassReason::UnverifiedChecksum)
    });
    odd.chain(checksums).collect()
}

fn inner_oddities(road: &Road) -> Vec<Case> {
    let tagged = |number: u8| [&[0xe0, number][..], &frame(road)[12..]].concat();
    let in_tunnel = |kind, payload: &[u8]| {
        let frame = ethernet(road.tunnel.node_mac, road.tunnel.peer_mac, kind, payload);
        arriving(outer(road.tunnel.peer), &frame)
    };
    let odd = oddities(plain(road))
        .into_iter()
        .map(|(what, header, first, reason)| {
            let mut packet = inside(road, header);
            let place = road.tunnel.overhead + 14;
            packet[place] = first.unwrap_or(packet[place]);
            left(&format!("inner {what}"), road, packet, reason)
        });
    [
        left(
            "inner ARP",
            road,
            in_tunnel(ARP, &[0; 28]),
            PassReason::NotIp,
        ),
        left(
            "inner LLDP",
            road,
            in_tunnel(0x88cc, &[0; 46]),
            PassReason::NotIp,
        ),
        left(
            "inner priority",
            road,
            in_tunnel(VLAN, &tagged(0)),
            PassReason::NotIp,
        ),
        dropped(
            "inner VLAN 7",
            road,
            in_tunnel(VLAN, &tagged(7)),
            DropReason::InnerVlanTag,
        ),
        dropped(
            "inner service VLAN 7",
            road,
            in_tunnel(0x88a8, &tagged(7)),
            DropReason::InnerVlanTag,
        ),
        dropped(
            "inner tag cut off",
            road,
            in_tunnel(VLAN, &[0]),
            DropReason::InnerVlanTag,
        ),
    ]
    .into_iter()
    .chain(odd)
    .collect()
}

fn not_to_an_endpoint(road: &Road) -> Vec<Case> {
    let places = road.places();
    let header = plain(road);
    let packet = header.around(&datagram());
    let addressed = |mac| {
        let frame = ethernet(mac, road.tunnel.peer_mac, header.ethertype(), &packet);
        arriving(outer(road.tunnel.peer), &frame)
    };
    let other_end = if road.tunnel.overhead == 50 {
        OVER6
    } else {
        OVER4
    }
    .node_mac;
    let to = |destination| inside(road, inner(road.there, destination));
    let too_much = vec![0; usize::from(MTU) + 1 - header_of(road.here)];
    let large = arriving(
        outer(road.tunnel.peer),
        &tunnelled_with(road.tunnel, header, &too_much),
    );
    let mut looped = from_remote(road);
    looped[road.tunnel.overhead + 6..][..6].copy_from_slice(&road.tunnel.node_mac);
    let aged = |ttl| inside(road, Ip { ttl, ..header });
    [
        ("broadcast", addressed(BROADCAST), PassReason::NotUnicast),
        ("multicast", to(places.multicast), PassReason::NotUnicast),
        (
            "another node's MAC",
            addressed(OTHER_PEER_MAC),
            PassReason::ForeignMac,
        ),
        (
            "the other tunnel's MAC",
            addressed(other_end),
            PassReason::ForeignMac,
        ),
        ("from this end's MAC", looped, PassReason::ForeignMac),
        ("to the gateway", to(places.gateway), PassReason::ToNode),
        (
            "to the node's underlay address",
            to(places.node),
            PassReason::ToNode,
        ),
        ("to nobody here", to(places.absent), PassReason::NoRoute),
        (
            "to another peer",
            to(places.other_remote),
            PassReason::NoRoute,
        ),
        (
            "to another network",
            to(places.other_network),
            PassReason::NoRoute,
        ),
        ("TTL 1", aged(1), PassReason::TtlExpired),
        ("TTL 0", aged(0), PassReason::TtlExpired),
        ("over the MTU", large, PassReason::TooBig),
    ]
    .into_iter()
    .map(|(what, packet, reason)| left(what, road, packet, reason))
    .collect()
}

/// The kernel loses UDP aggregates that a program has stripped; and it declines to strip
/// a test run's GSO packet of TCP, which has no type.
fn aggregates(road: &Road) -> Vec<Case> {
    let header = plain(road);
    let tcp = Ip {
        protocol: TCP,
        ..header
    };
    let to_router = Ip {
        destination: road.places().router,
        ..tcp
    };
    [
        ("UDP datagrams", header, PassReason::NotResizable),
        ("TCP segments", tcp, PassReason::NotResizable),
        (
            "TCP segments to be forwarded",
            to_router,
            PassReason::ForwardingAggregate,
        ),
    ]
    .into_iter()
    .map(|(what, header, reason)| Case {
        segment: 20,
        ..left(what, road, inside(road, header), reason)
    })
    .collect()
}

/// What stands behind a packet the kernel takes off; none ends in it.
fn padded(road: &Road) -> Vec<Case> {
    let behind = |bytes: Vec<u8>| [bytes, vec![0; 18]].concat();
    let around = |frame: &[u8]| arriving(outer(road.tunnel.peer), frame);
    let longer = around(&behind(frame(road)));
    let whole = frame(road);
    let (promised, rest) = whole.split_at(whole.len() - 18);
    let beyond = [&around(promised), rest].concat();
    [
        ("padding behind the outer packet", behind(from_remote(road))),
        ("padding behind the inner packet", longer.clone()),
        ("padding behind both", behind(longer)),
    ]
    .into_iter()
    .map(|(what, packet)| left(what, road, packet, PassReason::NotResizable))
    .chain([dropped(
        "a packet that ends behind the outer one",
        road,
        beyond,
        DropReason::Malformed,
    )])
    .collect()
}

/// What looks strange, and is delivered all the same.
fn unusual_but_fine(road: &Road) -> Vec<Case> {
    let old = Ip {
        ttl: 2,
        ..plain(road)
    };
    let outer_old = Ip {
        ttl: 1,
        ..outer(road.tunnel.peer)
    };
    [
        ("TTL 2", inside(road, old)),
        ("outer TTL 1", arriving(outer_old, &frame(road))),
    ]
    .into_iter()
    .map(|(what, packet)| received(what, road, packet, Outcome::From(road.tunnel.index)))
    .collect()
}
