//! Agents that look after each other through the overlay: what they find is what is there.

mod answers;
mod faults;
mod ping;
mod stand;

use std::fs;

use anyhow::{Context as _, Result};
use overlay_common::ABI;
use overlay_tests::{
    counters,
    families::{Families, Family},
    guard::Guard,
    scenario,
    shape::{Scenario, Shape},
    topology::{VXLAN_MTU, VXLAN6_MTU},
};
use serde_json::json;

use stand::Stand;

#[test]
fn whoever_is_well_is_seen_well_on_both_paths() -> Result<()> {
    let stand = Stand::raise("tprobe", 3, "200ms")?;
    for on in [true, false] {
        stand.guard.fastpath(on)?;
        for (asker, peer) in stand.pairs() {
            let health = stand.until(asker, peer, |health| {
                health["state"] == "answers"
                    && health["path_mtu"] == VXLAN_MTU
                    && health["asked"].as_u64() >= Some(10)
                    && health["lost"] == 0
            })?;
            let rtt = |of: &str| health["rtt"][of].as_u64().unwrap_or_default();
            assert!(rtt("min_ns") > 0, "{health}");
            assert!(
                rtt("min_ns") <= rtt("last_ns").min(rtt("mean_ns")),
                "{health}"
            );
            assert_eq!(health["hears_this_node"], true);
            let name = stand.guard.agent(peer).instance;
            assert_eq!(
                health["agent"],
                json!({
                    "node": name,
                    "version": env!("CARGO_PKG_VERSION"),
                    "abi": ABI,
                    "differs": false,
                    "mtu": VXLAN_MTU,
                    "arrives": health["agent"]["arrives"],
                })
            );
        }
    }
    let text = stand.guard.agent(1).tell(&["status"])?;
    for peer in ["tprobe-n2", "tprobe-n3"] {
        let line = text
            .lines()
            .find(|line| line.starts_with(&format!("tprobe-n1 <-> {peer}")));
        let line = line.unwrap_or_else(|| panic!("no line for {peer} in\n{text}"));
        for part in ["rtt ", " ms  jitter ", " ms  loss 0 %  path mtu 1450"] {
            assert!(line.contains(part), "no {part:?} in {line:?}");
        }
    }
    Ok(stand.guard.down()?)
}

#[test]
fn probes_are_counted_like_all_other_packets() -> Result<()> {
    let stand = Stand::raise("tprcount", 3, "100ms")?;
    stand.all_answer()?;
    // Whoever only answers has nothing to say by himself: then both counts stand still.
    stand.configure_all("answer")?;
    let before = counts(&stand)?;
    assert_eq!(counts(&stand)?, before);
    stand.configure_all("100ms")?;
    stand.until_asked(1, before[0][1] + 100)?;
    stand.configure_all("answer")?;
    let (mut answers, mut answered) = (0, 0);
    for (now, before) in counts(&stand)?.iter().zip(&before) {
        let since = |of: usize| now[of] - before[of];
        let [carried, asked, said] = [0, 1, 2].map(since);
        assert_eq!(carried, asked + said, "{now:?} after {before:?}");
        assert!(asked > 30, "{asked}");
        answers += said;
        answered += since(3);
        assert_eq!((since(4), now[5], now[6], now[7]), (0, 0, 0, 0), "{now:?}");
    }
    assert_eq!(answers, answered);
    Ok(stand.guard.down()?)
}

/// What the programs of each node have sent, and what its probes have counted.
fn counts(stand: &Stand) -> Result<Vec<[u64; 8]>> {
    let of_node = |node: u8| -> Result<[u64; 8]> {
        let messages = &stand.status(node)?["probe"]["messages"];
        let count = |of: &str| messages[of].as_u64().unwrap_or(u64::MAX);
        Ok([
            counters::carried(&stand.guard.agent(node).instance)?.sent,
            count("asked"),
            count("answers"),
            count("answered"),
            count("unsent"),
            count("strangers"),
            count("malformed"),
            count("limited"),
        ])
    };
    (1..=3).map(of_node).collect()
}

#[test]
fn ipv6_is_probed_inside_and_outside() -> Result<()> {
    for (name, underlay, inside) in [
        ("tprsix", Families::V6, Families::V6),
        ("tprsixb", Families::Both, Families::Both),
    ] {
        let nodes = if underlay == Families::Both { 3 } else { 2 };
        let shape = Shape::of(name, Scenario::Overlay, nodes, 1)?;
        let stand = Stand::of(shape.speaking(underlay, inside)?, "200ms")?;
        for on in [true, false] {
            stand.guard.fastpath(on)?;
            for (asker, peer) in stand.pairs() {
                let topology = stand.guard.topology();
                let node = &topology.nodes[usize::from(asker) - 1];
                let expected = topology.vxlan_mtu(node);
                assert!([VXLAN_MTU, VXLAN6_MTU].contains(&expected));
                stand.until(asker, peer, |health| {
                    health["state"] == "answers" && health["path_mtu"] == expected
                })?;
            }
        }
        let tunnels = stand
            .guard
            .topology()
            .tunnels(&stand.guard.topology().nodes[0]);
        assert_eq!(tunnels.contains(&Family::V4), underlay == Families::Both);
        stand.guard.down()?;
    }
    Ok(())
}

/// As whoever has written only what the tunnel needs: that the MAC is the one that it would be.
#[test]
fn a_kernel_that_is_not_said_to_be_one_is_told_with_what_to_write() -> Result<()> {
    let shape = Shape::usual("tprhand", Scenario::Mixed)?;
    let guard = Guard::configured(shape, |_, config| {
        config.node.probe = Some("200ms");
        config.networks[0].peers[0].mac = None;
    })?;
    let stand = Stand { guard };
    stand.until_problem(1, Some("the tunnel to it works"))?;
    let problems = stand.status(1)?["problems"].take();
    assert_eq!(problems[0]["id"], "peer-never-answered", "{problems}");
    let cure = problems[0]["cure"].as_str().context("a cure")?;
    let mac = cure.split("mac = \"").nth(1).context("a MAC in it")?;
    let mac: String = mac.chars().take_while(|it| *it != '"').collect();
    // As it was asked all the time, without a datagram that was not sent.
    let messages = stand.status(1)?["probe"]["messages"].take();
    assert_eq!(messages["unsent"], 0, "{messages}");
    let topology = stand.guard.topology();
    let mut config = scenario::agents::config(topology, &topology.nodes[0]);
    config.node.probe = Some("200ms");
    config.networks[0].peers[0].mac = Some(mac);
    fs::write(stand.guard.agent(1).config_file(), config.to_toml())?;
    stand.until_problem(1, None)?;
    stand.until(1, 2, |health| health["state"] == "no_agent")?;
    Ok(stand.guard.down()?)
}

#[test]
fn a_kernel_without_an_agent_is_no_fault() -> Result<()> {
    let shape = Shape::usual("tprkern", Scenario::Mixed)?;
    let guard = Guard::configured(shape, |_, config| config.node.probe = Some("200ms"))?;
    let stand = Stand { guard };
    stand.until(1, 2, |health| health["state"] == "no_agent")?;
    let status = stand.status(1)?;
    assert_eq!(status["healthy"], true, "{status}");
    let text = stand.guard.agent(1).tell(&["status"])?;
    assert!(
        text.contains("tprkern-n1 --- tprkern-n2  no agent answers"),
        "{text}"
    );
    Ok(stand.guard.down()?)
}
