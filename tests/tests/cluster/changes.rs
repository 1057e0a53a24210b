//! Nodes that come, change and go while an agent runs, and what is left of them when it is killed.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use overlay_tests::{agent::Agent, run};

use crate::{
    flannel::{lease, there, until_there},
    lab::{Cluster, SUBNETS, until, until_said},
};

/// The file that an agent would start with.
fn remembered(agent: &Agent) -> Result<String> {
    let file = format!("/var/lib/overlay/{}/cluster.toml", agent.instance);
    fs::read_to_string(&file).context(file)
}

#[test]
fn changes_take_effect_one_by_one_and_outlive_the_agent() -> Result<()> {
    let cluster = Cluster::up("tefew", 2)?;
    let agents = cluster.joined()?;
    let agent = &agents[0];
    let key = |number: u8| format!("{SUBNETS}10.244.{number}.0-24");
    // They come, one has another MAC after that, and one moves to the address of another.
    for number in 200..204 {
        cluster.put(&key(number), &lease(number, 0))?;
        until_there(agent, number, number, 0)?;
    }
    cluster.put(&key(201), &lease(201, 1))?;
    until_there(agent, 201, 201, 1)?;
    cluster.put(&key(210), &lease(202, 2))?;
    until_there(agent, 210, 202, 2)?;
    until_said(agent, "10.244.202.0-24 is left out")?;
    cluster.etcdctl(&format!("del {}", key(202)))?;
    // What is not as it should be is put right as ever.
    let node = &agent.instance;
    run::checked(format!("ip -n {node} route del 10.244.203.0/24"))?;
    until_there(agent, 203, 203, 0)?;
    agent.is_well()?;
    until("a plan without steps", || {
        let plan = agent.plan()?;
        ensure!(plan.is_empty(), "{plan:?}");
        Ok(())
    })?;
    cluster.reaches(1, 2)?;
    // Killed when it has written them down, and started without the store.
    let all = [(200, 200, 0), (201, 201, 1), (203, 203, 0), (210, 202, 2)];
    until("the file", || {
        let file = remembered(agent)?;
        let has = |(number, _, _): &(u8, u8, u8)| file.contains(&format!("10.244.{number}.0-24"));
        ensure!(all.iter().all(has) && file.contains("5c:02:ca"), "{file}");
        Ok(())
    })?;
    agent.kill()?;
    cluster.kill(1)?;
    agent.start_anyhow()?;
    until_said(agent, "not connected to")?;
    for (number, host, mac) in all {
        there(agent, number, host, mac)?;
    }
    cluster.reaches(1, 2)?;
    // One that ends by itself writes down the last one, too.
    cluster.start("first")?;
    agent.is_well()?;
    cluster.put(&key(205), &lease(205, 0))?;
    until_there(agent, 205, 205, 0)?;
    agent.stop()?;
    assert!(remembered(agent)?.contains("10.244.205.0-24"));
    Ok(cluster.guard.down()?)
}
