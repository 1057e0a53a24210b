//! Every way out of the fast path: the reason, the counter, the peer that is charged.

mod arriving;
mod leaving;

use overlay_common::{
    programs::{FROM_ENDPOINT, FROM_HOST},
    reasons::{DropReason, PassReason},
};

use crate::{
    node::{Node, Outcome},
    traffic::{from_node, to_remote},
};

const IPV6: u16 = 0x86dd;
const ARP: u16 = 0x0806;
const VLAN: u16 = 0x8100;
const MORE_FRAGMENTS: u16 = 0x2000;
const BROADCAST: [u8; 6] = [0xff; 6];

/// A packet, how it is run, and what must become of it.
struct Case {
    what: &'static str,
    program: &'static str,
    packet: Vec<u8>,
    segment: u32,
    outcome: Outcome,
}

fn case(what: &'static str, program: &'static str, packet: Vec<u8>, outcome: Outcome) -> Case {
    Case {
        what,
        program,
        packet,
        segment: 0,
        outcome,
    }
}

fn pass(what: &'static str, program: &'static str, packet: Vec<u8>, reason: PassReason) -> Case {
    case(what, program, packet, Outcome::Pass(reason))
}

/// A frame with one byte changed.
fn with(mut frame: Vec<u8>, place: usize, value: u8) -> Vec<u8> {
    frame[place] = value;
    frame
}

/// Runs cases on one node and returns the reasons that they met.
fn check(node: &mut Node, cases: Vec<Case>) -> Vec<Outcome> {
    let mut met = Vec::new();
    for case in cases {
        let run = node.run(case.program, &case.packet, case.segment);
        assert_eq!(run.outcome, case.outcome, "{}: {}", case.program, case.what);
        met.push(run.outcome);
    }
    met
}

#[test]
fn each_way_out_has_its_reason_and_its_counter() {
    let mut node = Node::new();
    let mut met = Vec::new();
    for cases in leaving::all().into_iter().chain(arriving::all()) {
        met.extend(check(&mut node, cases));
    }
    let mut node = node.without_port();
    for (program, packet) in [(FROM_ENDPOINT, to_remote()), (FROM_HOST, from_node())] {
        let unknown = pass("no port", program, packet, PassReason::UnknownPort);
        met.extend(check(&mut node, vec![unknown]));
    }

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
