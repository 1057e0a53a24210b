//! Who sends to us on the underlay, and for whom.

use overlay_common::reasons::{DropReason, PassReason};

use super::{
    Case,
    arriving::{dropped, frame, from_vtep, plain, received},
};
use crate::{
    counters::Outcome,
    frames::{ARP, BROADCAST, Ip, ethernet, vxlan},
    traffic::{arriving, arriving_as, from_remote, inner, inside, outer, tunnelled},
    world::{OTHER_PEER, OTHER_PEER_INDEX, OVER6, PEER6, PEER6_INDEX, ROADS, Road, VNI, roads},
};

pub(super) fn all() -> Vec<Case> {
    roads()
        .iter()
        .flat_map(|road| [invalid(road), unknown_senders(road), foreign_sources(road)])
        .flatten()
        .chain(roads().iter().filter_map(node_itself))
        .collect()
}

/// What a peer's node sends from its underlay address, where both are of one family.
fn node_itself(road: &Road) -> Option<Case> {
    let peer = road.tunnel.peer;
    let packet = inside(road, inner(peer, road.here));
    let outcome = Outcome::Pass(PassReason::NodeAddress);
    (peer.is_ipv4() == road.here.is_ipv4())
        .then(|| received("the node itself", road, packet, outcome))
}

/// Each bit of the VXLAN header that is not the VNI's.
fn invalid(road: &Road) -> Vec<Case> {
    let header = road.tunnel.overhead - 8;
    let bits = (0..32).chain(56..64).map(|bit| {
        let mut packet = from_remote(road);
        packet[header + bit / 8] ^= 0x80 >> (bit % 8);
        let what = format!("bit {bit}");
        dropped(&what, road, packet, DropReason::InvalidVxlanHeader)
    });
    let no_flag = vxlan(0, VNI, &frame(road));
    let stranger = arriving_as(outer(road.tunnel.stranger), 0, &no_flag);
    let outcome = Outcome::Drop(DropReason::InvalidVxlanHeader, None);
    bits.chain([received(
        "I flag clear, from a stranger",
        road,
        stranger,
        outcome,
    )])
    .collect()
}

fn unknown_senders(road: &Road) -> Vec<Case> {
    let stranger = road.tunnel.stranger;
    let arp = ethernet(BROADCAST, road.tunnel.peer_mac, ARP, &[0; 28]);
    let itself = (stranger.is_ipv4() == road.here.is_ipv4()).then(|| {
        (
            "a stranger",
            from_vtep(road, stranger, inner(stranger, road.here)),
        )
    });
    [
        (
            "a stranger for a peer",
            from_vtep(road, stranger, plain(road)),
        ),
        ("a stranger's ARP", arriving(outer(stranger), &arp)),
        ("a stranger's nothing", arriving(outer(stranger), &[])),
    ]
    .into_iter()
    .chain(itself)
    .map(|(what, packet)| {
        let outcome = Outcome::Drop(DropReason::UnknownVtep, None);
        received(what, road, packet, outcome)
    })
    .collect()
}

fn foreign_sources(road: &Road) -> Vec<Case> {
    let places = road.places();
    let as_source = |what: &str, source| {
        let packet = inside(road, inner(source, road.here));
        dropped(what, road, packet, DropReason::SourceNotBehindVtep)
    };
    let crossed = if road.tunnel.overhead == 50 {
        // The peer over IPv6 ends in the same four bytes as the one over IPv4.
        let packet = arriving(outer(PEER6), &tunnelled(&OVER6, plain(road)));
        let outcome = Outcome::Drop(DropReason::SourceNotBehindVtep, Some(PEER6_INDEX));
        received("over the other family's tunnel", road, packet, outcome)
    } else {
        let packet = from_vtep(&ROADS[0], OTHER_PEER, plain(road));
        let outcome = Outcome::Drop(DropReason::SourceNotBehindVtep, Some(OTHER_PEER_INDEX));
        received("over the other family's tunnel", road, packet, outcome)
    };
    let mut martians = places.martians.to_vec();
    martians.push(places.unspecified);
    let martians = martians.into_iter().map(|martian| {
        let packet = inside(road, inner(martian, road.here));
        let what = format!("from {martian}");
        dropped(&what, road, packet, DropReason::MartianSource)
    });
    let congested = Ip {
        tos: 0b11,
        ..outer(road.tunnel.peer)
    };
    [
        as_source("for another's subnet", places.other_remote),
        as_source("for a peer that is cut off", places.cut_off),
        as_source("for an endpoint here", places.database),
        as_source("for the gateway here", places.gateway),
        as_source("for the world", places.world),
        crossed,
        dropped(
            "a mark that the inner packet cannot carry",
            road,
            arriving(congested, &frame(road)),
            DropReason::EcnNotCapable,
        ),
    ]
    .into_iter()
    .chain(martians)
    .collect()
}
