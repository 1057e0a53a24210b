//! What containers and the node itself send.

use overlay_common::{
    programs::{FROM_ENDPOINT, FROM_HOST},
    reasons::{DropReason, PassReason},
};

use super::{ARP, BROADCAST, Case, MORE_FRAGMENTS, VLAN, case, pass, with};
use crate::{
    frames::{Address, ICMP, Ipv4, TCP, ethernet, udp},
    node::{
        BEHIND_CUT_OFF, BESIDE, DATABASE, GATEWAY, GATEWAY_MAC, MTU, NODE, NODE_MAC, OTHER_REMOTE,
        Outcome, PEER_INDEX, PEER_MAC, REMOTE, WEB, WEB_MAC,
    },
    traffic::{IPV4, datagram, from_node, inner, routed, to_remote},
};

pub(super) fn all() -> Vec<Vec<Case>> {
    vec![
        not_plain(),
        malformed(),
        without_a_way(),
        too_old_or_too_big(),
        segmented(),
        spoofed(),
        from_the_node(),
    ]
}

fn container(what: &'static str, packet: Vec<u8>, reason: PassReason) -> Case {
    pass(what, FROM_ENDPOINT, packet, reason)
}

fn host(what: &'static str, packet: Vec<u8>, reason: PassReason) -> Case {
    pass(what, FROM_HOST, packet, reason)
}

fn plain() -> Ipv4 {
    inner(WEB, REMOTE)
}

/// From our endpoint to some address, through the gateway.
fn to(destination: Address) -> Vec<u8> {
    routed(&inner(WEB, destination).around(&datagram()))
}

/// One byte more than the MTU in an IPv4 packet.
fn oversize() -> Vec<u8> {
    vec![0; usize::from(MTU) - 19]
}

fn not_plain() -> Vec<Case> {
    let packet = plain().around(&datagram());
    let tagged = [&[0, 7, 8, 0][..], &packet].concat();
    let broadcast = |packet: &[u8]| ethernet(BROADCAST, WEB_MAC, IPV4, packet);
    let dhcp = inner([0; 4], [255; 4]).around(&datagram());
    let fragment = |flags_and_offset| {
        let header = Ipv4 {
            flags_and_offset,
            ..plain()
        };
        routed(&header.around(&datagram()))
    };
    let arp = ethernet(BROADCAST, WEB_MAC, ARP, &[0; 28]);
    let vlan = ethernet(GATEWAY_MAC, WEB_MAC, VLAN, &tagged);
    let options = with(to_remote(), 14, 0x46);
    vec![
        container("ARP", arp, PassReason::NotIp),
        container("a VLAN tag", vlan, PassReason::NotIp),
        container("broadcast", broadcast(&packet), PassReason::NotUnicast),
        container("DHCP", broadcast(&dhcp), PassReason::NotUnicast),
        container("multicast", to([239, 1, 2, 3]), PassReason::NotUnicast),
        container("options", options, PassReason::IpOptions),
        container(
            "first fragment",
            fragment(MORE_FRAGMENTS),
            PassReason::Fragment,
        ),
        container("last fragment", fragment(185), PassReason::Fragment),
    ]
}

fn malformed() -> Vec<Case> {
    [
        ("version 6 in an IPv4 frame", 14, 0x65),
        ("a header of 16 bytes", 14, 0x44),
        ("a length beyond the frame", 16, 1),
        ("a length below the header", 17, 19),
    ]
    .into_iter()
    .map(|(what, place, value)| {
        let packet = with(to_remote(), place, value);
        let outcome = Outcome::Drop(DropReason::Malformed, None);
        case(what, FROM_ENDPOINT, packet, outcome)
    })
    .collect()
}

fn without_a_way() -> Vec<Case> {
    let past_the_gateway = |destination| {
        let packet = inner(WEB, destination).around(&datagram());
        ethernet(PEER_MAC, WEB_MAC, IPV4, &packet)
    };
    let absent = to([10, 244, 1, 99]);
    let subnet_broadcast = to([10, 244, 1, 255]);
    vec![
        container("to the world", to([9, 9, 9, 9]), PassReason::NoRoute),
        container("to the gateway", to(GATEWAY), PassReason::NoRoute),
        container("to itself", to(WEB), PassReason::NoRoute),
        container("to an absent neighbour", absent, PassReason::NoRoute),
        container("to all neighbours", subnet_broadcast, PassReason::NoRoute),
        container(
            "beside a prefix, with its key",
            to(BESIDE),
            PassReason::NoRoute,
        ),
        container(
            "to a peer that is cut off",
            to(BEHIND_CUT_OFF),
            PassReason::NoRoute,
        ),
        container(
            "to a peer, not through the gateway",
            past_the_gateway(REMOTE),
            PassReason::ForeignMac,
        ),
        container(
            "to a neighbour by a wrong MAC",
            past_the_gateway(DATABASE),
            PassReason::ForeignMac,
        ),
    ]
}

