//! Invariant I2: packets in = delivered + left to the kernel + dropped, for packets of
//! every kind of damage.

use std::cell::RefCell;

use overlay_common::programs::{FROM_ENDPOINT, FROM_HOST, FROM_UNDERLAY};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

use crate::{
    frames::{IPV4, IPV6},
    node::Node,
    traffic::{from_node, from_remote, to_remote},
    world::ROADS,
};

#[derive(Clone, Debug)]
struct Damage {
    program: &'static str,
    road: usize,
    bytes: Vec<(prop::sample::Index, u8)>,
    cut: Option<prop::sample::Index>,
    padding: usize,
    segment: u32,
}

fn damage() -> impl Strategy<Value = Damage> {
    (
        prop::sample::select(vec![FROM_ENDPOINT, FROM_HOST, FROM_UNDERLAY]),
        0..ROADS.len(),
        prop::collection::vec(any::<(prop::sample::Index, u8)>(), 0..4),
        prop::option::weighted(0.2, any::<prop::sample::Index>()),
        prop_oneof![8 => Just(0), 1 => 1_usize..64],
        prop_oneof![8 => Just(0), 1 => 1_u32..2000],
    )
        .prop_map(|(program, road, bytes, cut, padding, segment)| Damage {
            program,
            road,
            bytes,
            cut,
            padding,
            segment,
        })
}

fn damaged(damage: &Damage) -> Vec<u8> {
    let road = &ROADS[damage.road];
    let mut packet = match damage.program {
        FROM_ENDPOINT => to_remote(road),
        FROM_HOST => from_node(road),
        _ => from_remote(road),
    };
    // Only headers: what is behind them is never looked at.
    let headers = packet.len() - 64;
    for (place, value) in &damage.bytes {
        packet[place.index(headers)] = *value;
    }
    packet.resize(packet.len() + damage.padding, 0);
    if let Some(cut) = damage.cut {
        let shortest = shortest(&packet);
        packet.truncate(shortest + cut.index(packet.len() - shortest));
    }
    packet
}

/// Bytes of the headers without which a packet of its type cannot be run.
fn shortest(packet: &[u8]) -> usize {
    match u16::from_be_bytes([packet[12], packet[13]]) {
        IPV4 => 34,
        IPV6 => 54,
        _ => 14,
    }
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
