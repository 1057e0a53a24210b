//! What the guard drops before the kernel sees it, and what it lets through.

use overlay_common::{maps::network_flags, reasons::DropReason};

use crate::{
    counters::Outcome,
    frames::{ARP, BROADCAST, Ip, MORE_FRAGMENTS, VLAN, ethernet, udp, vxlan},
    node::Node,
    traffic::{
        I_FLAG, UNDERLAY_MACS, arriving, arriving_as, datagram, from_remote, inner, inside, outer,
        tunnelled,
    },
    world::{GATEWAY_MAC, PORT, Road, VNI, WEB_MAC, WEB_SLOT, roads},
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
    for Road { tunnel, .. } in roads() {
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
    for road in roads() {
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
                ethernet(to, from, stranger.ethertype(), &next_port),
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
    for Road { tunnel, .. } in roads() {
        assert_eq!(node.guard(&flagged(tunnel.stranger, I_FLAG)), None);
        assert_eq!(
            node.guard(&flagged(tunnel.stranger, 0)),
            Some(dropped(DropReason::InvalidVxlanHeader, None))
        );
    }
}

/// The note of 28 bytes stays before the packet; the TC program on a real device reads it.
#[test]
fn what_can_be_delivered_is_stripped_and_noted_when_that_is_asked_for() {
    const NOTE: usize = 28;
    let (to, from) = UNDERLAY_MACS;
    let mut node = Node::stripping();
    for road in roads() {
        let (outcome, bytes) = node.strip(&from_remote(&road));
        assert_eq!(outcome, None, "{}", road.name());
        let index = road.tunnel.index.to_ne_bytes();
        assert_eq!(bytes[8..12], index, "{}", road.name());
        assert_eq!(bytes[12..18], WEB_MAC);
        assert_eq!(bytes[18..24], GATEWAY_MAC);
        assert_eq!(bytes[24..NOTE], WEB_SLOT.to_ne_bytes());
        let older = Ip {
            ttl: 63,
            ..inner(road.there, road.here)
        };
        let expected = ethernet(to, from, older.ethertype(), &older.around(&datagram()));
        assert_eq!(bytes[NOTE..], expected, "{}", road.name());
    }
}

#[test]
fn what_cannot_be_delivered_is_left_whole_for_the_kernel() {
    let mut node = Node::stripping();
    for road in roads() {
        let old = Ip {
            ttl: 1,
            ..inner(road.there, road.here)
        };
        let foreign = inner(road.places().world, road.here);
        let to_nobody = inner(road.there, road.places().absent);
        let mut cut_off = from_remote(&road);
        cut_off.pop();
        let checked = arriving_as(
            outer(road.tunnel.peer),
            1,
            &vxlan(
                I_FLAG,
                VNI,
                &tunnelled(road.tunnel, inner(road.there, road.here)),
            ),
        );
        for packet in [
            inside(&road, old),
            inside(&road, foreign),
            inside(&road, to_nobody),
            cut_off,
            checked,
            [&BROADCAST[..], &from_remote(&road)[6..]].concat(),
            flagged(road.tunnel.peer, I_FLAG),
        ] {
            assert_eq!(node.guard(&packet), None, "{}", road.name());
        }
        let stranger = flagged(road.tunnel.stranger, I_FLAG);
        let unknown = dropped(DropReason::UnknownVtep, None);
        assert_eq!(node.guard(&stranger), Some(unknown));
    }
}
