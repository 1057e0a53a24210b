//! The underlay changes under a running agent, which follows.

use std::fs;

use anyhow::{Context as _, Result};
use overlay_tests::{
    agent::Agent,
    check::{self, Answer},
    guard::Guard,
    poll, run, scenario,
    snapshot::Snapshot,
};

/// Runs commands of `ip`, one a line, in the first node.
fn ip(guard: &Guard, commands: &str) -> Result<()> {
    let node = &guard.topology().nodes[0].namespace;
    for command in commands
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
    {
        run::checked(format!("ip -n {node} {command}"))?;
    }
    Ok(())
}

fn complaint(guard: &Guard) -> Option<String> {
    let ask = || -> Result<Option<String>> {
        for agent in [guard.agent(1), guard.agent(2)] {
            let plan = agent.plan()?;
            if !plan.is_empty() {
                return Ok(Some(format!(
                    "{}: still to be done: {plan:?}",
                    agent.instance
                )));
            }
            let status = agent.ask(&["status"])?;
            if !status.success {
                return Ok(Some(status.stdout + &status.stderr));
            }
        }
        let nodes = &guard.topology().nodes;
        let (from, to) = (&nodes[0].containers[0], &nodes[1].containers[0]);
        for (from, to) in [(from, to), (to, from)] {
            if let Answer::None(why) = check::ping(&from.namespace, to.address)? {
                return Ok(Some(format!("{} → {}: {why}", from.namespace, to.address)));
            }
        }
        Ok(None)
    };
    ask().unwrap_or_else(|error| Some(format!("{error:#}")))
}

/// Waits until both agents are content and traffic flows, through the programs.
fn flows(guard: &Guard, after: &str) -> Result<()> {
    let agent = guard.agent(1);
    let flowing = poll::until_well(|| complaint(guard));
    assert_eq!(flowing, Ok(()), "after {after}\n{}", agent.log()?);
    let before = received(&agent)?;
    let nodes = &guard.topology().nodes;
    check::ping(
        &nodes[0].containers[0].namespace,
        nodes[1].containers[0].address,
    )?;
    assert_eq!(
        received(&agent)?,
        before + 1,
        "the programs do not carry it after {after}"
    );
    Ok(())
}

fn received(agent: &Agent) -> Result<u64> {
    Ok(overlay_tests::counters::carried(&agent.instance)?.received)
}

#[test]
fn another_address() -> Result<()> {
    let guard = Guard::pair("tuaddr")?;
    let (agent, other) = (guard.agent(1), guard.agent(2));
    ip(&guard, "addr del 192.168.56.11/24 dev eth1")?;
    agent.tells("192.168.56.11 as VTEP")?;
    ip(&guard, "addr add 192.168.56.21/24 dev eth1")?;
    // Another one is taken when somebody says so.
    agent.tells("write vtep = \"192.168.56.21\"")?;
    let config = guard.first_config().to_toml();
    let named = "underlay = \"eth1\"\nvtep = \"192.168.56.21\"";
    let config = config.replace("underlay = \"eth1\"", named);
    fs::write(agent.config_file(), config)?;
    // The other node is told as people tell it.
    let mut config = scenario::agents::config(guard.topology(), &guard.topology().nodes[1]);
    config.networks[0].peers[0].vtep = "192.168.56.21".to_owned();
    fs::write(other.config_file(), config.to_toml())?;
    flows(&guard, "another address")?;
    for agent in [&agent, &other] {
        let now = Snapshot::of(&agent.instance)?;
        let old: Vec<&str> = now
            .lines()
            .filter(|line| line.contains("192.168.56.11"))
            .collect();
        assert!(old.is_empty(), "{old:#?}");
    }
    Ok(guard.down()?)
}

#[test]
fn an_address_that_comes_beside_it_changes_nothing() -> Result<()> {
    let guard = Guard::pair("tubeside")?;
    ip(&guard, "addr add 192.168.57.11/24 dev eth1")?;
    flows(&guard, "a second address")?;
    let vteps = guard.agent(1).json(&["status"])?["vteps"].clone();
    assert_eq!(vteps, serde_json::json!(["192.168.56.11"]));
    ip(&guard, "addr del 192.168.57.11/24 dev eth1")?;
    flows(&guard, "its removal")?;
    Ok(guard.down()?)
}

