//! Faults, each with what the probes must say of it.

use std::fs;

use anyhow::{Context as _, Result};
use overlay_common::wire::{IANA_PORT, OVERHEAD_V4};
use overlay_tests::{
    faults::{Fault, Faulty},
    run,
    script::inside,
    topology::VXLAN_MTU,
};

use crate::stand::Stand;

/// The port of probes, as the documentation gives it.
const PORT: u16 = 14_789;

/// A rule that drops, until the value goes.
struct PacketFilter {
    namespace: String,
}

impl PacketFilter {
    fn on(namespace: &str, hook: &str, packets: &str) -> Result<Self> {
        let filter = Self {
            namespace: namespace.to_owned(),
        };
        for line in [
            "add table inet fault".to_owned(),
            format!("add chain inet fault drops {{ type filter hook {hook} priority 0 ; }}"),
            format!("add rule inet fault drops {packets} drop"),
        ] {
            run::checked(inside(namespace, format!("nft {line}")))?;
        }
        Ok(filter)
    }
}

impl Drop for PacketFilter {
    fn drop(&mut self) {
        let line = inside(&self.namespace, "nft delete table inet fault");
        if let Err(error) = run::checked(line) {
            eprintln!("the packet filter of {} stays: {error}", self.namespace);
        }
    }
}

#[test]
fn what_passes_one_way_alone_is_told_on_both_sides() -> Result<()> {
    let stand = Stand::raise("tprone", 3, "200ms")?;
    stand.all_answer()?;
    let from = stand.guard.topology().nodes[0].subnet.host(1);
    let deaf = PacketFilter::on(
        &stand.guard.agent(2).instance,
        "input",
        &format!("ip saddr {from} udp dport {PORT}"),
    )?;
    let health = stand.until_state(1, 2, "one_way")?;
    assert_eq!(health["hears_this_node"], false);
    stand.until_state(2, 1, "silent")?;
    stand.until_problem(
        1,
        Some("tprone-n2: it is heard, but does not hear this node"),
    )?;
    stand.until_problem(
        2,
        Some("tprone-n1: it answered probes and does not any more"),
    )?;
    // The third has no part in it.
    stand.until_state(3, 1, "answers")?;
    stand.until_state(3, 2, "answers")?;
    stand.until_problem(3, None)?;

    drop(deaf);
    stand.all_answer()?;
    for node in 1..=3 {
        stand.until_problem(node, None)?;
    }
    for node in [1, 2] {
        stand.until_logged(node, "probes again")?;
    }
    Ok(stand.guard.down()?)
}

#[test]
fn loss_is_told_as_it_is() -> Result<()> {
    const ONE_IN: u32 = 4;
    let stand = Stand::raise("tprloss", 3, "100ms")?;
    stand.all_answer()?;
    let topology = stand.guard.topology();
    let fault = Faulty::towards(topology, &topology.nodes[1], Fault::Loss(ONE_IN))?;
    // The window is of what was asked since, of both peers.
    let before = stand.status(1)?["probe"]["messages"]["asked"].as_u64();
    stand.until_asked(1, before.unwrap_or_default() + 2 * 140)?;
    let health = stand.health(1, 2)?;
    let lost = health["lost"].as_u64().unwrap_or_default();
    println!("a fault of 25 % is told as {lost} %");
    // Four standard deviations of a hundred draws.
    assert!((8..=42).contains(&lost), "{health}");
    assert_eq!(health["asked"], 100);
    assert_eq!(stand.health(1, 3)?["lost"], 0);
    drop(fault);
    stand.until(1, 2, |health| health["lost"] == 0)?;
    Ok(stand.guard.down()?)
}

