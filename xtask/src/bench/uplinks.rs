//! Nodes with two uplinks, each shaped: there the path is the limit, not the core.

use std::fs;

use anyhow::{Result, ensure};
use overlay_tests::{
    check::{self, Answer},
    guard::Guard,
    poll, run, scenario,
    script::inside,
    topology::{Node, UNDERLAY},
};

use super::{labs::container, subject::Subject};

/// What lets pass what a slow line would.
const SHAPE: &str = "root tbf rate 40mbit burst 64kb latency 50ms";
const SECOND: &str = "eth2";

/// Gives both nodes of a lab a second cable, and their addresses on the loopback; flows go by one
/// cable or by both.
pub(super) fn lay(guard: &Guard, subject: Subject) -> Result<()> {
    let nodes = &guard.topology().nodes;
    let [one, two] = nodes.as_slice() else {
        anyhow::bail!("two uplinks take two nodes");
    };
    ip(
        one,
        &format!(
            "link add {SECOND} mtu 1500 type veth peer name {SECOND} netns {} mtu 1500",
            two.namespace
        ),
    )?;
    for (node, other) in [(one, two), (two, one)] {
        let (number, far) = (node.number, other.number);
        let by_both = format!("nexthop via {} nexthop via 172.30.0.{far}", other.underlay);
        let by = match subject {
            Subject::TwoUplinks => by_both,
            _ => format!("via {}", other.underlay),
        };
        for command in [
            format!("addr add 172.30.0.{number}/24 dev {SECOND}"),
            format!("link set {SECOND} up"),
            format!("addr add 10.255.0.{number}/32 dev lo"),
            format!("route add 10.255.0.{far}/32 {by}"),
        ] {
            ip(node, &command)?;
        }
        for device in [UNDERLAY, SECOND] {
            let command = format!("tc qdisc add dev {device} {SHAPE}");
            run::checked(inside(&node.namespace, command))?;
        }
    }
    for (node, other) in [(one, two), (two, one)] {
        let text = scenario::agents::config(guard.topology(), node).to_toml();
        let own = format!(
            "underlay = [\"{UNDERLAY}\", \"{SECOND}\"]\nvtep = \"10.255.0.{}\"",
            node.number
        );
        let peer = format!("vtep = \"{}\"", other.underlay);
        let text = text
            .replace(&peer, &format!("vtep = \"10.255.0.{}\"", other.number))
            .replace(&format!("underlay = \"{UNDERLAY}\""), &own);
        ensure!(text.contains(&own), "no underlay in {text}");
        fs::write(guard.agent(node.number).config_file(), text)?;
    }
    reaches(guard, one, two, subject)
}

fn ip(node: &Node, command: &str) -> Result<()> {
    run::checked(format!("ip -n {} {command}", node.namespace))?;
    Ok(())
}

/// Waits until what is compared is there.
fn reaches(guard: &Guard, one: &Node, two: &Node, subject: Subject) -> Result<()> {
    let hops = if subject == Subject::TwoUplinks { 2 } else { 0 };
    let (from, to) = (container(one, 0)?, container(two, 0)?);
    let complaint = || -> Result<Option<String>> {
        for agent in guard.agents() {
            let peer = agent.json(&["status"])?["networks"][0]["peers"][0].take();
            if peer["next_hops"].as_array().map_or(0, Vec::len) != hops {
                return Ok(Some(peer.to_string()));
            }
        }
        Ok(match check::ping(&from.namespace, to.address)? {
            Answer::None(why) => Some(why),
            Answer::Ttl(_) => None,
        })
    };
    poll::until_well(|| complaint().unwrap_or_else(|error| Some(format!("{error:#}"))))
        .map_err(anyhow::Error::msg)
}
