//! Nodes that probe each other.

use std::{fs, time::Duration};

use anyhow::Result;
use overlay_tests::{
    guard::Guard,
    poll, scenario,
    shape::{Scenario, Shape},
};
use serde_json::Value;

/// A search for a path's MTU waits for what does not come.
const PATIENCE: Duration = Duration::from_mins(2);

pub(crate) struct Stand {
    pub(crate) guard: Guard,
}

impl Stand {
    /// Nodes with a container each; three or more meet at a switch.
    pub(crate) fn raise(name: &str, nodes: u8, probe: &'static str) -> Result<Self> {
        let shape = Shape::of(name, Scenario::Overlay, nodes, 1)?;
        Self::of(shape, probe)
    }

    pub(crate) fn of(shape: Shape, probe: &'static str) -> Result<Self> {
        let guard = Guard::configured(shape, |_, config| config.node.probe = Some(probe))?;
        Ok(Self { guard })
    }

    /// Everybody, and each of its peers.
    pub(crate) fn pairs(&self) -> Vec<(u8, u8)> {
        let nodes = || self.guard.topology().nodes.iter().map(|node| node.number);
        let pairs = nodes().flat_map(|one| nodes().map(move |other| (one, other)));
        pairs.filter(|(one, other)| one != other).collect()
    }

    pub(crate) fn status(&self, node: u8) -> Result<Value> {
        Ok(self.guard.agent(node).json(&["status"])?)
    }

    /// What a node knows of a peer; null when it is none.
    pub(crate) fn health(&self, node: u8, peer: u8) -> Result<Value> {
        let status = self.status(node)?;
        let name = self.guard.agent(peer).instance;
        let peers = status["networks"][0]["peers"].as_array();
        let mut peers = peers.into_iter().flatten();
        let peer = peers.find(|peer| peer["name"] == name.as_str());
        Ok(peer.map_or(Value::Null, |peer| peer["health"].clone()))
    }

    /// Waits until what a node knows of a peer is as it should be.
    pub(crate) fn until(
        &self,
        node: u8,
        peer: u8,
        expected: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let mut last = Value::Null;
        let found = poll::until_well_within(PATIENCE, || match self.health(node, peer) {
            Ok(health) if expected(&health) => {
                last = health;
                None
            }
            other => Some(format!("node {node} of node {peer}: {other:?}")),
        });
        found.map_err(anyhow::Error::msg)?;
        Ok(last)
    }

    pub(crate) fn until_state(&self, node: u8, peer: u8, state: &str) -> Result<Value> {
        self.until(node, peer, |health| health["state"] == state)
    }

    pub(crate) fn all_answer(&self) -> Result<()> {
        let mut pairs = self.pairs().into_iter();
        pairs.try_for_each(|(node, peer)| self.until_state(node, peer, "answers").map(drop))
    }

    /// Waits until a node is well, or is not for a reason that has these words.
    pub(crate) fn until_problem(&self, node: u8, words: Option<&str>) -> Result<()> {
        let found = poll::until_well_within(PATIENCE, || match (self.status(node), words) {
            (Ok(status), None) if status["healthy"] == true => None,
            (Ok(status), Some(words))
                if status["healthy"] == false && sentences(&status["problems"]).contains(words) =>
            {
                None
            }
            (Ok(status), _) => Some(format!("node {node}: {}", status["problems"])),
            (Err(error), _) => Some(error.to_string()),
        });
        found.map_err(anyhow::Error::msg)
    }

    pub(crate) fn until_logged(&self, node: u8, words: &str) -> Result<()> {
        Ok(self.guard.agent(node).has_logged(words)?)
    }

    /// Gives a node another way of probing.
    pub(crate) fn configure(&self, node: u8, probe: &'static str) -> Result<()> {
        let topology = self.guard.topology();
        let mut config = scenario::agents::config(topology, &topology.nodes[usize::from(node) - 1]);
        config.node.probe = Some(probe);
        fs::write(self.guard.agent(node).config_file(), config.to_toml())?;
        Ok(())
    }

    /// Waits until a node has asked so often since its start.
    pub(crate) fn until_asked(&self, node: u8, times: u64) -> Result<()> {
        let found = poll::until_well_within(PATIENCE, || match self.status(node) {
            Ok(status) if status["probe"]["messages"]["asked"].as_u64() >= Some(times) => None,
            other => Some(format!("not {times} times yet: {other:?}")),
        });
        found.map_err(anyhow::Error::msg)
    }

    /// Gives all nodes another way of probing, and waits until they have it.
    pub(crate) fn configure_all(&self, probe: &'static str) -> Result<()> {
        let nodes = || self.guard.topology().nodes.iter().map(|node| node.number);
        nodes().try_for_each(|node| self.configure(node, probe))?;
        nodes().try_for_each(|node| self.until_mode(node, probe))
    }

    pub(crate) fn until_mode(&self, node: u8, mode: &str) -> Result<()> {
        let agent = self.guard.agent(node);
        agent.status_until(|status| status["probe"]["mode"] == mode)?;
        Ok(())
    }
}

/// Problems as people read them.
fn sentences(problems: &Value) -> String {
    let problems = problems.as_array().into_iter().flatten();
    let sentence = |problem: &Value| {
        let [operation, what, cure] = ["operation", "what", "cure"]
            .map(|part| problem[part].as_str().unwrap_or_default().to_owned());
        format!("{operation}: {what}; {cure}\n")
    };
    problems.map(sentence).collect()
}
