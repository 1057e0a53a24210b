//! Every way out of the fast path: the reason, the counter, the peer that is charged.

mod arriving;
mod claims;
mod damaged;
mod leaving;
mod senders;
mod switches;
mod translated;

use std::net::IpAddr;

use overlay_common::{
    programs::{FROM_ENDPOINT, FROM_HOST},
    reasons::{DropReason, PassReason},
};

use crate::{
    counters::Outcome,
    node::Node,
    traffic::{from_node, to_remote},
    world::{ROADS, roads},
};

/// A packet, how it is run, and what must become of it.
#[derive(Clone)]
struct Case {
    what: String,
    program: &'static str,
    packet: Vec<u8>,
    segment: u32,
    outcome: Outcome,
}

fn case(what: impl Into<String>, program: &'static str, packet: Vec<u8>, outcome: Outcome) -> Case {
    Case {
        what: what.into(),
        program,
        packet,
        segment: 0,
        outcome,
    }
}

/// A frame with one byte changed.
fn with(mut frame: Vec<u8>, place: usize, value: u8) -> Vec<u8> {
    frame[place] = value;
    frame
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// Runs cases on one node and returns the ways out that they met.
fn check(node: &mut Node, cases: impl IntoIterator<Item = Case>) -> Vec<Outcome> {
    cases
        .into_iter()
        .map(|case| {
            let run = node.run(case.program, &case.packet, case.segment);
            assert_eq!(run.outcome, case.outcome, "{}: {}", case.program, case.what);
            run.outcome
        })
        .collect()
}

#[test]
fn what_is_left_to_the_kernel_is_counted_for_its_peer_once_that_is_known() {
    let mut node = Node::new();
    for road in roads() {
        let index = Some(road.tunnel.index);
        let (mut own, mut nobodys) = (0, 0);
        for case in arriving::of(&road) {
            let run = node.run(case.program, &case.packet, case.segment);
            let expected = match run.outcome {
                Outcome::Pass(
                    PassReason::UnverifiedChecksum
                    | PassReason::ForeignMac
                    | PassReason::TtlExpired
                    | PassReason::TooBig
                    | PassReason::NotResizable,
                ) => index,
                Outcome::Pass(PassReason::NotOurs) | Outcome::From(_) | Outcome::Drop(..) => None,
                _ => continue,
            };
            assert_eq!(run.passed_of, expected, "{}: {}", road.name(), case.what);
            own += u32::from(expected.is_some());
            nobodys += u32::from(expected.is_none());
        }
        assert!(own > 4 && nobodys > 4, "{}: {own}, {nobodys}", road.name());
    }
}

#[test]
fn each_way_out_has_its_reason_and_its_counter() {
    let mut node = Node::new();
    let mut met = check(&mut node, leaving::all());
    met.extend(check(&mut node, claims::all()));
    met.extend(check(&mut node, damaged::all()));
    met.extend(check(&mut node, arriving::all()));
    met.extend(check(&mut node, senders::all()));
    met.extend(check(&mut node, translated::all()));
    let mut node = node.without_port();
    for (program, packet) in [
        (FROM_ENDPOINT, to_remote(&ROADS[0])),
        (FROM_HOST, from_node(&ROADS[0])),
    ] {
        let unknown = Outcome::Pass(PassReason::UnknownPort);
        met.extend(check(
            &mut node,
            [case("no port", program, packet, unknown)],
        ));
    }
    for (flags, cases) in switches::all() {
        let mut node = Node::new().with_network_flags(flags);
        met.extend(check(&mut node, cases));
    }
    let mut router = Node::new().for_router();
    met.extend(check(&mut router, switches::router()));

    for &reason in PassReason::ALL {
        assert!(
            met.contains(&Outcome::Pass(reason)),
            "no case for {reason:?}"
        );
    }
    for &reason in DropReason::ALL {
        // Headers do not vanish while the kernel resizes a packet; the programs cannot
        // prove it to the verifier.
        let unreachable = reason == DropReason::ResizeFailed;
        let is_met = met
            .iter()
            .any(|outcome| matches!(outcome, Outcome::Drop(met, _) if *met == reason));
        assert_ne!(is_met, unreachable, "cases for {reason:?}");
    }
}
