//! Keys for encryption: nodes tell theirs in the store, and who has none is left out by name.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result};
use overlay_tests::{agent::Agent, lab, poll};

use crate::{
    flannel::lease,
    lab::{Cluster, SUBNETS, until_said},
};

/// What nobody announces is found within half a minute.
const PATIENCE: Duration = Duration::from_mins(2);

#[test]
fn keys_are_told_in_the_store_and_who_has_none_is_left_out_by_name() -> Result<()> {
    let cluster = Cluster::up("tetkey", 2)?;
    let agents = cluster.joined()?;
    let said = agents[0].ask(&["cluster", "status"])?.stdout;
    assert!(!said.contains("keys of"), "{said}");

    // They may be made before anybody encrypts.
    for (agent, other) in [(&agents[0], &agents[1]), (&agents[1], &agents[0])] {
        let key = agent.tell(&["key"])?;
        let (key, name) = (key.trim(), &agent.instance);
        let in_store = format!(r#""Overlay":{{"Node":"{name}","PublicKey":"{key}"}}}}"#);
        let known = format!("public_key = \"{key}\"");
        let told = poll::until_well_within(PATIENCE, || {
            let values = cluster.etcdctl(&format!("get --prefix --print-value-only {SUBNETS}"));
            match (values, of_cluster(other)) {
                (Ok(values), Ok(text)) if values.contains(&in_store) && text.contains(&known) => {
                    None
                }
                other => Some(format!("{other:?}")),
            }
        });
        assert_eq!(told, Ok(()), "{in_store} {known}");
    }
    cluster.put(&format!("{SUBNETS}10.244.250.0-24"), &lease(99, 0))?;
    until_said(
        &agents[1],
        "not encrypted  keys of 1 other node; without: 192.168.56.99",
    )?;

    cluster.configure(1, "encryption = \"wireguard\"\n")?;
    until_said(
        &agents[0],
        "entry 10.244.250.0-24 is left out: 192.168.56.99 has no public key, and this node encrypts the network; set \
         encryption in [cluster] there, too; a node of flannel's cannot encrypt",
    )?;
    let status = agents[0].json(&["cluster", "status"])?;
    let keys = (&status["encrypted"], &status["with_key"]);
    assert_eq!(keys, (&true.into(), &1.into()), "{status}");
    assert_eq!(status["without_key"][0], "192.168.56.99");
    let names = |agent: &Agent| agent.tell(&["peer", "list"]);
    assert!(!names(&agents[0])?.contains("192.168.56.99"));
    // Nobody else is concerned.
    assert!(names(&agents[1])?.contains("192.168.56.99"));
    Ok(())
}

/// What an agent was handed over.
fn of_cluster(agent: &Agent) -> Result<String> {
    let [_, _, state] = lab::traces(&agent.instance);
    let file = state.join("cluster.toml");
    fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))
}
