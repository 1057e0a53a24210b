//! Two nodes with cards, and what is asked of them.

use std::fs;

use anyhow::Result;
use overlay_tests::{
    agent::Agent,
    check::{self, Answer},
    counters,
    guard::Guard,
    poll, run, scenario,
    topology::Node,
};

/// Runs commands of `ip`, one a line, in a node counted from 1.
pub(crate) fn ip(guard: &Guard, node: usize, commands: &str) -> Result<()> {
    let namespace = &guard.topology().nodes[node - 1].namespace;
    let lines = commands.lines().map(str::trim);
    for command in lines.filter(|line| !line.is_empty()) {
        run::checked(format!("ip -n {namespace} {command}"))?;
    }
    Ok(())
}

/// A second cable, eth2 of both nodes, with 172.30.0.1 and 172.30.0.2.
pub(crate) fn second_cable(guard: &Guard) -> Result<()> {
    let other = &guard.topology().nodes[1].namespace;
    let link = format!("link add eth2 mtu 1500 type veth peer name eth2 netns {other} mtu 1500");
    ip(guard, 1, &link)?;
    for node in [1, 2] {
        let commands = format!("addr add 172.30.0.{node}/24 dev eth2\nlink set eth2 up");
        ip(guard, node, &commands)?;
    }
    Ok(())
}

/// Gives a node the lab's configuration with some text in the place of other text.
pub(crate) fn configure(guard: &Guard, node: &Node, changes: &[(&str, &str)]) -> Result<()> {
    let mut text = scenario::agents::config(guard.topology(), node).to_toml();
    for (old, new) in changes {
        assert!(text.contains(old), "{old} is not in {text}");
        text = text.replace(old, new);
    }
    fs::write(guard.agent(node.number).config_file(), text)?;
    Ok(())
}

/// Has the first node's kernel use no route by a device without a carrier.
pub(crate) fn pass_over_linkdown(guard: &Guard, devices: &[&str]) -> Result<()> {
    let node = &guard.topology().nodes[0].namespace;
    for device in devices {
        run::checked(format!(
            "ip netns exec {node} sysctl -qw net.ipv4.conf.{device}.ignore_routes_with_linkdown=1"
        ))?;
    }
    Ok(())
}

pub(crate) const BOTH: (&str, &str) = ("underlay = \"eth1\"", "underlay = [\"eth1\", \"eth2\"]");

pub(crate) fn both_cards(guard: &Guard) -> Result<()> {
    for node in &guard.topology().nodes {
        configure(guard, node, &[BOTH])?;
    }
    Ok(())
}

/// Waits until both agents are content, and what each container sends to the other one arrives.
pub(crate) fn flows(guard: &Guard, after: &str) -> Result<()> {
    let nodes = &guard.topology().nodes;
    let (one, two) = (&nodes[0].containers[0], &nodes[1].containers[0]);
    let complaint = || -> Result<Option<String>> {
        for agent in [guard.agent(1), guard.agent(2)] {
            let status = agent.ask(&["status"])?;
            if !status.success {
                return Ok(Some(status.stdout + &status.stderr));
            }
        }
        for (from, to) in [(one, two), (two, one)] {
            if let Answer::None(why) = check::ping(&from.namespace, to.address)? {
                return Ok(Some(format!("{} → {}: {why}", from.namespace, to.address)));
            }
        }
        Ok(None)
    };
    let flowing =
        poll::until_well(|| complaint().unwrap_or_else(|error| Some(format!("{error:#}"))));
    assert_eq!(flowing, Ok(()), "after {after}\n{}", guard.agent(1).log()?);
    Ok(())
}

/// The same, and it is the programs that carry it.
pub(crate) fn flows_fast(guard: &Guard, after: &str) -> Result<()> {
    flows(guard, after)?;
    let nodes = &guard.topology().nodes;
    let (one, two) = (&nodes[0].containers[0], &nodes[1].containers[0]);
    for agent in guard.agents() {
        let mut before = 0;
        // One that is lost, as while a bond chooses another card, says nothing of who carried it.
        let answered = poll::until_well(|| {
            match counters::carried(&agent.instance) {
                Ok(carried) => before = carried.received,
                Err(error) => return Some(error.to_string()),
            }
            match check::ping(&one.namespace, two.address) {
                Ok(Answer::None(why)) => Some(why),
                Ok(_) => None,
                Err(error) => Some(error.to_string()),
            }
        });
        assert_eq!(answered, Ok(()), "after {after}");
        let now = counters::carried(&agent.instance)?.received;
        assert!(
            now > before,
            "{}: by the kernel after {after}",
            agent.instance
        );
    }
    Ok(())
}

pub(crate) fn vteps(agent: &Agent) -> Result<String> {
    Ok(agent.json(&["status"])?["vteps"].to_string())
}

/// Waits until the first node says that its way to the other one is this.
pub(crate) fn way_is(guard: &Guard, dev: &str, via: &str) -> Result<()> {
    let agent = guard.agent(1);
    let way = || -> Result<Option<String>> {
        let peer = agent.json(&["status"])?["networks"][0]["peers"][0].take();
        let is = peer["dev"].as_str() == Some(dev) && peer["via"].as_str() == Some(via);
        Ok((!is).then(|| peer.to_string()))
    };
    let found = poll::until_well(|| way().unwrap_or_else(|error| Some(format!("{error:#}"))));
    assert_eq!(found, Ok(()), "{}", agent.log()?);
    Ok(())
}

/// Has each node reach the other one by `device` at `ADDRESSES` and the node's number.
pub(crate) fn by_device(guard: &Guard, device: &str, addresses: &str) -> Result<()> {
    for node in &guard.topology().nodes {
        let other = 3 - node.number;
        let old = format!("vtep = \"192.168.56.1{other}\"");
        let new = format!("vtep = \"{addresses}{other}\"");
        let underlay = format!("underlay = \"{device}\"");
        configure(guard, node, &[(&old, &new), (BOTH.0, &underlay)])?;
    }
    Ok(())
}
