//! What containers and the node itself send.

use std::net::IpAddr;

use overlay_common::{
    programs::{FROM_ENDPOINT, FROM_HOST},
    reasons::{DropReason, PassReason},
};

use super::{Case, case, family, with};
use crate::{
    counters::Outcome,
    frames::{ARP, BROADCAST, ICMP, Ip, MORE_FRAGMENTS, TCP, VLAN, ethernet, header_of, udp},
    traffic::{datagram, inner, routed, routed_with},
    world::{
        GATEWAY_MAC, MTU, OTHER_PEER_MAC, OVER4, PEER_INDEX, PEER_MAC, PLACES, Places, WEB_MAC,
    },
};

pub(super) fn all() -> Vec<Case> {
    PLACES
        .iter()
        .flat_map(|places| {
            [
                not_plain(places),
                without_a_way(places),
                too_old_or_too_big(places),
                segmented(places),
                from_the_node(places),
            ]
        })
        .flatten()
        .collect()
}

/// Headers that stand between IPv6's and the payload.
pub(super) const EXTENSIONS: [(&str, u8); 7] = [
    ("hop-by-hop options", 0),
    ("a routing header", 43),
    ("authentication", 51),
    ("destination options", 60),
    ("mobility", 135),
    ("host identity", 139),
    ("shim6", 140),
];
pub(super) const FRAGMENT: u8 = 44;

/// Options or extension headers, and fragments, of a packet with this header.
pub(super) fn oddities(header: Ip) -> Vec<(&'static str, Ip, Option<u8>, PassReason)> {
    if header.source.is_ipv4() {
        let piece = |flags_and_offset| Ip {
            flags_and_offset,
            ..header
        };
        return vec![
            ("options", header, Some(0x46), PassReason::IpOptions),
            ("most options", header, Some(0x4f), PassReason::IpOptions),
            (
                "first fragment",
                piece(MORE_FRAGMENTS),
                None,
                PassReason::Fragment,
            ),
            ("last fragment", piece(185), None, PassReason::Fragment),
        ];
    }
    let before = |protocol| Ip { protocol, ..header };
    EXTENSIONS
        .iter()
        .map(|&(what, kind)| (what, before(kind), None, PassReason::IpOptions))
        .chain([("a fragment", before(FRAGMENT), None, PassReason::Fragment)])
        .collect()
}

fn container(what: &str, places: &Places, packet: Vec<u8>, reason: PassReason) -> Case {
    let what = format!("{} {what}", family(places.web));
    case(what, FROM_ENDPOINT, packet, Outcome::Pass(reason))
}

fn to(places: &Places, destination: IpAddr) -> Vec<u8> {
    routed(inner(places.web, destination))
}

/// One byte more than the MTU in an IP packet.
fn oversize(places: &Places) -> Vec<u8> {
    vec![0; usize::from(MTU) + 1 - header_of(places.web)]
}

fn not_plain(places: &Places) -> Vec<Case> {
    let header = inner(places.web, places.remote);
    let packet = header.around(&datagram());
    let tagged = [&[0, 7][..], &header.ethertype().to_be_bytes(), &packet].concat();
    let odd = oddities(header)
        .into_iter()
        .map(|(what, header, first, reason)| {
            let mut packet = routed(header);
            packet[14] = first.unwrap_or(packet[14]);
            container(what, places, packet, reason)
        });
    let broadcast = ethernet(BROADCAST, WEB_MAC, header.ethertype(), &packet);
    let multicast = to(places, places.multicast);
    [
        (
            "with a VLAN tag",
            ethernet(GATEWAY_MAC, WEB_MAC, VLAN, &tagged),
            PassReason::NotIp,
        ),
        ("to all MACs", broadcast, PassReason::NotUnicast),
        ("multicast", multicast, PassReason::NotUnicast),
        (
            "of another type",
            ethernet(GATEWAY_MAC, WEB_MAC, 0x88cc, &packet),
            PassReason::NotIp,
        ),
    ]
    .into_iter()
    .map(|(what, packet, reason)| container(what, places, packet, reason))
    .chain(odd)
    .collect()
}

fn without_a_way(places: &Places) -> Vec<Case> {
    let past_the_gateway = |destination| {
        let header = inner(places.web, destination);
        ethernet(
            PEER_MAC,
            WEB_MAC,
            header.ethertype(),
            &header.around(&datagram()),
        )
    };
    let other_network = case(
        format!("{} to another network", family(places.web)),
        FROM_ENDPOINT,
        to(places, places.other_network),
        Outcome::Drop(DropReason::OtherNetwork, None),
    );
    let (to_node, no_route) = (PassReason::ToNode, PassReason::NoRoute);
    [
        ("to the gateway", places.gateway, to_node),
        ("to the node's underlay address", places.node, to_node),
        ("to the world", places.world, no_route),
        ("to itself", places.web, no_route),
        ("to an absent neighbour", places.absent, no_route),
        ("beside a prefix, with its key", places.beside, no_route),
        ("to a peer that is cut off", places.cut_off, no_route),
        (
            "to the prefix of a router here",
            places.behind_router,
            no_route,
        ),
    ]
    .into_iter()
    .map(|(what, destination, reason)| container(what, places, to(places, destination), reason))
    .chain([
        container(
            "to a peer, not through the gateway",
            places,
            past_the_gateway(places.remote),
            PassReason::ForeignMac,
        ),
        container(
            "to a neighbour by a wrong MAC",
            places,
            past_the_gateway(places.database),
            PassReason::ForeignMac,
        ),
        container(
            "to a peer that needs a checksum",
            places,
            to(places, places.checking),
            PassReason::PeerNeedsChecksum,
        ),
        other_network,
    ])
    .collect()
}

