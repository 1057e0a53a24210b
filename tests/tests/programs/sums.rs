//! Invariant I2: packets in = delivered + left to the kernel + dropped, for packets of
//! every kind of damage.

use std::cell::RefCell;

use overlay_common::programs::{FROM_ENDPOINT, FROM_HOST, FROM_UNDERLAY};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

use crate::{
    node::Node,
    traffic::{IPV4, from_node, from_remote, to_remote},
};

/// Test runs begin where a whole IPv4 header is there.
const SHORTEST: usize = 34;

#[derive(Clone, Debug)]
struct Damage {
    program: &'static str,
    bytes: Vec<(prop::sample::Index, u8)>,
    cut: Option<prop::sample::Index>,
    padding: usize,
    segment: u32,
}

fn damage() -> impl Strategy<Value = Damage> {
    (
        prop::sample::select(vec![FROM_ENDPOINT, FROM_HOST, FROM_UNDERLAY]),
        prop::collection::vec(any::<(prop::sample::Index, u8)>(), 0..4),
        prop::option::weighted(0.2, any::<prop::sample::Index>()),
        prop_oneof![8 => Just(0), 1 => 1_usize..64],
        prop_oneof![8 => Just(0), 1 => 1_u32..2000],
    )
        .prop_map(|(program, bytes, cut, padding, segment)| Damage {
            program,
            bytes,
            cut,
            padding,
            segment,
        })
}

fn damaged(damage: &Damage) -> Vec<u8> {
    let mut packet = match damage.program {
        FROM_ENDPOINT => to_remote(),
        FROM_HOST => from_node(),
        _ => from_remote(),
    };
    // Only headers: what is behind them is never looked at.
    let headers = packet.len() - 64;
    for (place, value) in &damage.bytes {
        packet[place.index(headers)] = *value;
    }
    packet.resize(packet.len() + damage.padding, 0);
    if let Some(cut) = damage.cut
        && packet[12..14] == IPV4.to_be_bytes()
    {
        packet.truncate(SHORTEST + cut.index(packet.len() - SHORTEST));
    }
    packet
}

#[test]
fn every_packet_is_counted_once_whatever_is_wrong_with_it() {
    const PACKETS: u32 = 10_000;
    let node = RefCell::new(Node::new());
    let before = node.borrow().counters().packets();
    TestRunner::new(Config {
        cases: PACKETS,
        failure_persistence: None,
        ..Config::default()
    })
    .run(&damage(), |damage| {
        node.borrow_mut()
            .run(damage.program, &damaged(&damage), damage.segment);
        Ok(())
    })
    .unwrap();
    let counted = node.borrow().counters().packets() - before;
    assert_eq!(counted, u64::from(PACKETS));
}
