//! What comes in on the underlay.

use overlay_common::{
    programs::FROM_UNDERLAY,
    reasons::{DropReason, PassReason},
};

use super::{ARP, BROADCAST, Case, IPV6, MORE_FRAGMENTS, VLAN, case, pass, with};
use crate::{
    frames::{Address, Ipv4, TCP, ethernet, udp, vxlan},
    node::{
        DATABASE, GATEWAY, MTU, NODE, NODE_MAC, OTHER_PEER, OTHER_PEER_INDEX, OTHER_PEER_MAC,
        OTHER_REMOTE, Outcome, PEER, PEER_INDEX, PEER_MAC, PORT, REMOTE, VNI, WEB,
    },
    traffic::{
        I_FLAG, IPV4, UNDERLAY_MACS, arriving, arriving_as, datagram, from_remote, inner, outer,
        tunnelled,
    },
};

pub(super) fn all() -> Vec<Vec<Case>> {
    vec![
        strangers(),
        outer_oddities(),
        inner_oddities(),
        not_to_an_endpoint(),
        aggregates(),
        invalid(),
        unknown_senders(),
        foreign_sources(),
        congestion(),
    ]
}

fn left(what: &'static str, packet: Vec<u8>, reason: PassReason) -> Case {
    pass(what, FROM_UNDERLAY, packet, reason)
}

fn dropped(what: &'static str, packet: Vec<u8>, reason: DropReason, peer: Option<u32>) -> Case {
    case(what, FROM_UNDERLAY, packet, Outcome::Drop(reason, peer))
}

/// From an endpoint on the peer to ours.
fn plain() -> Ipv4 {
    inner(REMOTE, WEB)
}

fn frame() -> Vec<u8> {
    tunnelled(&plain().around(&datagram()))
}

/// A packet in the peer's tunnel.
fn inside(header: Ipv4) -> Vec<u8> {
    arriving(outer(PEER), &tunnelled(&header.around(&datagram())))
}

fn strangers() -> Vec<Case> {
    let (to, from) = UNDERLAY_MACS;
    let payload = vxlan(I_FLAG, VNI, &frame());
    let next_port = udp(50_000, PORT + 1, 0, &payload);
    let next_vni = vxlan(I_FLAG, VNI + 1, &frame());
    let tcp = Ipv4 {
        protocol: TCP,
        ..outer(PEER)
    };
    let elsewhere = Ipv4 {
        destination: OTHER_PEER,
        ..outer(PEER)
    };
    let tagged = [&[0, 7][..], &from_remote()[12..]].concat();
    [
        ("ARP", ethernet(BROADCAST, from, ARP, &[0; 28])),
        ("IPv6", ethernet(to, from, IPV6, &[0; 100])),
        ("TCP", ethernet(to, from, IPV4, &tcp.around(&[0; 100]))),
        ("a VLAN tag", ethernet(to, from, VLAN, &tagged)),
        (
            "another port",
            ethernet(to, from, IPV4, &outer(PEER).around(&next_port)),
        ),
        ("another VNI", arriving_as(outer(PEER), 0, &next_vni)),
        (
            "another VTEP of this machine",
            arriving(elsewhere, &frame()),
        ),
        ("cut in the VXLAN header", from_remote()[..49].to_vec()),
    ]
    .into_iter()
    .map(|(what, packet)| left(what, packet, PassReason::NotOurs))
    .collect()
}

fn outer_oddities() -> Vec<Case> {
    let fragment = |flags_and_offset| {
        let header = Ipv4 {
            flags_and_offset,
            ..outer(PEER)
        };
        arriving(header, &frame())
    };
    let options = with(from_remote(), 14, 0x46);
    let checksum = arriving_as(outer(PEER), 0x1234, &vxlan(I_FLAG, VNI, &frame()));
    let lengths = with(from_remote(), 39, 9);
    let unverified = PassReason::UnverifiedChecksum;
    vec![
        left("options", options, PassReason::IpOptions),
        left(
            "first fragment",
            fragment(MORE_FRAGMENTS),
            PassReason::Fragment,
        ),
        left("last fragment", fragment(185), PassReason::Fragment),
        left("a checksum nobody verified", checksum, unverified),
        left(
            "UDP length against IP length",
            lengths,
            PassReason::Malformed,
        ),
    ]
}

fn inner_oddities() -> Vec<Case> {
    let tagged = [&[0, 7][..], &frame()[12..]].concat();
    let in_tunnel =
        |to, kind, payload: &[u8]| arriving(outer(PEER), &ethernet(to, PEER_MAC, kind, payload));
    let fragment = Ipv4 {
        flags_and_offset: MORE_FRAGMENTS,
        ..plain()
    };
    let cut_header = from_remote()[..83].to_vec();
    let cut_packet = from_remote()[..120].to_vec();
    let beyond = with(from_remote(), 66, 1);
    let options = with(from_remote(), 64, 0x46);
    vec![
        left(
            "ARP",
            in_tunnel(BROADCAST, ARP, &[0; 28]),
            PassReason::NotIp,
        ),
        left(
            "a VLAN tag",
            in_tunnel(NODE_MAC, VLAN, &tagged),
            PassReason::NotIp,
        ),
        left("cut in the inner header", cut_header, PassReason::Malformed),
        left("cut in the inner packet", cut_packet, PassReason::Malformed),
        left("length beyond the frame", beyond, PassReason::Malformed),
        left("inner options", options, PassReason::IpOptions),
        left("inner fragment", inside(fragment), PassReason::Fragment),
    ]
}

