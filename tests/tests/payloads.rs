//! Bytes arrive as they were sent, whatever their number and whichever path carries them.

use anyhow::Result;
use overlay_tests::{
    guard::Guard,
    topology::{Container, Topology},
    traffic::Pair,
};

/// From nothing much over every boundary of MTU, page and GSO to more than a hop can carry.
const SIZES: [usize; 22] = [
    1, 2, 3, 17, 63, 64, 65, 511, 1_371, 1_372, 1_373, 1_421, 1_422, 1_423, 1_450, 1_472, 1_500,
    4_096, 9_000, 16_384, 32_769, 65_000,
];
/// Long enough for the sender's window to fill whole GSO packets.
const STREAMS: [usize; 2] = [1 << 20, 16 << 20];

/// Between nodes in both directions, on one node, and from a node to a remote container.
fn pairs(topology: &Topology) -> [Pair<'_>; 4] {
    let [here, there] = [&topology.nodes[0], &topology.nodes[1]];
    [
        between(&here.containers[0].namespace, &there.containers[0]),
        between(&there.containers[1].namespace, &here.containers[1]),
        between(&here.containers[0].namespace, &here.containers[1]),
        between(&here.namespace, &there.containers[0]),
    ]
}

fn between<'a>(client: &'a str, server: &'a Container) -> Pair<'a> {
    Pair {
        client,
        server: &server.namespace,
        address: server.address.into(),
    }
}

/// Sends everything with the fast path as given on the first and on the second node.
fn all_arrive(name: &str, fastpath: [bool; 2]) -> Result<()> {
    let guard = Guard::overlay(name)?;
    for (agent, on) in guard.agents().iter().zip(fastpath) {
        agent.fastpath(on)?;
    }
    for pair in pairs(guard.topology()) {
        pair.icmp(&SIZES)?;
        pair.udp(&SIZES)?;
        pair.tcp(&SIZES)?;
        pair.tcp(&STREAMS)?;
    }
    Ok(guard.down()?)
}

#[test]
fn with_the_fast_path() -> Result<()> {
    all_arrive("tpayon", [true, true])
}

#[test]
fn without_it() -> Result<()> {
    all_arrive("tpayoff", [false, false])
}

#[test]
fn from_the_fast_path_to_the_slow_one() -> Result<()> {
    all_arrive("tpaymix", [true, false])
}
