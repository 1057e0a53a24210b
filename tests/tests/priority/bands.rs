//! Queueing disciplines of the underlay that sort packets by their priority: each leaves by the band,
//! or by the queue, that it would leave by from a router without the programs.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use overlay_tests::{
    counters::carried,
    families::{Families, Family},
    guard::Guard,
    run,
    script::inside,
    shape::{Scenario, Shape},
    topology::UNDERLAY,
};

use super::{PATIENCE, Sender};

/// Each has bands, of which each has a queue of its own that counts; how many. That of mqprio are as
/// many as the device has queues.
const DISCIPLINES: [(&str, usize); 2] = [
    ("prio bands 3", 3),
    (
        "mqprio num_tc 2 map 1 1 1 1 1 1 0 0 1 1 1 1 1 1 1 1 queues 1@0 1@1 hw 0",
        2,
    ),
];
const BANDS: [&str; 3] = ["11:", "12:", "13:"];
/// It sends so little at a time that what comes meanwhile waits, and leaves in the order that the
/// discipline in it gives it.
const SLOW: &str = "tbf rate 200kbit burst 1600 latency 10s";
/// Datagrams that have a slow device send for a while.
const PLUG: [usize; 4] = [1200; 4];
/// In the order in which they are sent: bulk, best effort, interactive.
const WAITING: [(u8, &[u8]); 3] = [
    (0x08, b"the bulk of it"),
    (0x00, b"best effort"),
    (0x10, b"interactive"),
];
/// Of those that mean something: best effort, bulk, interactive, voice, network control.
const SERVICES: [u8; 6] = [0, 0x08, 0x10, 0x18, 0xb8, 0xc0];
/// Packets of a service: more than anybody else sends meanwhile.
const SEVERAL: u64 = 8;

/// Which band packets leave by, by family and type of service.
type Table = BTreeMap<(&'static str, u8), &'static str>;

/// Puts a discipline on a node's underlay; `false` where this kernel or device has none like it.
fn is_put(node: &str, (spec, bands): (&str, usize)) -> Result<bool> {
    // A veth has as many queues as asked for, up to one a processor.
    if spec.starts_with("mqprio") {
        let line = format!("ethtool -L {UNDERLAY} tx {bands}");
        run::output(inside(node, &line))?;
    }
    // Of another kind none is put in the place of one with the same handle.
    run::output(format!("tc -n {node} qdisc del dev {UNDERLAY} root"))?;
    let line = format!("tc -n {node} qdisc add dev {UNDERLAY} root handle 1: {spec}");
    let output = run::output(line)?;
    if output.code != Some(0) {
        println!("skipped: no {spec:?} here: {}", output.stderr.trim());
        return Ok(false);
    }
    for (number, band) in (1..).zip(&BANDS[..bands]) {
        let parent = format!("parent 1:{number} handle {band} pfifo limit 1000");
        let line = format!("tc -n {node} qdisc replace dev {UNDERLAY} {parent}");
        run::checked(line)?;
    }
    Ok(true)
}

/// Packets that have left by each band.
fn counts(node: &str, bands: usize) -> Result<Vec<u64>> {
    let line = format!("tc -n {node} -s -j qdisc show dev {UNDERLAY}");
    let all = run::json(line)?;
    let all = all.as_array().context("tc prints no list")?;
    let counts = BANDS[..bands].iter().map(|band| {
        let found = all.iter().find(|qdisc| qdisc["handle"] == *band);
        let packets = found.and_then(|qdisc| qdisc["packets"].as_u64());
        packets.with_context(|| format!("no {band} in {all:#?}"))
    });
    counts.collect()
}

fn table(node: &str, sender: &Sender, bands: usize) -> Result<Table> {
    let mut table = Table::new();
    for (name, family) in [("IPv4", Family::V4), ("IPv6", Family::V6)] {
        for tos in SERVICES {
            let before = counts(node, bands)?;
            for _ in 0..SEVERAL {
                sender.send(family, tos)?;
            }
            let after = counts(node, bands)?;
            let grown = after.iter().zip(&before).zip(BANDS);
            let mut grown = grown.filter(|((after, before), _)| **after - **before >= SEVERAL);
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
    let shape =
        Shape::of("tband", Scenario::Overlay, 2, 1)?.speaking(Families::V4, Families::Both)?;
    let guard = Guard::configured(shape, |_, config| config.node.probe = Some("off"))?;
    let node = &guard.topology().nodes[0].namespace;
    let sender = Sender::open(&guard, Family::V4)?;
    let agent = guard.agent(1);
    for (spec, bands) in DISCIPLINES {
        if !is_put(node, (spec, bands))? {
            continue;
        }
        agent.fastpath(true)?;
        let before = carried(&agent.instance)?;
        let fast = table(node, &sender, bands)?;
        let sent = carried(&agent.instance)?.sent - before.sent;
        assert!(
            sent >= SEVERAL * fast.len() as u64,
            "{sent} by the programs"
        );
        // Voice and bulk do not share a band.
        assert_ne!(fast[&("IPv4", 0x10)], fast[&("IPv4", 0x08)], "{spec}");
        agent.fastpath(false)?;
        assert_eq!(fast, table(node, &sender, bands)?, "{spec}");
        println!("{spec}: {fast:?}");
    }
    drop(sender);
    Ok(guard.down()?)
}

/// In which order what waits leaves the first node.
fn order(sender: &Sender, family: Family) -> Result<Vec<&'static [u8]>> {
    for length in PLUG {
        sender.put(family, 0, &vec![0xa5; length])?;
    }
    for (tos, payload) in WAITING {
        sender.put(family, tos, payload)?;
    }
    let mut left = Vec::new();
    while left.len() < WAITING.len() {
        let mut found = None;
        let mut waited = |frame: &[u8]| {
            let mut all = WAITING.iter().map(|(_, payload)| *payload);
            found = all.find(|payload| sender.has_sent(frame, payload));
            found.is_some()
        };
        sender.wire.receive(PATIENCE, &mut waited)?;
        left.push(found.with_context(|| format!("only {left:?} arrived"))?);
    }
    Ok(left)
}

#[test]
fn what_waits_in_pfifo_fast_leaves_in_the_order_of_the_kernel_s_path() -> Result<()> {
    let shape =
        Shape::of("tfast", Scenario::Overlay, 2, 1)?.speaking(Families::V4, Families::Both)?;
    let guard = Guard::configured(shape, |_, config| config.node.probe = Some("off"))?;
    let node = &guard.topology().nodes[0].namespace;
    let sender = Sender::open(&guard, Family::V4)?;
    let agent = guard.agent(1);
    for line in [
        format!("root handle 1: {SLOW}"),
        "parent 1:1 handle 2: pfifo_fast".to_owned(),
    ] {
        let line = format!("tc -n {node} qdisc add dev {UNDERLAY} {line}");
        run::checked(line)?;
    }
    let expected = |family| match family {
        Family::V4 => [2, 1, 0],
        // Forwarding leaves the priority of IPv6 alone.
        Family::V6 => [0, 1, 2],
    };
    for family in [Family::V4, Family::V6] {
        let expected = expected(family).map(|place: usize| WAITING[place].1);
        for on in [true, false] {
            agent.fastpath(on)?;
            let before = carried(&agent.instance)?.sent;
            assert_eq!(order(&sender, family)?, expected, "{family:?}, {on}");
            let sent = carried(&agent.instance)?.sent - before;
            let all = (PLUG.len() + WAITING.len()) as u64;
            assert!(if on { sent >= all } else { sent == 0 }, "{sent}, {on}");
        }
    }
    drop(sender);
    Ok(guard.down()?)
}
