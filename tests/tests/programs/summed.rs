//! Packets of which a card has added up all words (`CHECKSUM_COMPLETE`, as mlx5 does): the kernel's
//! test run compares that sum with the packet that a program leaves.

use std::os::fd::AsFd as _;

use aya::programs::SchedClassifier;
use nix::libc;
use overlay_common::{
    programs::{FROM_ENDPOINT, FROM_UNDERLAY},
    reasons::PassReason,
};
use overlay_tests::bpf::run_summed;

use crate::{
    counters::Outcome,
    frames::{Ip, udp, vxlan},
    node::Node,
    traffic::{
        I_FLAG, arriving, arriving_as, from_remote, inner, outer, routed, tunnelled, tunnelled_with,
    },
    world::{DATABASE, DATABASE6, PORT, Road, VNI, roads},
};

/// What was counted of a packet; `None` where the kernel cannot run such (before Linux 6.17).
fn run(node: &mut Node, name: &str, packet: &[u8]) -> Option<Outcome> {
    let before = node.counters();
    let program: &SchedClassifier = node.ebpf().program(name).unwrap().try_into().unwrap();
    if let Err(error) = run_summed(program.fd().unwrap().as_fd(), packet) {
        let unknown = error.raw_os_error() == Some(libc::EINVAL);
        assert!(unknown, "{name}: the sum is another packet's: {error}");
        return None;
    }
    let outcomes = node.counters().since(&before);
    let [(outcome, _)] = outcomes[..] else {
        panic!("not exactly one way out was counted: {outcomes:?}");
    };
    Some(outcome)
}

/// A packet of a peer whose UDP checksum is the right one, but for these bits.
fn with_checksum(road: &Road, wrong: u16, payload: &[u8]) -> Vec<u8> {
    let frame = tunnelled_with(road.tunnel, inner(road.there, road.here), payload);
    let own = outer(road.tunnel.peer);
    let payload = vxlan(I_FLAG, VNI, &frame);
    let right = own.udp_checksum(&udp(50_000, PORT, 0, &payload));
    arriving_as(own, right ^ wrong, &payload)
}

/// The kernel is told of all that a router changes, and a right checksum is known as such.
#[test]
fn what_a_card_has_added_up_stays_right() {
    let mut node = Node::new();
    for road in roads() {
        let there = road.tunnel.index;
        for bytes in [0_usize, 1, 64, 65, 1000] {
            let content: Vec<u8> = (0..=u8::MAX).cycle().step_by(7).take(bytes).collect();
            let datagram = udp(1000, 2000, 0x5a5a, &content);
            let cases = [
                (with_checksum(&road, 0, &datagram), Outcome::From(there)),
                (
                    with_checksum(&road, 0x0100, &datagram),
                    Outcome::Pass(PassReason::UnverifiedChecksum),
                ),
            ];
            for (packet, expected) in cases {
                let Some(outcome) = run(&mut node, FROM_UNDERLAY, &packet) else {
                    eprintln!("this kernel runs no packets that a card has added up");
                    return;
                };
                assert_eq!(outcome, expected, "{}: {bytes} bytes", road.name());
            }
        }
        let without = run(&mut node, FROM_UNDERLAY, &from_remote(&road));
        assert_eq!(without, Some(Outcome::From(there)), "{}", road.name());
        // The tunnel changes the class of what was inside: congestion on its way is not forgotten.
        let capable = Ip {
            tos: 0b10,
            ..inner(road.there, road.here)
        };
        let congested = Ip {
            tos: 0b11,
            ..outer(road.tunnel.peer)
        };
        let packet = arriving(congested, &tunnelled(road.tunnel, capable));
        let outcome = run(&mut node, FROM_UNDERLAY, &packet);
        assert_eq!(outcome, Some(Outcome::From(there)), "{}", road.name());
        let neighbour = if road.here.is_ipv4() {
            DATABASE
        } else {
            DATABASE6
        };
        let packet = routed(inner(road.here, neighbour));
        let outcome = run(&mut node, FROM_ENDPOINT, &packet);
        assert_eq!(outcome, Some(Outcome::Local), "{}", road.name());
    }
}
