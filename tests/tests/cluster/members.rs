//! Several members: whatever becomes of some of them, nodes follow the others.

use std::fs;

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use overlay_tests::{agent::Agent, run};
use serde_json::Value;

use crate::{
    asked::connections,
    flannel::{lease, until_there},
    flow::Flow,
    lab::{Cluster, SUBNETS, until, until_said},
};

/// Whom a node speaks with, counted from 1.
fn followed(cluster: &Cluster, agent: &Agent) -> Result<u8> {
    let said = agent.json(&["cluster", "status"])?;
    let endpoint = said["endpoint"].as_str().context("a member")?;
    let found = (1..=3).find(|member| cluster.url(*member) == endpoint);
    found.with_context(|| format!("{endpoint} is not a member"))
}

/// Waits until a node follows another member than that.
fn until_elsewhere(cluster: &Cluster, agent: &Agent, than: u8) -> Result<()> {
    until("another member", || {
        let now = followed(cluster, agent)?;
        let said = agent.json(&["cluster", "status"])?;
        anyhow::ensure!(
            now != than && said["connected"] == true,
            "{said}; {}",
            agent.log()?
        );
        Ok(())
    })?;
    Ok(agent.is_well()?)
}

#[test]
fn a_member_that_dies_stalls_or_is_cut_off_takes_nothing_from_nodes() -> Result<()> {
    let cluster = Cluster::new("temany", 3, 3, false)?;
    cluster.start("data")?;
    let agents = cluster.joined()?;
    cluster.reaches(1, 2)?;
    // What flows while all of it happens, and must come without a gap.
    let flow = Flow::start(&cluster, 1, 3)?;
    faults(&cluster, &agents)?;
    flow.came_whole()?;
    Ok(cluster.guard.down()?)
}

fn faults(cluster: &Cluster, agents: &[Agent]) -> Result<()> {
    // Somebody who will have gone at the end of this: the doubt takes its time meanwhile.
    let flannel = r#"{"PublicIP":"192.168.56.99","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"d2:cf:28:5c:8b:05"}}"#;
    let gone = format!("{SUBNETS}10.244.250.0-24");
    let route = || run::checked("ip -n temany-n1 route show 10.244.250.0/24");
    cluster.put(&gone, flannel)?;
    until("a peer", || {
        anyhow::ensure!(!route()?.is_empty());
        Ok(())
    })?;

    // One that is killed,
    let first = followed(cluster, &agents[0])?;
    cluster.kill(first)?;
    until_elsewhere(cluster, &agents[0], first)?;
    cluster.start_member(first, "data")?;
    cluster.until_healthy(first)?;
    cluster.etcdctl(&format!("del {gone}"))?;
    until_said(&agents[0], "(1 not in etcd any more)")?;
    assert!(!route()?.is_empty(), "the peer is not kept");

    // one that stands still, whose kernel goes on taking connections and bytes,
    let second = followed(cluster, &agents[0])?;
    cluster.member(second)?.signal(Signal::SIGSTOP)?;
    until_elsewhere(cluster, &agents[0], second)?;
    cluster.member(second)?.signal(Signal::SIGCONT)?;
    cluster.until_healthy(second)?;

    // and one that nothing comes from any more, without a word.
    let third = followed(cluster, &agents[0])?;
    let url = cluster.url(third);
    let host = url.trim_start_matches("http://").trim_end_matches(":2379");
    let rules = cluster.file("cut.nft");
    fs::write(
        &rules,
        format!(
            "table inet cut {{\n chain in {{ type filter hook input priority -10; ip saddr {host} tcp sport 2379 \
             drop; }}\n chain out {{ type filter hook output priority -10; ip daddr {host} tcp dport 2379 drop; \
             }}\n}}\n"
        ),
    )?;
    let cut = cluster.inside(1, &format!("nft -f {}", rules.display()));
    run::checked(&cut)?;
    until_elsewhere(cluster, &agents[0], third)?;
    run::checked(cluster.inside(1, "nft delete table inet cut"))?;

    a_minority_of_one(cluster, &agents[0])?;
    another_leader(cluster, &agents[0])?;

    // The last one of three answers, and has nothing to say.
    cluster.kill(1)?;
    cluster.kill(2)?;
    for agent in agents {
        until_said(agent, "etcd cannot be followed, the last known peers stay")?;
    }
    until_said(&agents[0], "start enough of them for a majority")?;
    for member in 1..=2 {
        cluster.start_member(member, "data")?;
    }
    for agent in agents {
        agent.is_well()?;
    }
    until("the peer's end", || {
        anyhow::ensure!(route()?.is_empty(), "{}", agents[0].log()?);
        Ok(())
    })
}

/// A member that the others do not hear any more, and that answers all the same: they have a majority.
fn a_minority_of_one(cluster: &Cluster, agent: &Agent) -> Result<()> {
    let member = followed(cluster, agent)?;
    let rules = cluster.file("apart.nft");
    fs::write(
        &rules,
        "table inet apart {\n chain in { type filter hook input priority -10; tcp dport 2380 drop; tcp sport 2380 \
         drop; }\n chain out { type filter hook output priority -10; tcp dport 2380 drop; tcp sport 2380 drop; }\n}\n",
    )?;
    let apart = cluster.inside(member, &format!("nft -f {}", rules.display()));
    run::checked(&apart)?;
    until_elsewhere(cluster, agent, member)?;
    // What only the majority knows arrives.
    cluster.put_at(followed(cluster, agent)?, &entry(240), &lease(240, 0))?;
    until_there(agent, 240, 240, 0)?;
    run::checked(cluster.inside(member, "nft delete table inet apart"))?;
    cluster.until_healthy(member)
}

/// The leader gives way to another member: not even the connection notices.
fn another_leader(cluster: &Cluster, agent: &Agent) -> Result<()> {
    let leader = || -> Result<(u64, Vec<u64>)> {
        let said: Value = cluster.json("endpoint status")?;
        let status = said.as_array().context("a list")?.iter();
        let status: Vec<&Value> = status.map(|member| &member["Status"]).collect();
        let ids = status
            .iter()
            .map(|one| one["header"]["member_id"].as_u64())
            .collect::<Option<Vec<u64>>>();
        let leader = status.first().and_then(|one| one["leader"].as_u64());
        let agree = |one: &&Value| one["leader"].as_u64() == leader;
        anyhow::ensure!(status.iter().all(agree) && leader != Some(0), "{said}");
        leader
            .zip(ids)
            .context("no leader, or members without a number")
    };
    until("one leader", || leader().map(drop))?;
    let (before, ids) = leader()?;
    let place = ids
        .iter()
        .position(|id| *id == before)
        .context("a leader")?;
    let next = ids[(place + 1) % ids.len()];
    let connected = connections(agent)?;
    // Only the leader itself takes that.
    let member = u8::try_from(place + 1)?;
    cluster.etcdctl_at(member, &format!("move-leader {next:x}"))?;
    let (after, _) = leader()?;
    assert_eq!(after, next, "{before} led");
    cluster.put(&entry(241), &lease(241, 0))?;
    until_there(agent, 241, 241, 0)?;
    assert_eq!(connections(agent)?, connected);
    for number in [240, 241] {
        cluster.etcdctl(&format!("del {}", entry(number)))?;
    }
    Ok(())
}

fn entry(number: u8) -> String {
    format!("{SUBNETS}10.244.{number}.0-24")
}
