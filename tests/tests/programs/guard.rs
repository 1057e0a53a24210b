//! What the guard drops before the kernel sees it, and what it lets through.

use overlay_common::{maps::network_flags, reasons::DropReason};

use crate::{
    counters::Outcome,
    frames::{ARP, BROADCAST, Ip, MORE_FRAGMENTS, VLAN, ethernet, udp, vxlan},
    node::Node,
    traffic::{I_FLAG, UNDERLAY_MACS, arriving, arriving_as, from_remote, inner, outer, tunnelled},
    world::{PORT, ROADS, Road, VNI},
};

/// A packet that says nothing but where it comes from, and its VXLAN flags.
fn flagged(source: std::net::IpAddr, flags: u32) -> Vec<u8> {
    arriving_as(outer(source), 0, &vxlan(flags, VNI, &[]))
}

fn dropped(reason: DropReason, peer: Option<u32>) -> Outcome {
    Outcome::Drop(reason, peer)
}

#[test]
fn what_is_not_valid_or_from_a_stranger_is_dropped() {
    let mut node = Node::new();
    for Road { tunnel, .. } in ROADS {
        for (what, packet, outcome) in [
            (
                "I flag clear",
                flagged(tunnel.peer, 0),
                dropped(DropReason::InvalidVxlanHeader, Some(tunnel.index)),
            ),
            (
                "a reserved flag",
                flagged(tunnel.peer, I_FLAG | 1),
                dropped(DropReason::InvalidVxlanHeader, Some(tunnel.index)),
            ),
            (
                "I flag clear, from a stranger",
                flagged(tunnel.stranger, 0),
                dropped(DropReason::InvalidVxlanHeader, None),
            ),
            (
                "a stranger",
                flagged(tunnel.stranger, I_FLAG),
                dropped(DropReason::UnknownVtep, None),
            ),
        ] {
            assert_eq!(
                node.guard(&packet),
                Some(outcome),
                "{what} to {}",
                tunnel.node
            );
        }
    }
}

#[test]
fn everything_else_is_left_to_those_that_follow() {
    let mut node = Node::new();
    let (to, from) = UNDERLAY_MACS;
    for road in ROADS {
        let stranger = outer(road.tunnel.stranger);
        let frame = tunnelled(road.tunnel, inner(road.there, road.here));
        let payload = vxlan(I_FLAG, VNI, &frame);
        let fragment = Ip {
            flags_and_offset: MORE_FRAGMENTS,
            protocol: if stranger.source.is_ipv4() { 17 } else { 44 },
            ..stranger
        };
        let elsewhere = Ip {
            destination: road.tunnel.stranger,
            ..stranger
        };
        let next_port = stranger.around(&udp(50_000, PORT + 1, 0, &payload));
        let tagged = [&[0, 7][..], &flagged(road.tunnel.stranger, 0)[12..]].concat();
        let whole = from_remote(&road);
        for (what, packet) in [
            ("a peer's packet", whole.clone()),
            (
                "one cut off behind VXLAN",
                whole[..road.tunnel.overhead].to_vec(),
            ),
            (
                "one cut off in VXLAN",
                whole[..road.tunnel.overhead - 1].to_vec(),
            ),
            ("a stranger's fragment", arriving(fragment, &frame)),
            (
                "a stranger's packet to another",
                arriving(elsewhere, &frame),
            ),
            (
                "a stranger's to another port",
                ethernet(to, from, stranger.kind(), &next_port),
            ),
            (
                "a stranger's to another VNI",
                arriving_as(stranger, 0, &vxlan(I_FLAG, VNI ^ 1, &frame)),
            ),
            ("a stranger's in a VLAN", ethernet(to, from, VLAN, &tagged)),
            ("ARP", ethernet(BROADCAST, from, ARP, &[0; 28])),
            ("an Ethernet header", whole[..14].to_vec()),
        ] {
            assert_eq!(node.guard(&packet), None, "{what} to {}", road.tunnel.node);
        }
    }
}

#[test]
fn strangers_pass_where_the_network_takes_packets_from_anybody() {
    let mut node = Node::new().with_network_flags(network_flags::ANY_VTEP);
    for Road { tunnel, .. } in ROADS {
        assert_eq!(node.guard(&flagged(tunnel.stranger, I_FLAG)), None);
        assert_eq!(
            node.guard(&flagged(tunnel.stranger, 0)),
            Some(dropped(DropReason::InvalidVxlanHeader, None))
        );
    }
}