#[test]
fn down_and_up() -> Result<()> {
    let guard = Guard::pair("tudown")?;
    ip(&guard, "link set eth1 down")?;
    guard.agent(1).tells("no route to 192.168.56.12")?;
    ip(&guard, "link set eth1 up")?;
    flows(&guard, "down and up")?;
    Ok(guard.down()?)
}

#[test]
fn another_name() -> Result<()> {
    let guard = Guard::pair("tuname")?;
    let agent = guard.agent(1);
    ip(
        &guard,
        "link set eth1 down\nlink set eth1 name wan0\nlink set wan0 up",
    )?;
    agent.tells("no such interface")?;
    let mut config = guard.first_config();
    "wan0".clone_into(&mut config.node.underlay);
    fs::write(agent.config_file(), config.to_toml())?;
    flows(&guard, "another name")?;

    // By an address, a name does not matter.
    "192.168.56.11".clone_into(&mut config.node.underlay);
    fs::write(agent.config_file(), config.to_toml())?;
    flows(&guard, "an address in the place of a name")?;
    ip(
        &guard,
        "link set wan0 down\nlink set wan0 name lan0\nlink set lan0 up",
    )?;
    flows(&guard, "yet another name")?;
    Ok(guard.down()?)
}

#[test]
fn deleted_and_made_anew() -> Result<()> {
    let guard = Guard::pair("tunew")?;
    let other = &guard.topology().nodes[1].namespace;
    ip(&guard, "link del eth1")?;
    guard.agent(1).tells("no such interface")?;
    guard.agent(2).tells("no such interface")?;
    ip(
        &guard,
        &format!("link add eth1 mtu 1500 type veth peer name eth1 netns {other} mtu 1500"),
    )?;
    ip(
        &guard,
        "addr add 192.168.56.11/24 dev eth1\nlink set eth1 up",
    )?;
    for command in ["addr add 192.168.56.12/24 dev eth1", "link set eth1 up"] {
        run::checked(format!("ip -n {other} {command}"))?;
    }
    flows(&guard, "a new device")?;
    Ok(guard.down()?)
}

#[test]
fn a_second_underlay() -> Result<()> {
    let guard = Guard::pair("tusecond")?;
    let (agent, nodes) = (guard.agent(1), &guard.topology().nodes);
    let other = &nodes[1].namespace;
    ip(
        &guard,
        &format!(
            "link add eth2 mtu 1500 type veth peer name eth2 netns {other} mtu 1500
             addr add 172.30.0.1/24 dev eth2
             link set eth2 up"
        ),
    )?;
    for command in ["addr add 172.30.0.2/24 dev eth2", "link set eth2 up"] {
        run::checked(format!("ip -n {other} {command}"))?;
    }
    for node in nodes {
        let agent = guard.agent(node.number);
        let config = scenario::agents::config(guard.topology(), node).to_toml();
        let config = config.replace("underlay = \"eth1\"", "underlay = [\"eth1\", \"eth2\"]");
        fs::write(agent.config_file(), config)?;
    }
    flows(&guard, "a second device")?;

    // The way to the other node leads over it.
    ip(&guard, "route add 192.168.56.12/32 via 172.30.0.2 dev eth2")?;
    let back = format!("ip -n {other} route add 192.168.56.11/32 via 172.30.0.1 dev eth2");
    run::checked(back)?;
    flows(&guard, "another way")?;
    let peer = agent.json(&["status"])?["networks"][0]["peers"][0].clone();
    let way = (peer["dev"].as_str(), peer["via"].as_str());
    assert_eq!(way, (Some("eth2"), Some("172.30.0.2")));

    // And back, when it breaks.
    ip(&guard, "link set eth2 down")?;
    run::checked(format!("ip -n {other} link set eth2 down"))?;
    flows(&guard, "the end of the second device")?;
    let peer = agent.json(&["status"])?["networks"][0]["peers"][0].clone();
    assert_eq!(peer["dev"].as_str().context("no way")?, "eth1");
    Ok(guard.down()?)
}
