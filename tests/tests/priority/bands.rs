//! Queueing disciplines of the underlay that sort packets by their priority: each leaves by the band,
//! or by the queue, that it would leave by from a router without the programs.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use overlay_tests::{
    counters::carried,
    families::{Families, Family},
    guard::Guard,
    run,
    script::words,
    shape::{Scenario, Shape},
    topology::UNDERLAY,
};
use serde_json::Value;

use super::Sender;

/// Each has three bands, of which each has a queue of its own that counts.
const DISCIPLINES: [&str; 2] = [
    "prio bands 3",
    "mqprio num_tc 3 map 1 2 2 2 1 2 0 0 1 1 1 1 1 1 1 1 queues 1@0 1@1 1@2 hw 0",
];
const BANDS: [&str; 3] = ["11:", "12:", "13:"];
/// Of those that mean something: best effort, bulk, interactive, voice, network control.
const SERVICES: [u8; 6] = [0, 0x08, 0x10, 0x18, 0xb8, 0xc0];
/// Packets of a service: more than anybody else sends meanwhile.
const SEVERAL: u64 = 8;

/// Which band packets leave by, by family and type of service.
type Table = BTreeMap<(&'static str, u8), &'static str>;

/// Puts a discipline on a node's underlay; `false` where this kernel or device has none like it.
fn is_put(node: &str, spec: &str) -> Result<bool> {
    let line = format!("tc -n {node} qdisc replace dev {UNDERLAY} root handle 1: {spec}");
    let output = run::output(&words(line))?;
    if output.code != Some(0) {
        println!("skipped: no {spec:?} here: {}", output.stderr.trim());
        return Ok(false);
    }
    for (number, band) in (1..).zip(BANDS) {
        let parent = format!("parent 1:{number} handle {band} pfifo limit 1000");
        let line = format!("tc -n {node} qdisc replace dev {UNDERLAY} {parent}");
        run::checked(&words(line))?;
    }
    Ok(true)
}

/// Packets that have left by each band.
fn counts(node: &str) -> Result<[u64; 3]> {
    let line = format!("tc -n {node} -s -j qdisc show dev {UNDERLAY}");
    let all: Vec<Value> = serde_json::from_str(&run::checked(&words(line))?)?;
    let mut counts = [0; 3];
    for (count, band) in counts.iter_mut().zip(BANDS) {
        let found = all.iter().find(|qdisc| qdisc["handle"] == band);
        let packets = found.and_then(|qdisc| qdisc["packets"].as_u64());
        *count = packets.with_context(|| format!("no {band} in {all:#?}"))?;
    }
    Ok(counts)
}

fn table(node: &str, sender: &Sender) -> Result<Table> {
    let mut table = Table::new();
    for (name, family) in [("IPv4", Family::V4), ("IPv6", Family::V6)] {
        for tos in SERVICES {
            let before = counts(node)?;
            for _ in 0..SEVERAL {
                sender.send(family, tos)?;
            }
            let after = counts(node)?;
            let grown = after.into_iter().zip(before).zip(BANDS);
            let mut grown = grown.filter(|((after, before), _)| after - before >= SEVERAL);
            let (_, band) = grown.next().with_context(|| {
                format!("{name} with {tos:#x} came by no band: {before:?}, {after:?}")
            })?;
            table.insert((name, tos), band);
        }
    }
    Ok(table)
}

#[test]
fn packets_leave_by_the_bands_of_the_kernel_s_path() -> Result<()> {
    let shape = Shape::new("tband".parse()?, Scenario::Overlay, Some(2), Some(1))?;
    let shape = shape.speaking(Families::V4, Families::Both)?;
    let guard = Guard::configured(shape, |_, config| config.node.probe = Some("off"))?;
    let node = &guard.topology().nodes[0].namespace;
    let sender = Sender::open(&guard, Family::V4)?;
    let agent = guard.agent(1);
    for spec in DISCIPLINES {
        if !is_put(node, spec)? {
            continue;
        }
        agent.fastpath(true)?;
        let before = carried(&agent.instance)?;
        let fast = table(node, &sender)?;
        let sent = carried(&agent.instance)?.sent - before.sent;
        assert!(
            sent >= SEVERAL * fast.len() as u64,
            "{sent} by the programs"
        );
        // Voice and bulk do not share a band.
        assert_ne!(fast[&("IPv4", 0x10)], fast[&("IPv4", 0x08)], "{spec}");
        agent.fastpath(false)?;
        assert_eq!(fast, table(node, &sender)?, "{spec}");
        println!("{spec}: {fast:?}");
    }
    drop(sender);
    Ok(guard.down()?)
}
