//! What is said to be delivered arrives, and nothing is done for it to be said.

use anyhow::{Context as _, Result};
use overlay_common::maps::{DROPS, PASSES};
use overlay_tests::{
    check, counters,
    families::{Families, Family},
    guard::Guard,
    kernel::strips_other_family,
};
use serde_json::Value;

use crate::{
    count,
    said::{explain, lab},
};

/// Explained deliveries arrive, with the TTL that was said, through the programs that are
/// attached. `outer` is the family of the underlay.
fn delivers(guard: &Guard, outer: Family) -> Result<()> {
    let nodes = &guard.topology().nodes;
    let agent = guard.agent(1);
    let (from, near, far) = (
        &nodes[0].containers[0],
        &nodes[0].containers[1],
        &nodes[1].containers[0],
    );
    let strips = |family| family == outer || strips_other_family();
    for family in [Family::V4, Family::V6] {
        // An older kernel's own device takes what its programs cannot strip.
        let far = strips(family).then_some((far, 2));
        for (to, nodes) in [Some((near, 1)), far].into_iter().flatten() {
            let address = to.at(family).to_string();
            for protocol in ["icmp", "udp", "tcp"] {
                let said = explain(&agent, &[&from.namespace, &address, "--proto", protocol])?;
                assert!(said.good && said.hops.len() == nodes, "{:#?}", said.hops);
                let end = &said.hops[nodes - 1]["end"]["delivered"];
                assert_eq!(end["endpoint"], Value::from(to.namespace.as_str()));
                for stage in said.hops.iter().filter_map(|hop| hop["stages"].as_array()) {
                    for stage in stage {
                        assert_eq!(stage["attached"], "same", "{stage:#}");
                        assert!(stage["ns"].as_u64().is_some_and(|ns| ns > 0));
                    }
                }
                // What explain says is left is what arrives with: one less kills it.
                let spent = 64 - said.ttl().context("a TTL")?;
                check::routers_on_the_way(&from.namespace, &address, u8::try_from(spent)?)?;
            }
        }
    }
    // By names, of which the first address is taken, and the other's is found on this machine.
    if strips(Family::V4) {
        let said = explain(&agent, &[&from.namespace, &far.namespace])?;
        assert!(said.good && said.hops.len() == 2);
    }
    Ok(())
}

#[test]
fn what_is_said_to_be_delivered_arrives_over_ipv4() -> Result<()> {
    let guard = lab("texpok4", Families::V4)?;
    delivers(&guard, Family::V4)?;
    let said = explain(&guard.agent(1), &["texpok4-n1c1", "texpok4-n2c1"])?;
    assert_eq!(
        said.steps(0),
        [
            "port",
            "own_mac",
            "own_address",
            "unicast",
            "plain",
            "peer",
            "right_mac",
            "ttl",
            "fits",
            "encapsulated",
            "to_neighbour"
        ]
    );
    // Nobody knows yet what the kernel will write there.
    let outer = |hop: usize, when: &str| {
        let header = &said.hops[hop]["stages"][0][when]["headers"][0];
        header["fields"].as_array().map(|fields| {
            let fields = fields
                .iter()
                .filter(|field| field[1] == "(written by the kernel)");
            fields.map(|field| field[0].clone()).collect::<Vec<_>>()
        })
    };
    assert_eq!(outer(0, "before"), Some(vec![]));
    let both = ["source", "destination"].map(Value::from);
    assert_eq!(outer(0, "after"), Some(both.to_vec()));
    assert_eq!(outer(1, "before"), Some(vec!["source".into()]));
    assert_eq!(outer(1, "after"), Some(vec![]));
    let steps = said.steps(1);
    assert!(steps.starts_with(&["ours", "valid", "sender"]), "{steps:?}");
    assert!(steps.ends_with(&["stripped", "delivered"]), "{steps:?}");
    Ok(guard.down()?)
}

#[test]
fn what_is_said_to_be_delivered_arrives_over_ipv6() -> Result<()> {
    let guard = lab("texpok6", Families::V6)?;
    delivers(&guard, Family::V6)?;
    Ok(guard.down()?)
}

/// Packets by reason.
type Reasons = Vec<(String, u64)>;

/// Everything that a node counts.
fn counted(instance: &str) -> Result<(Reasons, Reasons, counters::Carried)> {
    Ok((
        counters::reasons(instance, DROPS)?,
        counters::reasons(instance, PASSES)?,
        counters::carried(instance)?,
    ))
}

#[test]
fn nothing_is_counted_and_nothing_is_left() -> Result<()> {
    let guard = lab("texpcnt", Families::V4)?;
    let agent = guard.agent(1);
    let far = guard.topology().nodes[1].containers[0].address.to_string();
    let instance = agent.instance.clone();
    let pins = || counters::pins(&std::path::Path::new("/sys/fs/bpf/overlay").join(&instance));
    let pinned = pins()?;
    for arguments in [
        &["texpcnt-n1c1", &far][..],
        &["texpcnt-n1c1", &far, "--source", "10.244.9.9"],
        &["texpcnt-n1c1", &far, "--ttl", "1"],
        &["texpcnt-n1c1", "texpcnt-n1c2"],
    ] {
        let before: Vec<_> = guard
            .topology()
            .instances()
            .map(counted)
            .collect::<Result<_, _>>()?;
        explain(&agent, arguments)?;
        let after: Vec<_> = guard
            .topology()
            .instances()
            .map(counted)
            .collect::<Result<_, _>>()?;
        // Passes go on: neighbours ask each other, and the underlay is not ours alone.
        for (before, after) in before.iter().zip(&after) {
            assert_eq!((&before.0, before.2), (&after.0, after.2), "{arguments:?}");
            for reason in ["ttl_expired", "too_big"] {
                assert_eq!(count(&before.1, reason), count(&after.1, reason));
            }
        }
    }
    assert_eq!(pins()?, pinned);
    assert_eq!(agent.plan()?, Vec::<Value>::new());
    Ok(guard.down()?)
}