#[test]
fn a_narrow_path_is_measured() -> Result<()> {
    let stand = Stand::raise("tprmtu", 3, "200ms")?;
    stand.until(1, 2, |health| health["path_mtu"] == VXLAN_MTU)?;
    // A tunnel packet of more than this vanishes before the second node, and nobody is told.
    let (outer, inner) = (1404, 1404 - OVERHEAD_V4);
    let narrow = PacketFilter::on(
        &stand.guard.agent(2).instance,
        "prerouting",
        &format!("ip length > {outer} udp dport {IANA_PORT}"),
    )?;
    for node in [1, 3] {
        let health = stand.until(node, 2, |health| health["path_mtu"] == inner)?;
        assert_eq!(health["state"], "answers");
        assert_eq!(health["lost"], 0, "small ones do arrive: {health}");
        let words = format!("packets of more than {inner} bytes are lost on the way to peer");
        stand.until_problem(node, Some(&words))?;
    }
    assert_eq!(stand.health(1, 3)?["path_mtu"], VXLAN_MTU);
    assert_eq!(stand.health(2, 1)?["path_mtu"], VXLAN_MTU);
    drop(narrow);
    for (node, peer) in stand.pairs() {
        stand.until(node, peer, |health| health["path_mtu"] == VXLAN_MTU)?;
    }
    stand.until_problem(1, None)?;
    Ok(stand.guard.down()?)
}

/// The others see that their large packets vanish, and the node that has no room for them that it is its
/// own underlay.
#[test]
fn a_node_with_a_narrow_underlay_says_so_itself() -> Result<()> {
    let stand = Stand::raise("tprnar", 3, "200ms")?;
    stand.until(1, 2, |health| health["path_mtu"] == VXLAN_MTU)?;
    let second = stand.guard.agent(2);
    let set = |mtu: u16| {
        run::checked(inside(
            &second.instance,
            format!("ip link set eth1 mtu {mtu}"),
        ))
    };
    set(1_400)?;
    let room = 1_400 - OVERHEAD_V4;
    let said = format!("this node's underlay has room for packets of {room} bytes");
    stand.until_problem(2, Some(&said))?;
    let status = stand.status(2)?;
    let problems = status["problems"].as_array().context("problems")?;
    let found = problems.iter().find(|it| it["id"] == "mtu-below-peers");
    let found = found.context("its problem")?;
    let cure = found["cure"].as_str().context("a cure")?;
    assert!(
        cure.contains("eth1") && cure.contains(&format!("mtu = {room}")),
        "{found}"
    );
    let diagnosis = second.ask(&["doctor", "-o", "json"])?;
    assert!(
        diagnosis.stdout.contains("\"mtu-below-peers\""),
        "{diagnosis:?}"
    );
    for node in [1, 3] {
        // A veth takes four bytes more, which a VLAN tag could need (`is_skb_forwardable`).
        stand.until_problem(node, Some("bytes are lost on the way to peer tprnar-n2"))?;
    }
    set(1_500)?;
    for node in 1..=3 {
        stand.until_problem(node, None)?;
    }
    Ok(stand.guard.down()?)
}

#[test]
fn an_agent_that_ends_is_missed_and_found_again() -> Result<()> {
    let stand = Stand::raise("tprend", 2, "200ms")?;
    stand.all_answer()?;
    let second = stand.guard.agent(2);
    second.kill()?;
    stand.until_state(1, 2, "silent")?;
    stand.until_problem(
        1,
        Some("tprend-n2: it answered probes and refuses them now"),
    )?;
    // It comes back with maps of another layout.
    second.with("OVERLAY_ABI", 77).start()?;
    let health = stand.until_state(1, 2, "answers")?;
    assert_eq!(health["agent"]["abi"], 77);
    assert_eq!(health["agent"]["differs"], true);
    let text = stand.guard.agent(1).tell(&["status"])?;
    assert!(text.contains("(maps v77)"), "{text}");
    Ok(stand.guard.down()?)
}

#[test]
fn peers_that_come_and_go_are_followed() -> Result<()> {
    let stand = Stand::raise("tprcome", 3, "200ms")?;
    stand.all_answer()?;
    let agent = stand.guard.agent(1);
    let whole = fs::read_to_string(agent.config_file())?;
    let mut config = stand.guard.first_config();
    config.node.probe = Some("200ms");
    config.networks[0]
        .peers
        .retain(|peer| peer.name != "tprcome-n3");
    fs::write(agent.config_file(), config.to_toml())?;
    stand.until(1, 3, serde_json::Value::is_null)?;
    stand.until_state(3, 1, "silent")?;
    stand.until_state(1, 2, "answers")?;
    fs::write(agent.config_file(), whole)?;
    stand.all_answer()?;
    Ok(stand.guard.down()?)
}
