//! What changed while the agent was down leaves nothing behind.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use overlay_common::maps::{CIDRS, ENDPOINTS4, NETWORKS, PEERS4, PORTS, VTEPS4};
use overlay_tests::{
    agent::Agent,
    check::{self, Answer},
    config::{Config, Network, Peer},
    counters,
    guard::Guard,
    snapshot::Snapshot,
};
use serde_json::Value;

const BLUE: &str = "blue";

/// A node that nobody has seen.
fn ghost(name: &str, last: u8, subnet: u8) -> Peer {
    Peer {
        name: name.to_owned(),
        vtep: format!("192.168.56.{last}"),
        subnet: vec![format!("10.244.{subnet}.0/24")],
        ..Peer::default()
    }
}

fn blue(node: u8) -> Network {
    Network {
        name: BLUE.to_owned(),
        vni: 2,
        port: 4789,
        cidr: vec!["10.245.0.0/16".to_owned()],
        subnet: vec![format!("10.245.{node}.0/24")],
        ..Network::default()
    }
}

fn stop(agent: &Agent) -> Result<()> {
    let process = agent.process()?.context("no agent runs")?;
    process.signal(Signal::SIGKILL)?;
    ensure!(
        process.wait(Instant::now() + Duration::from_secs(20)),
        "it does not end"
    );
    Ok(())
}

/// Applies a configuration while the agent runs.
fn reload(agent: &Agent, config: &Config) -> Result<()> {
    fs::write(agent.config_file(), config.to_toml())?;
    agent.until_done()?;
    Ok(())
}

/// Ends the agent, changes its configuration, and starts it again.
fn change_while_down(agent: &Agent, config: &Config) -> Result<()> {
    stop(agent)?;
    fs::write(agent.config_file(), config.to_toml())?;
    agent.start()?;
    assert_eq!(agent.plan()?, Vec::<Value>::new());
    Ok(())
}

/// All that the kernel and the maps have on the node, as text.
fn everything(agent: &Agent) -> Result<String> {
    let snapshot = Snapshot::of(&agent.instance)?;
    let mut text: Vec<String> = snapshot.lines().map(str::to_owned).collect();
    for map in [NETWORKS, PEERS4, VTEPS4, ENDPOINTS4, PORTS, CIDRS] {
        for entry in counters::dump(&agent.instance, map)? {
            text.push(format!("{map}: {entry}"));
        }
    }
    Ok(text.join("\n"))
}

fn has_no(text: &str, traces: &[&str]) {
    for trace in traces {
        let found: Vec<&str> = text.lines().filter(|line| line.contains(trace)).collect();
        assert!(found.is_empty(), "traces of {trace}: {found:#?}");
    }
}

fn carries(guard: &Guard) -> Result<()> {
    let nodes = &guard.topology().nodes;
    let (from, to) = (&nodes[0].containers[0], &nodes[1].containers[0]);
    assert_eq!(check::ping(&from.namespace, to.address)?, Answer::Ttl(62));
    assert_eq!(check::ping(&to.namespace, from.address)?, Answer::Ttl(62));
    Ok(())
}

fn rows(agent: &Agent, map: &str) -> Result<usize> {
    Ok(counters::dump(&agent.instance, map)?.len())
}

/// A peer as `status` tells of it.
fn peer(agent: &Agent, name: &str) -> Result<Value> {
    let status = agent.json(&["status"])?;
    let peers = status["networks"][0]["peers"]
        .as_array()
        .context("no peers")?;
    let found = peers.iter().find(|peer| peer["name"] == name);
    Ok(found
        .with_context(|| format!("no {name} in {status}"))?
        .clone())
}