fn too_old_or_too_big() -> Vec<Case> {
    let aged = |ttl, destination| {
        let header = Ipv4 {
            ttl,
            ..inner(WEB, destination)
        };
        routed(&header.around(&datagram()))
    };
    let large = |destination| routed(&inner(WEB, destination).around(&oversize()));
    vec![
        container("TTL 1", aged(1, REMOTE), PassReason::TtlExpired),
        container("TTL 0", aged(0, REMOTE), PassReason::TtlExpired),
        container("TTL 1, local", aged(1, DATABASE), PassReason::TtlExpired),
        container("over the MTU", large(REMOTE), PassReason::TooBig),
        container("over the MTU, local", large(DATABASE), PassReason::TooBig),
    ]
}

/// A test run's GSO packet has a segment size, but no type: the kernel declines to grow
/// it, which shows that the size was found to fit.
fn segmented() -> Vec<Case> {
    let segments = |what, protocol, payload: &[u8], segment, reason| {
        let header = Ipv4 {
            protocol,
            ..plain()
        };
        Case {
            segment,
            ..container(what, routed(&header.around(payload)), reason)
        }
    };
    // With IPv4's 20 bytes and TCP's 32, 1398 fill the MTU of 1450; with UDP's 8, 1422.
    let mut tcp = vec![0; 2000];
    tcp[12] = 8 << 4;
    let datagrams = udp(1, 2, 0, &[0; 2000]);
    vec![
        segments("TCP over the MTU", TCP, &tcp, 1399, PassReason::TooBig),
        segments("TCP of the MTU", TCP, &tcp, 1398, PassReason::NotResizable),
        segments("UDP over the MTU", 17, &datagrams, 1423, PassReason::TooBig),
        segments(
            "UDP of the MTU",
            17,
            &datagrams,
            1422,
            PassReason::NotResizable,
        ),
        segments("neither of them", ICMP, &tcp, 100, PassReason::NotResizable),
    ]
}

fn spoofed() -> Vec<Case> {
    let spoofed = Outcome::Drop(DropReason::SpoofedSource, None);
    let from = |header: Ipv4| routed(&header.around(&datagram()));
    let fragment = Ipv4 {
        flags_and_offset: 185,
        ..inner(DATABASE, REMOTE)
    };
    let packet = plain().around(&datagram());
    [
        (
            "another's MAC",
            ethernet(GATEWAY_MAC, PEER_MAC, IPV4, &packet),
        ),
        ("a neighbour's address", from(inner(DATABASE, REMOTE))),
        ("an address of the world", from(inner([9, 9, 9, 9], REMOTE))),
        ("a neighbour's address in a fragment", from(fragment)),
    ]
    .into_iter()
    .map(|(what, packet)| case(what, FROM_ENDPOINT, packet, spoofed))
    .collect()
}

fn from_the_node() -> Vec<Case> {
    let to_peer = |header: Ipv4| {
        let packet = header.around(&datagram());
        ethernet(PEER_MAC, NODE_MAC, IPV4, &packet)
    };
    let own = inner(NODE, REMOTE);
    let fragment = Ipv4 {
        flags_and_offset: 185,
        ..own
    };
    let arp = ethernet(BROADCAST, NODE_MAC, ARP, &[0; 28]);
    let options = with(from_node(), 14, 0x46);
    let abroad = to_peer(inner(NODE, [9, 9, 9, 9]));
    let astray = to_peer(inner(NODE, OTHER_REMOTE));
    let cut_off = to_peer(inner(NODE, BEHIND_CUT_OFF));
    let large = ethernet(PEER_MAC, NODE_MAC, IPV4, &own.around(&oversize()));
    let last_hop = to_peer(Ipv4 { ttl: 1, ..own });
    let sent = Outcome::To(PEER_INDEX);
    vec![
        host("ARP", arp, PassReason::NotIp),
        host(
            "broadcast",
            with(from_node(), 0, 0xff),
            PassReason::NotUnicast,
        ),
        host("options", options, PassReason::IpOptions),
        host("fragment", to_peer(fragment), PassReason::Fragment),
        host("nobody's subnet", abroad, PassReason::NoRoute),
        host("a peer that is cut off", cut_off, PassReason::NoRoute),
        host("another peer's subnet", astray, PassReason::ForeignMac),
        host("over the MTU", large, PassReason::TooBig),
        case(
            "TTL 1 is the receiver's business",
            FROM_HOST,
            last_hop,
            sent,
        ),
    ]
}
