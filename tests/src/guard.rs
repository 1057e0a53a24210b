//! A lab for the length of a test.

use std::path::{Path, PathBuf};

use crate::{
    agent::Agent,
    check::{self, Answer},
    config::Config,
    error::Result,
    lab, poll, run, scenario,
    script::Script,
    shape::{Scenario, Shape},
    state,
    topology::{Node, Topology},
};

/// A lab that goes when the value goes, also when a test panics.
#[derive(Debug)]
pub struct Guard {
    topology: Topology,
    agent: PathBuf,
}

impl Guard {
    /// Asserts that nothing is left to be done on a node, and that the first node's first
    /// container reaches the second's through both nodes.
    ///
    /// # Panics
    /// When that does not come to pass.
    pub fn is_whole(&self, agent: &Agent, after: &str) -> Result<()> {
        let nodes = &self.topology.nodes;
        let (from, to) = (&nodes[0].containers[0], &nodes[1].containers[0]);
        let whole =
            poll::until_well(
                || match (agent.plan(), check::ping(&from.namespace, to.address)) {
                    (Ok(plan), Ok(Answer::Ttl(62))) if plan.is_empty() => None,
                    other => Some(format!("{other:?}")),
                },
            );
        assert_eq!(whole, Ok(()), "after {after}\n{}", agent.log()?);
        Ok(())
    }

    /// Raises a lab with the agent's usual program.
    pub fn up(shape: Shape) -> Result<Self> {
        Self::by(shape, scenario::up)
    }

    /// [`Self::up`], with this program of the agent.
    pub fn with_agent(shape: Shape, agent: &Path) -> Result<Self> {
        let mut guard = Self::holding(shape);
        agent.clone_into(&mut guard.agent);
        guard.raised(scenario::up)
    }

    /// Raises nodes that reach each other, and nothing else; [`Self::finish`] does the rest.
    pub fn underlay(shape: Shape) -> Result<Self> {
        Self::by(shape, |topology, _| scenario::underlay(topology))
    }

    /// [`Self::underlay`], for agents of this program.
    pub fn underlay_for(shape: Shape, agent: &Path) -> Result<Self> {
        let mut guard = Self::holding(shape);
        agent.clone_into(&mut guard.agent);
        guard.raised(|topology, _| scenario::underlay(topology))
    }

    /// Two nodes with two containers each: the lab of most tests.
    pub fn overlay(name: &str) -> Result<Self> {
        Self::up(Shape::usual(name, Scenario::Overlay)?)
    }

    /// Two nodes with one container each.
    pub fn pair(name: &str) -> Result<Self> {
        Self::up(Shape::of(name, Scenario::Overlay, 2, 1)?)
    }

    /// Raises a lab by a script of the test's own, made of the scenario's.
    pub fn by(shape: Shape, script: impl FnOnce(&Topology, &Path) -> Script) -> Result<Self> {
        Self::holding(shape).raised(script)
    }

    /// Raises a lab whose agents have other configurations than the scenario's.
    pub fn configured(shape: Shape, change: impl Fn(&Node, &mut Config)) -> Result<Self> {
        Self::by(shape, |topology, agent| {
            let mut script = scenario::up(topology, agent);
            for node in &topology.nodes {
                let mut config = scenario::agents::config(topology, node);
                change(node, &mut config);
                let file = state::config_file(&topology.shape.name, &node.namespace);
                script.rewrite(&file, &config.to_toml());
            }
            script
        })
    }

    /// Raises nothing, but takes down what the test itself will have raised.
    pub fn holding(shape: Shape) -> Self {
        Self {
            agent: lab::agent_program(),
            topology: Topology::new(shape),
        }
    }

    fn raised(self, script: impl FnOnce(&Topology, &Path) -> Script) -> Result<Self> {
        let script = script(&self.topology, &self.agent);
        // A test that was killed may have left one.
        lab::down(&self.topology.shape.name, &mut |_| {})?;
        lab::raise(&self.topology, &self.agent, &script, &mut |_| {})?;
        Ok(self)
    }

    /// Does what [`Self::underlay`] left out.
    pub fn finish(&self) -> Result<()> {
        let script = scenario::containers(&self.topology, &self.agent);
        run::script(&self.topology.shape.name, &script, &mut |_| {})
    }

    /// The first node's configuration as the lab writes it.
    pub fn first_config(&self) -> Config {
        scenario::agents::config(&self.topology, &self.topology.nodes[0])
    }

    /// The lab that was raised.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// The agent of a node, counted from 1, whether it runs or not.
    pub fn agent(&self, node: u8) -> Agent {
        Agent::new(
            &self.topology.shape.name,
            &self.agent,
            self.topology.shape.name.node(node),
        )
    }

    /// The agents of all nodes that have one.
    pub fn agents(&self) -> Vec<Agent> {
        let instances = self.topology.instances();
        let name = &self.topology.shape.name;
        instances
            .map(|instance| Agent::new(name, &self.agent, instance.to_owned()))
            .collect()
    }

    /// Attaches or detaches the programs of all nodes.
    pub fn fastpath(&self, on: bool) -> Result<()> {
        let mut agents = self.agents().into_iter();
        agents.try_for_each(|agent| agent.fastpath(on))
    }

    /// Takes the lab down and says whether that worked.
    pub fn down(self) -> Result<()> {
        lab::down(&self.topology.shape.name, &mut |_| {}).map(drop)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Err(error) = lab::down(&self.topology.shape.name, &mut |_| {}) {
            // A destructor has nobody to return it to; panicking here would hide the test's own.
            eprintln!(
                "lab {} was not taken down: {error}",
                self.topology.shape.name
            );
        }
    }
}