#[test]
fn peers_that_went_moved_or_changed_their_address() -> Result<()> {
    let guard = Guard::overlay("tstpeer")?;
    let agent = guard.agent(1);
    let mut config = guard.first_config();
    config.networks[0].peers.extend([
        ghost("gone", 50, 50),
        ghost("moved", 51, 51),
        ghost("roaming", 52, 52),
    ]);
    reload(&agent, &config)?;
    // Its slot of counters has been used.
    let from = &guard.topology().nodes[0].containers[0].namespace;
    check::ping_for(from, [10, 244, 50, 9].into(), Duration::from_millis(100))?;
    let gone = peer(&agent, "gone")?;
    assert_eq!(rows(&agent, PEERS4)?, 4);

    let peers = &mut config.networks[0].peers;
    peers.retain(|peer| peer.name != "gone");
    peers[1].vtep = "192.168.56.61".to_owned();
    peers[2].subnet = vec!["10.244.62.0/24".to_owned()];
    change_while_down(&agent, &config)?;
    let now = everything(&agent)?;
    has_no(
        &now,
        &["192.168.56.50", "192.168.56.51", "10.244.50.", "10.244.52."],
    );
    has_no(&now, &["[192,168,56,50]", "[10,244,50,0]", "[10,244,52,0]"]);
    has_no(&now, &["02:4f:c0:a8:38:32", "02:4f:c0:a8:38:33"]);
    assert!(
        now.contains("192.168.56.61") && now.contains("10.244.62.0/24"),
        "{now}"
    );
    assert_eq!((rows(&agent, PEERS4)?, rows(&agent, VTEPS4)?), (3, 3));
    carries(&guard)?;

    // Who gets the slot of one that is gone starts from nothing.
    config.networks[0].peers.push(ghost("new", 53, 53));
    change_while_down(&agent, &config)?;
    let status = agent.json(&["status"])?;
    let peers = status["networks"][0]["peers"]
        .as_array()
        .context("no peers")?;
    let heir = peers.iter().find(|peer| peer["slot"] == gone["slot"]);
    let heir = heir.context("nobody has the slot")?;
    assert_ne!(heir["name"], "gone");
    assert_eq!(heir["traffic"]["tx_packets"], 0, "{heir}");
    Ok(guard.down()?)
}

#[test]
fn a_peer_that_moved_to_another_network() -> Result<()> {
    let guard = Guard::overlay("tstnet")?;
    let agent = guard.agent(1);
    let mut config = guard.first_config();
    config.networks[0].peers.push(ghost("ghost", 50, 50));
    config.networks.push(blue(1));
    reload(&agent, &config)?;

    let mut moved = config.networks[0].peers.remove(1);
    moved.subnet = vec!["10.245.50.0/24".to_owned()];
    config.networks[1].peers.push(moved);
    change_while_down(&agent, &config)?;
    has_no(&everything(&agent)?, &["10.244.50.", "[10,244,50,0]"]);
    let vteps = counters::dump(&agent.instance, VTEPS4)?;
    let of_blue = vteps.iter().filter(|entry| entry["key"]["vni"] == 2);
    assert_eq!((vteps.len(), of_blue.count()), (2, 1), "{vteps:?}");
    carries(&guard)?;
    Ok(guard.down()?)
}

#[test]
fn endpoints_and_networks_that_went() -> Result<()> {
    let guard = Guard::overlay("tstend")?;
    let agent = guard.agent(1);
    let mut config = guard.first_config();
    config.networks.push(blue(1));
    config.networks[1].peers.push(ghost("ghost", 50, 50));
    config.networks[1].peers[0].subnet = vec!["10.245.50.0/24".to_owned()];
    let second = &mut config.endpoints[1];
    BLUE.clone_into(&mut second.network);
    second.address = vec!["10.245.1.10".to_owned()];
    reload(&agent, &config)?;

    // The network goes with its peer and its container.
    let second = guard.topology().nodes[0].containers[1].namespace.clone();
    config.networks.pop();
    config.endpoints.pop();
    change_while_down(&agent, &config)?;
    let now = everything(&agent)?;
    has_no(
        &now,
        &[
            "ovlbr2",
            "ovl2",
            "ovlpad2",
            "10.245.",
            "[10,245,",
            "192.168.56.50",
        ],
    );
    has_no(&now, &[&format!("ovl-{second}"), "\"vni\":2"]);
    assert!(!std::path::Path::new("/run/netns").join(second).exists());
    // The bridge's two tunnels' worth of ports are gone, too: one tunnel and one container are left.
    assert_eq!((rows(&agent, PORTS)?, rows(&agent, ENDPOINTS4)?), (2, 1));
    carries(&guard)?;
    Ok(guard.down()?)
}

#[test]
fn another_vni_and_port() -> Result<()> {
    let guard = Guard::overlay("tstvni")?;
    for node in [1, 2] {
        let agent = guard.agent(node);
        stop(&agent)?;
        let topology = guard.topology();
        let mut config = overlay_tests::scenario::agents::config(
            topology,
            &topology.nodes[usize::from(node) - 1],
        );
        config.networks[0].vni = 5;
        config.networks[0].port = 4999;
        fs::write(agent.config_file(), config.to_toml())?;
        agent.start()?;
        assert_eq!(agent.plan()?, Vec::<Value>::new());
        let now = everything(&agent)?;
        has_no(
            &now,
            &[
                "ovlbr1",
                "ovl1",
                "ovlpad1",
                "info_data.port=4789",
                "\"vni\":1,",
            ],
        );
    }
    carries(&guard)?;
    Ok(guard.down()?)
}