fn too_old_or_too_big(places: &Places) -> Vec<Case> {
    let aged = |ttl, destination| {
        routed(Ip {
            ttl,
            ..inner(places.web, destination)
        })
    };
    let large = |destination| routed_with(inner(places.web, destination), &oversize(places));
    [
        ("with TTL 1", aged(1, places.remote), PassReason::TtlExpired),
        ("with TTL 0", aged(0, places.remote), PassReason::TtlExpired),
        (
            "with TTL 1 to a neighbour",
            aged(1, places.database),
            PassReason::TtlExpired,
        ),
        (
            "with TTL 0 to a neighbour",
            aged(0, places.database),
            PassReason::TtlExpired,
        ),
        ("over the MTU", large(places.remote), PassReason::TooBig),
        (
            "over the MTU to a neighbour",
            large(places.database),
            PassReason::TooBig,
        ),
    ]
    .into_iter()
    .map(|(what, packet, reason)| container(what, places, packet, reason))
    .collect()
}

/// A test run's GSO packet has a segment size, but no type: the kernel declines to grow
/// it, which shows that the size was found to fit.
fn segmented(places: &Places) -> Vec<Case> {
    let room = u32::from(MTU) - u32::try_from(header_of(places.web)).unwrap();
    let mut tcp = vec![0; 2000];
    tcp[12] = 8 << 4;
    let datagrams = udp(1, 2, 0, &[0; 2000]);
    [
        (
            "TCP over the MTU",
            TCP,
            &tcp,
            room - 32 + 1,
            PassReason::TooBig,
        ),
        (
            "TCP of the MTU",
            TCP,
            &tcp,
            room - 32,
            PassReason::NotResizable,
        ),
        (
            "UDP over the MTU",
            17,
            &datagrams,
            room - 8 + 1,
            PassReason::TooBig,
        ),
        (
            "UDP of the MTU",
            17,
            &datagrams,
            room - 8,
            PassReason::NotResizable,
        ),
        (
            "segments of neither",
            ICMP,
            &tcp,
            100,
            PassReason::NotResizable,
        ),
    ]
    .into_iter()
    .map(|(what, protocol, payload, segment, reason)| {
        let header = Ip {
            protocol,
            ..inner(places.web, places.remote)
        };
        Case {
            segment,
            ..container(what, places, routed_with(header, payload), reason)
        }
    })
    .collect()
}

fn from_the_node(places: &Places) -> Vec<Case> {
    let own = inner(places.gateway, places.remote);
    let to_mac = |mac, header: Ip, payload: &[u8]| {
        ethernet(
            mac,
            OVER4.node_mac,
            header.ethertype(),
            &header.around(payload),
        )
    };
    let to_peer = |header| to_mac(PEER_MAC, header, &datagram());
    let toward = |destination| to_peer(inner(places.gateway, destination));
    let host = |what: &str, packet, reason| {
        let what = format!("{} {what}", family(places.web));
        case(what, FROM_HOST, packet, Outcome::Pass(reason))
    };
    let odd = oddities(own)
        .into_iter()
        .map(|(what, header, first, reason)| {
            let mut packet = to_peer(header);
            packet[14] = first.unwrap_or(packet[14]);
            host(what, packet, reason)
        });
    let arp = ethernet(BROADCAST, OVER4.node_mac, ARP, &[0; 28]);
    let checking = to_mac(
        crate::world::CHECKING_PEER_MAC,
        inner(places.gateway, places.checking),
        &datagram(),
    );
    let large = to_mac(PEER_MAC, own, &oversize(places));
    let last_hop = to_peer(Ip { ttl: 1, ..own });
    let astray = to_mac(OTHER_PEER_MAC, own, &datagram());
    [
        host("ARP", arp, PassReason::NotIp),
        host(
            "broadcast",
            with(to_peer(own), 0, 0xff),
            PassReason::NotUnicast,
        ),
        host(
            "multicast",
            toward(places.multicast),
            PassReason::NotUnicast,
        ),
        host(
            "to nobody's subnet",
            toward(places.world),
            PassReason::NoRoute,
        ),
        host(
            "to a peer that is cut off",
            toward(places.cut_off),
            PassReason::NoRoute,
        ),
        host("to another peer's MAC", astray, PassReason::ForeignMac),
        host(
            "to another peer's subnet",
            toward(places.other_remote),
            PassReason::ForeignMac,
        ),
        host(
            "to a peer that needs a checksum",
            checking,
            PassReason::PeerNeedsChecksum,
        ),
        host("over the MTU", large, PassReason::TooBig),
        case(
            "TTL 1 is the receiver's business",
            FROM_HOST,
            last_hop,
            Outcome::To(PEER_INDEX),
        ),
    ]
    .into_iter()
    .chain(odd)
    .collect()
}
