//! The kernel's VXLAN over IPv6, where UDP without a checksum is a matter of agreement
//! (RFC 6935).

use anyhow::Result;
use overlay_common::maps::PASSES;
use overlay_tests::{
    check,
    counters::{self, Carried},
    families::{Families, Family},
    guard::Guard,
    scenario,
    shape::{Scenario, Shape},
    state,
    traffic::Pair,
};

const SIZES: [usize; 6] = [1, 64, 1_372, 1_382, 1_430, 9_000];
/// What the scenario tells the kernel's device, so that it takes what our programs send.
const ACCEPTS_NONE: &str = "udp6zerocsumrx";

/// Raises a node of ours and one of the kernel's, which is told these words about checksums.
fn mixed(name: &str, words: &'static [&str], needs_checksum: bool) -> Result<Guard> {
    let shape = Shape::of(name, Scenario::Mixed, 2, 1)?.speaking(Families::V6, Families::Both)?;
    Ok(Guard::by(shape, |topology, agent| {
        let first = &topology.nodes[0];
        let mut config = scenario::agents::config(topology, first);
        config.networks[0].peers[0].udp6_checksum = needs_checksum.then_some(true);
        let mut script = scenario::up(topology, agent);
        let file = state::config_file(&topology.shape.name, &first.namespace);
        script.rewrite(&file, &config.to_toml());
        script.reword(|argv| {
            if argv.iter().any(|word| word == ACCEPTS_NONE) {
                argv.retain(|word| word != ACCEPTS_NONE);
                argv.extend(words.iter().map(|&word| word.to_owned()));
            }
        });
        script
    })?)
}

/// Sends in both directions; what our programs carried of it.
fn talk(guard: &Guard) -> Result<Carried> {
    let nodes = &guard.topology().nodes;
    let before = counters::carried(&nodes[0].namespace)?;
    check::all_pairs_are_well(guard.topology())?;
    let (ours, theirs) = (&nodes[0].containers[0], &nodes[1].containers[0]);
    for family in [Family::V4, Family::V6] {
        for (client, server) in [(ours, theirs), (theirs, ours)] {
            let pair = Pair::between(client, server, family);
            pair.icmp(&SIZES)?;
            pair.udp(&SIZES)?;
            pair.tcp(&[4 << 20])?;
        }
    }
    Ok(counters::carried(&nodes[0].namespace)? - before)
}

fn needed_checksums(guard: &Guard) -> Result<u64> {
    let passes = counters::reasons(&guard.topology().nodes[0].namespace, PASSES)?;
    let found = passes
        .iter()
        .find(|(reason, _)| reason == "peer_needs_checksum");
    Ok(found.map_or(0, |&(_, packets)| packets))
}

#[test]
fn that_needs_checksums_gets_them_from_the_kernel() -> Result<()> {
    let guard = mixed("tsumneed", &[], true)?;
    let carried = talk(&guard)?;
    assert!(carried.sent == 0 && carried.received > 0, "{carried:?}");
    assert!(needed_checksums(&guard)? > 0);
    Ok(guard.down()?)
}

#[test]
fn that_sends_checksums_is_fast_in_both_directions() -> Result<()> {
    let guard = mixed("tsumsend", &[ACCEPTS_NONE], false)?;
    let carried = talk(&guard)?;
    assert!(carried.sent > 0 && carried.received > 0, "{carried:?}");
    assert_eq!(needed_checksums(&guard)?, 0);
    Ok(guard.down()?)
}

#[test]
fn without_checksums_it_is_fast_in_both_directions() -> Result<()> {
    let guard = mixed("tsumnone", &[ACCEPTS_NONE, "udp6zerocsumtx"], false)?;
    let carried = talk(&guard)?;
    assert!(carried.sent > 0 && carried.received > 0, "{carried:?}");
    Ok(guard.down()?)
}