fn not_to_an_endpoint() -> Vec<Case> {
    let packet = plain().around(&datagram());
    let addressed = |mac| arriving(outer(PEER), &ethernet(mac, PEER_MAC, IPV4, &packet));
    let multicast = inside(inner(REMOTE, [224, 0, 0, 9]));
    let large = tunnelled(&plain().around(&vec![0; usize::from(MTU) - 19]));
    let old = Ipv4 { ttl: 1, ..plain() };
    vec![
        left("broadcast", addressed(BROADCAST), PassReason::NotUnicast),
        left("multicast", multicast, PassReason::NotUnicast),
        left(
            "another node's MAC",
            addressed(OTHER_PEER_MAC),
            PassReason::ForeignMac,
        ),
        left(
            "to the node",
            inside(inner(REMOTE, NODE)),
            PassReason::NoRoute,
        ),
        left(
            "to the gateway",
            inside(inner(REMOTE, GATEWAY)),
            PassReason::NoRoute,
        ),
        left("TTL 1", inside(old), PassReason::TtlExpired),
        left(
            "over the MTU",
            arriving(outer(PEER), &large),
            PassReason::TooBig,
        ),
    ]
}

/// The kernel loses UDP aggregates that a program has stripped; and it declines to strip
/// a test run's GSO packet of TCP, which has no type.
fn aggregates() -> Vec<Case> {
    let tcp = Ipv4 {
        protocol: TCP,
        ..plain()
    };
    [
        ("UDP datagrams", inside(plain())),
        ("TCP segments", inside(tcp)),
    ]
    .into_iter()
    .map(|(what, packet)| Case {
        segment: 20,
        ..left(what, packet, PassReason::NotResizable)
    })
    .collect()
}

fn invalid() -> Vec<Case> {
    let flagged = |source, flags| arriving_as(outer(source), 0, &vxlan(flags, VNI, &frame()));
    let stranger = [192, 168, 56, 99];
    [
        ("I flag clear", flagged(PEER, 0), Some(PEER_INDEX)),
        (
            "a reserved flag",
            flagged(OTHER_PEER, I_FLAG | 1),
            Some(OTHER_PEER_INDEX),
        ),
        (
            "the reserved byte",
            with(from_remote(), 49, 1),
            Some(PEER_INDEX),
        ),
        ("I flag clear, from a stranger", flagged(stranger, 0), None),
    ]
    .into_iter()
    .map(|(what, packet, peer)| dropped(what, packet, DropReason::InvalidVxlanHeader, peer))
    .collect()
}

fn unknown_senders() -> Vec<Case> {
    let stranger = [192, 168, 56, 99];
    let arp = ethernet(BROADCAST, PEER_MAC, ARP, &[0; 28]);
    let for_itself = tunnelled(&inner(stranger, WEB).around(&datagram()));
    [
        ("a stranger for a peer", frame()),
        ("a stranger for itself", for_itself),
        ("a stranger's ARP", arp),
    ]
    .into_iter()
    .map(|(what, frame)| {
        let packet = arriving(outer(stranger), &frame);
        dropped(what, packet, DropReason::UnknownVtep, None)
    })
    .collect()
}

fn foreign_sources() -> Vec<Case> {
    let fragment = Ipv4 {
        flags_and_offset: 185,
        ..inner(REMOTE, NODE)
    };
    let to_web = |source: Address| inner(source, WEB);
    [
        (
            "for another's subnet",
            OTHER_PEER,
            OTHER_PEER_INDEX,
            to_web(REMOTE),
        ),
        (
            "for a longer prefix in its own",
            PEER,
            PEER_INDEX,
            to_web(OTHER_REMOTE),
        ),
        ("for an endpoint here", PEER, PEER_INDEX, to_web(DATABASE)),
        ("for another node", PEER, PEER_INDEX, to_web(OTHER_PEER)),
        ("for the world", PEER, PEER_INDEX, to_web([9, 9, 9, 9])),
        (
            "in a fragment to the node",
            OTHER_PEER,
            OTHER_PEER_INDEX,
            fragment,
        ),
    ]
    .into_iter()
    .map(|(what, sender, index, header)| {
        let packet = arriving(outer(sender), &tunnelled(&header.around(&datagram())));
        dropped(what, packet, DropReason::SourceNotBehindVtep, Some(index))
    })
    .collect()
}

fn congestion() -> Vec<Case> {
    let congested = Ipv4 {
        tos: 0b11,
        ..outer(PEER)
    };
    vec![dropped(
        "a mark that the inner packet cannot carry",
        arriving(congested, &frame()),
        DropReason::EcnNotCapable,
        Some(PEER_INDEX),
    )]
}
