//! A store that says something else than it did: a backup, or an entry that somebody else has got.

use anyhow::{Context as _, Result, ensure};
use overlay_tests::{agent::Agent, run};

use crate::{
    flannel::{lease, until_there},
    lab::{Cluster, SUBNETS, until, until_found, until_said},
};

/// The entry of a node of ours that has this name.
fn of_ours(host: u8, node: &str) -> String {
    let entry = lease(host, 0);
    let flannels = entry.strip_suffix('}').unwrap_or(&entry);
    format!(r#"{flannels},"Overlay":{{"Node":"{node}"}}}}"#)
}

#[test]
fn a_backup_that_is_restored_takes_no_peer_and_no_subnet() -> Result<()> {
    let cluster = Cluster::up("tebak", 2)?;
    let agents = cluster.joined()?;
    let own = cluster.leases()?;
    let backup = cluster.file("backup").display().to_string();
    cluster.etcdctl(&format!("snapshot save {backup}"))?;
    // Who comes after that is not in it, and what happens makes the store's number greater.
    for number in [240, 241] {
        cluster.put(&format!("{SUBNETS}10.244.{number}.0-24"), &lease(number, 0))?;
        until_there(&agents[0], number, number, 0)?;
    }
    let revision = |agent: &Agent| -> Result<u64> {
        let said = agent.json(&["cluster", "status"])?;
        said["revision"].as_u64().context("a revision")
    };
    let before = revision(&agents[0])?;

    cluster.kill(1)?;
    let folder = cluster.file("restored");
    let peer = cluster.url(1).replace("2379", "2380");
    cluster.etcdctl(&format!(
        "snapshot restore {backup} --data-dir {}-1 --name m1 --initial-cluster m1={peer} \
         --initial-advertise-peer-urls {peer}",
        folder.display()
    ))?;
    cluster.start("restored")?;
    until("the older state", || {
        let now = revision(&agents[0])?;
        ensure!(now < before, "{now}, {before} before");
        Ok(())
    })?;
    for agent in &agents {
        agent.is_well()?;
    }
    assert_eq!(cluster.leases()?, own);
    // Whoever is missing is kept, and whoever comes is heard of.
    cluster.put(&format!("{SUBNETS}10.244.242.0-24"), &lease(242, 0))?;
    for number in [240, 241, 242] {
        until_there(&agents[0], number, number, 0)?;
    }
    for (from, to) in [(1, 2), (2, 1)] {
        cluster.reaches(from, to)?;
    }
    Ok(cluster.guard.down()?)
}

#[test]
fn a_node_whose_subnet_was_given_away_keeps_its_containers_addresses() -> Result<()> {
    let cluster = Cluster::up("tegive", 2)?;
    let agents = cluster.joined()?;
    let said = agents[1].json(&["cluster", "status"])?;
    let key = format!("{SUBNETS}{}", said["subnet"].as_str().context("a subnet")?);
    let before = cluster.addresses(2)?;
    let is_as_before = || -> Result<()> {
        ensure!(cluster.addresses(2)? == before, "renumbered");
        let container = "tegive-n2c1";
        let inside = format!("ip -n {container} -4 addr show dev eth0");
        let inside = run::checked(overlay_tests::script::words(inside))?;
        ensure!(inside.contains(&before[0].to_string()), "{inside}");
        Ok(())
    };
    // While it is away,
    agents[1].stop()?;
    cluster.etcdctl(&format!("del {key}"))?;
    cluster.put(&key, &lease(99, 0))?;
    agents[1].start_anyhow()?;
    until_found(&agents[1], "cluster-entry")?;
    is_as_before()?;
    cluster.etcdctl(&format!("del {key}"))?;
    until("its entry", || {
        let value = cluster.etcdctl(&format!("get --print-value-only {key}"))?;
        ensure!(value.contains("\"Node\":\"tegive-n2\""), "{value}");
        Ok(())
    })?;
    agents[1].is_well()?;
    is_as_before()?;
    cluster.reaches(1, 2)?;

    // and while it runs: a machine that is a copy of it, with its name and another address.
    cluster.put(&key, &of_ours(98, "tegive-n2"))?;
    until_found(&agents[1], "cluster-entry")?;
    until_said(&agents[1], "192.168.56.98")?;
    is_as_before()?;
    let value = cluster.etcdctl(&format!("get --print-value-only {key}"))?;
    ensure!(value.contains("192.168.56.98"), "they fight: {value}");
    cluster.etcdctl(&format!("del {key}"))?;
    agents[1].is_well()?;
    is_as_before()?;
    cluster.reaches(1, 2)?;
    Ok(cluster.guard.down()?)
}
