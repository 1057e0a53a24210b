//! Faults, each with what the probes must say of it.

use std::fs;

use anyhow::Result;
use overlay_tests::{
    faults::{Fault, Faulty},
    run,
    script::{inside, words},
};

use crate::stand::Stand;

/// The port of probes, as the documentation gives it.
const PORT: u16 = 14_789;

#[test]
fn what_passes_one_way_alone_is_told_on_both_sides() -> Result<()> {
    let stand = Stand::raise("tprone", 3, "200ms")?;
    stand.all_answer()?;
    let deaf = stand.guard.agent(2).instance;
    let from = stand.guard.topology().nodes[0].subnet.host(1);
    for line in [
        "nft add table inet fault".to_owned(),
        "nft add chain inet fault input { type filter hook input priority 0 ; }".to_owned(),
        format!("nft add rule inet fault input ip saddr {from} udp dport {PORT} drop"),
    ] {
        run::checked(&words(inside(&deaf, line)))?;
    }
    let health = stand.until_state(1, 2, "one_way")?;
    assert_eq!(health["hears_this_node"], false);
    stand.until_state(2, 1, "silent")?;
    stand.until_problem(1, Some("tprone-n2 is heard, but does not hear this node"))?;
    stand.until_problem(2, Some("tprone-n1 answered probes and does not any more"))?;
    // The third has no part in it.
    stand.until_state(3, 1, "answers")?;
    stand.until_state(3, 2, "answers")?;
    stand.until_problem(3, None)?;

    run::checked(&words(inside(&deaf, "nft delete table inet fault")))?;
    stand.all_answer()?;
    for node in 1..=3 {
        stand.until_problem(node, None)?;
        let log = stand.guard.agent(node).log()?;
        assert_eq!(log.contains("probes again"), node != 3, "{log}");
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
    let asked = |node| -> Result<u64> {
        let status = stand.status(node)?;
        Ok(status["probe"]["messages"]["asked"]
            .as_u64()
            .unwrap_or_default())
    };
    // The window is of what was asked since, of both peers.
    let before = asked(1)?;
    let full = overlay_tests::poll::until_well_within(std::time::Duration::from_mins(2), || {
        match asked(1) {
            Ok(now) if now - before > 2 * 140 => None,
            other => Some(format!("{other:?} after {before}")),
        }
    });
    assert_eq!(full, Ok(()));
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
    stand.until(1, 2, |health| health["path_mtu"] == 1450)?;
    let switch = stand.guard.topology().switch().unwrap_or_default();
    let mtu = |bytes: u16| {
        let line = format!("ip -n {switch} link set n2 mtu {bytes}");
        run::checked(&words(line))
    };
    mtu(1400)?;
    // The kernel lets a frame have a VLAN tag besides, or so many bytes more.
    let narrow = |mtu: u64| (1350..=1354).contains(&mtu);
    for (node, peer) in [(1, 2), (2, 1), (3, 2)] {
        let health = stand.until(node, peer, |health| {
            health["path_mtu"].as_u64().is_some_and(narrow)
        })?;
        assert_eq!(health["state"], "answers");
        assert_eq!(health["lost"], 0, "small ones do arrive: {health}");
        stand.until_problem(node, Some("bytes are lost on the way to peer"))?;
    }
    assert_eq!(stand.health(1, 3)?["path_mtu"], 1450);
    mtu(1500)?;
    for (node, peer) in stand.pairs() {
        stand.until(node, peer, |health| health["path_mtu"] == 1450)?;
    }
    stand.until_problem(1, None)?;
    Ok(stand.guard.down()?)
}

#[test]
fn an_agent_that_ends_is_missed_and_found_again() -> Result<()> {
    let stand = Stand::raise("tprend", 2, "200ms")?;
    stand.all_answer()?;
    let second = stand.guard.agent(2);
    second.kill()?;
    stand.until_state(1, 2, "silent")?;
    stand.until_problem(1, Some("tprend-n2 answered probes and does not any more"))?;
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
