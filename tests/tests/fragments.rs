//! Peers in files of their own: they come and go as files do, and a bad one refuses itself alone.

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
};

use anyhow::Result;
use overlay_tests::{
    agent::Agent,
    check::{self, Answer},
    guard::Guard,
    poll,
    shape::{Scenario, Shape},
    snapshot::Snapshot,
    topology::Topology,
};

/// A fragment with all nodes, as one folder for all of them would have it.
fn everybody(topology: &Topology) -> String {
    let peers = topology.nodes.iter().map(|node| {
        format!(
            "[[networks.peers]]\nname = \"{}\"\nvtep = \"{}\"\nsubnet = \"{}/{}\"\n",
            node.namespace, node.underlay, node.subnet.base, node.subnet.length
        )
    });
    format!(
        "[[networks]]\nname = \"lab\"\n{}",
        peers.collect::<String>()
    )
}

fn answers(from: &str, address: &str) -> Result<bool> {
    let answer = check::ping(from, address.parse::<IpAddr>()?)?;
    Ok(matches!(answer, Answer::Ttl(_)))
}

/// Waits until the agent is well, or is not and says why.
fn until(agent: &Agent, well: bool, said: &str) {
    let outcome = poll::until_well(|| match agent.ask(&["status"]) {
        Ok(out) if out.success == well && out.stdout.contains(said) => None,
        Ok(out) => Some(out.stdout + &out.stderr),
        Err(error) => Some(error.to_string()),
    });
    assert_eq!(outcome, Ok(()), "{:?}", agent.log());
}

fn replace(path: &Path, text: &str) -> Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, text)?;
    Ok(fs::rename(new, path)?)
}

#[test]
fn peers_come_and_go_with_their_file_and_a_bad_one_takes_nothing_along() -> Result<()> {
    let shape = Shape::of("tfrag", Scenario::Overlay, 3, 1)?;
    let guard = Guard::configured(shape, |_, config| config.networks[0].peers.clear())?;
    let topology = guard.topology();
    let agent = guard.agent(1);
    let (file, target) = (agent.config_file(), "10.244.2.10");
    let folder: PathBuf = file.with_file_name("peers.d");
    assert!(!answers("tfrag-n1c1", target)?, "nobody knows anybody");

    fs::create_dir(&folder)?;
    let (good, other) = (folder.join("all.toml"), folder.join("other.toml"));
    replace(&good, &everybody(topology))?;
    for agent in guard.agents() {
        until(&agent, true, "tfrag-n");
    }
    poll::until(|| answers("tfrag-n1c1", target), |it| *it)?;
    assert!(answers("tfrag-n3c1", target)?);
    let config = file.to_string_lossy();
    let check = agent.call(&["check", "--config", &config])?;
    assert!(check.stdout.contains("2 peers") && check.stdout.contains("1 file of peers.d"));
    assert!(agent.plan()?.is_empty());

    // A fault is told by name, and nothing of what works is touched.
    let before = Snapshot::of(&agent.instance)?;
    replace(
        &other,
        "[[networks]]\nname = \"lab\"\n[[networks.peers]]\nname = \"x\"\n",
    )?;
    until(&agent, false, "other.toml:3: ");
    replace(&good, "half a fi")?;
    until(&agent, false, "all.toml:1: ");
    let changes = Snapshot::of(&agent.instance)?.changes_since(&before);
    assert!(changes.lines.is_empty(), "{changes}");
    assert!(answers("tfrag-n1c1", target)?);
    let check = agent.call(&["check", "--config", &config])?;
    assert_eq!(check.code, Some(2), "{check:?}");
    assert!(check.stderr.contains("other.toml:3: "), "{}", check.stderr);
    let diagnosis = agent.json(&["doctor", "--sample", "0.1"])?;
    assert!(
        diagnosis.to_string().contains("peers-refused"),
        "{diagnosis}"
    );

    fs::remove_file(&other)?;
    replace(&good, &everybody(topology))?;
    until(&agent, true, "tfrag-n2");
    fs::remove_file(&good)?;
    poll::until(|| answers("tfrag-n1c1", target), |it| !*it)?;
    Ok(guard.down()?)
}
