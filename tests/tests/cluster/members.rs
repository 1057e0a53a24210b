//! Several members: whatever becomes of some of them, nodes follow the others.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use overlay_tests::{
    agent::Agent,
    processes, run,
    script::{Step, words},
    state,
};

use crate::lab::{Cluster, SUBNETS, until, until_said};

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
    let lab = cluster.name.parse()?;
    let log = state::log_file(&lab, "ping");
    let ping = format!(
        "ip netns exec temany-n1c1 ping -i 0.1 {}",
        cluster.addresses(3)?[0]
    );
    let start = Step::Start {
        task: "ping".to_owned(),
        argv: words(ping),
        log: log.clone(),
    };
    run::run_step(&lab, &start)?;
    faults(&cluster, &agents)?;
    let ping = processes::task(&lab, "ping")?.context("ping runs")?;
    ping.signal(Signal::SIGINT)?;
    anyhow::ensure!(
        ping.wait(Instant::now() + Duration::from_secs(20)),
        "ping lives"
    );
    let log = fs::read_to_string(&log)?;
    assert!(log.contains(" 0% packet loss"), "{log}");
    Ok(cluster.guard.down()?)
}

fn faults(cluster: &Cluster, agents: &[Agent]) -> Result<()> {
    // Somebody who will have gone at the end of this: the doubt takes its time meanwhile.
    let flannel = r#"{"PublicIP":"192.168.56.99","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"d2:cf:28:5c:8b:05"}}"#;
    let gone = format!("{SUBNETS}10.244.250.0-24");
    let route = || run::checked(&words("ip -n temany-n1 route show 10.244.250.0/24"));
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
    run::checked(&cluster.inside(1, "nft delete table inet cut"))?;

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
