//! Packets that are cut off, and lengths that contradict each other.

use overlay_common::{
    programs::{FROM_ENDPOINT, FROM_HOST, FROM_UNDERLAY},
    reasons::{DropReason, PassReason},
};

use super::{Case, case, with};
use crate::{
    counters::Outcome,
    frames::header_of,
    traffic::{from_node, from_remote, to_remote},
    world::{Road, roads},
};

pub(super) fn all() -> Vec<Case> {
    roads()
        .iter()
        .flat_map(|road| {
            [
                cut_leaving(road),
                cut_arriving(road),
                lying_leaving(road),
                lying_arriving(road),
            ]
        })
        .flatten()
        .collect()
}

const DROPPED: Outcome = Outcome::Drop(DropReason::Malformed, None);
const LEFT: Outcome = Outcome::Pass(PassReason::Malformed);

/// Test runs begin where a whole IP header is there.
fn cut_leaving(road: &Road) -> Vec<Case> {
    let shortest = 14 + header_of(road.here);
    [
        (FROM_ENDPOINT, to_remote(road)),
        (FROM_HOST, from_node(road)),
    ]
    .into_iter()
    .flat_map(|(program, packet)| {
        (shortest..packet.len()).map(move |length| {
            let what = format!("{} bytes of {}", length, packet.len());
            case(what, program, packet[..length].to_vec(), DROPPED)
        })
    })
    .collect()
}

fn cut_arriving(road: &Road) -> Vec<Case> {
    let packet = from_remote(road);
    let shortest = 14 + header_of(road.tunnel.node);
    (shortest..packet.len())
        .map(|length| {
            let outcome = if length < road.tunnel.overhead {
                Outcome::Pass(PassReason::NotOurs)
            } else {
                Outcome::Drop(DropReason::Malformed, Some(road.tunnel.index))
            };
            let what = format!("{} bytes of {}", length, packet.len());
            case(what, FROM_UNDERLAY, packet[..length].to_vec(), outcome)
        })
        .collect()
}

/// Lies of an IP header at `ip`, as places and values.
fn lies(ip: usize, is_ipv4: bool) -> Vec<(&'static str, usize, u8)> {
    if is_ipv4 {
        vec![
            ("another version", ip, 0x65),
            ("a header of 16 bytes", ip, 0x44),
            ("a length beyond the frame", ip + 2, 1),
            ("a length below the header", ip + 3, 19),
        ]
    } else {
        vec![
            ("another version", ip, 0x45),
            ("a length beyond the frame", ip + 4, 1),
        ]
    }
}

/// An aggregate's lengths are the kernel's, which does not always write them down.
fn and_aggregate(case: Case) -> [Case; 2] {
    let aggregate = Case {
        what: format!("{}, an aggregate", case.what),
        packet: case.packet.clone(),
        segment: 20,
        outcome: LEFT,
        ..case
    };
    [case, aggregate]
}

fn lying_leaving(road: &Road) -> Vec<Case> {
    lies(14, road.here.is_ipv4())
        .into_iter()
        .flat_map(|(what, place, value)| {
            let packet = with(to_remote(road), place, value);
            let host = with(from_node(road), place, value);
            [
                case(what, FROM_ENDPOINT, packet, DROPPED),
                case(what, FROM_HOST, host, DROPPED),
            ]
        })
        .flat_map(and_aggregate)
        .collect()
}

fn lying_arriving(road: &Road) -> Vec<Case> {
    let dropped = Outcome::Drop(DropReason::Malformed, Some(road.tunnel.index));
    let over = road.tunnel.overhead;
    let received = |what, packet, outcome| {
        let what = format!("{}: {what}", road.name());
        case(what, FROM_UNDERLAY, packet, outcome)
    };
    let udp_length = |length: u16| {
        let packet = from_remote(road);
        let [high, low] = length.to_be_bytes();
        with(with(packet, over - 12, high), over - 11, low)
    };
    let whole = u16::try_from(from_remote(road).len() - over + 16).unwrap();
    let datagrams = [
        ("a datagram of 15 bytes", udp_length(15), dropped),
        (
            "a datagram beyond its packet",
            udp_length(whole + 1),
            dropped,
        ),
        // Linux takes these for what they say, and cuts off or reads on.
        (
            "a datagram that ends before its packet",
            udp_length(whole - 1),
            LEFT,
        ),
        ("a datagram of VXLAN alone", udp_length(16), LEFT),
        ("a datagram without a length", udp_length(0), LEFT),
    ]
    .map(|(what, packet, outcome)| received(what, packet, outcome));
    let beyond = if road.tunnel.node.is_ipv4() { 16 } else { 18 };
    let outer = received(
        "an outer length beyond the frame",
        with(from_remote(road), beyond, 1),
        dropped,
    );
    let inner = lies(over + 14, road.here.is_ipv4())
        .into_iter()
        .map(|(what, place, value)| received(what, with(from_remote(road), place, value), dropped));
    // The kernel drops what does not add up, and counts it.
    let sums = [
        (
            "an outer checksum that is wrong",
            road.tunnel.node.is_ipv4(),
            14,
        ),
        (
            "an inner checksum that is wrong",
            road.here.is_ipv4(),
            over + 14,
        ),
    ]
    .into_iter()
    .filter(|&(_, has_checksum, _)| has_checksum)
    .map(|(what, _, ip)| {
        let packet = from_remote(road);
        let value = packet[ip + 11] ^ 1;
        received(what, with(packet, ip + 11, value), LEFT)
    });
    let sums: Vec<_> = sums.collect();
    datagrams
        .into_iter()
        .chain(sums)
        .chain([outer])
        .chain(inner)
        .flat_map(and_aggregate)
        .collect()
}
