//! What `explain` says.

use anyhow::{Context as _, Result, ensure};
use overlay_tests::{
    agent::Agent,
    check,
    families::Families,
    guard::Guard,
    run,
    script::inside,
    shape::{Scenario, Shape},
};
use serde_json::Value;

/// What was said, node by node.
pub(crate) struct Explained {
    pub(crate) hops: Vec<Value>,
    pub(crate) good: bool,
}

impl Explained {
    /// The verdict of a node's last program: its action and its reason.
    pub(crate) fn verdict(&self, hop: usize) -> Option<(&str, Option<&str>)> {
        let verdict = &self.hops.get(hop)?["stages"].as_array()?.last()?["verdict"];
        Some((verdict["action"].as_str()?, verdict["reason"].as_str()))
    }

    pub(crate) fn steps(&self, hop: usize) -> Vec<&str> {
        let stages = self.hops[hop]["stages"].as_array();
        let decisions = stages
            .into_iter()
            .flatten()
            .flat_map(|stage| stage["decisions"].as_array().into_iter().flatten());
        decisions
            .filter_map(|decision| decision["step"].as_str())
            .collect()
    }

    /// TTL with which it is delivered.
    pub(crate) fn ttl(&self) -> Option<u64> {
        self.hops.last()?["end"]["delivered"]["ttl"].as_u64()
    }

    pub(crate) fn kernel(&self) -> String {
        let hops = self.hops.iter();
        let sentences = hops.flat_map(|hop| hop["kernel"].as_array().into_iter().flatten());
        let sentences: Vec<&str> = sentences.filter_map(Value::as_str).collect();
        sentences.join("\n")
    }
}

pub(crate) fn explain(agent: &Agent, arguments: &[&str]) -> Result<Explained> {
    let arguments = [&["explain"], arguments, &["--output", "json"]].concat();
    let out = agent.ask(&arguments)?;
    ensure!(
        matches!(out.code, Some(0 | 1)),
        "{arguments:?}: {}{}",
        out.stdout,
        out.stderr
    );
    let hops: Vec<Value> = serde_json::from_str(&out.stdout)
        .with_context(|| format!("{arguments:?}: {}{}", out.stdout, out.stderr))?;
    Ok(Explained {
        hops,
        good: out.success,
    })
}

/// Runs a command line on a node.
pub(crate) fn within(node: &str, command: &str) -> Result<()> {
    run::checked(inside(node, command))?;
    Ok(())
}

/// Puts rules into a node's packet filter.
pub(crate) fn nft(node: &str, rules: &str) -> Result<()> {
    let node = format!("--net=/run/netns/{node}");
    run::checked(["nsenter", &node, "nft", rules].map(str::to_owned))?;
    Ok(())
}

/// A lab in which everybody knows everybody.
pub(crate) fn lab(name: &str, over: Families) -> Result<Guard> {
    let shape = Shape::usual(name, Scenario::Overlay)?.speaking(over, Families::Both)?;
    let guard = Guard::up(shape)?;
    // Neighbours are known from here on.
    check::all_pairs_are_well(guard.topology())?;
    Ok(guard)
}
