//! A lab whose agents' maps hold little.

use std::{fs, net::IpAddr, os::unix::fs::PermissionsExt as _};

use anyhow::Result;
use overlay_tests::{
    agent::Agent,
    check::{self, Answer},
    config::Config,
    counters::{self, Carried},
    families::Families,
    guard::Guard,
    lab, poll, scenario,
    shape::{Scenario, Shape},
};
use tempfile::TempDir;

pub(crate) struct Stand {
    pub(crate) guard: Guard,
    /// The first node's.
    pub(crate) agent: Agent,
    _program: TempDir,
}

impl Stand {
    /// Two nodes that speak `families` on the underlay and inside, whose maps have so many
    /// `entries`, as `PEERS4=1,VTEPS4=1`.
    pub(crate) fn raise(
        name: &str,
        (underlay, inside): (Families, Families),
        containers: u8,
        entries: &str,
    ) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let program = folder.path().join("overlay-agent");
        let script = format!(
            "#!/bin/sh\nOVERLAY_MAP_ENTRIES={entries} exec {} \"$@\"\n",
            lab::agent_program().display()
        );
        fs::write(&program, script)?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
        let shape = Shape::of(name, Scenario::Overlay, 2, containers)?;
        let guard = Guard::with_agent(shape.speaking(underlay, inside)?, &program)?;
        Ok(Self {
            agent: guard.agent(1),
            guard,
            _program: folder,
        })
    }

    /// The name of a namespace that the lab does not have.
    pub(crate) fn other(&self, name: &str) -> String {
        format!("{}-{name}", self.guard.topology().shape.name)
    }

    /// A node's configuration as the lab has written it.
    pub(crate) fn usual(&self, node: u8) -> Config {
        let topology = self.guard.topology();
        scenario::agents::config(topology, &topology.nodes[usize::from(node) - 1])
    }

    pub(crate) fn configure(&self, node: u8, config: &Config) -> Result<()> {
        Ok(fs::write(
            self.guard.agent(node).config_file(),
            config.to_toml(),
        )?)
    }

    /// Waits until a node is as well as it is said to be, and tells that problem.
    pub(crate) fn tells(&self, node: u8, healthy: bool, problem: &str) -> Result<()> {
        let agent = self.guard.agent(node);
        let told = poll::until_well(|| match agent.json(&["status"]) {
            Ok(status) => {
                let problems = status["problems"].to_string();
                let right = status["healthy"] == healthy && problems.contains(problem);
                (!right).then(|| status.to_string())
            }
            Err(error) => Some(error.to_string()),
        });
        assert_eq!(told, Ok(()), "{}", agent.log()?);
        assert_eq!(agent.ask(&["status"])?.code, Some(i32::from(!healthy)));
        Ok(())
    }

    /// What the programs of the first node carry while something is done.
    pub(crate) fn carries(&self, work: impl FnOnce() -> Result<()>) -> Result<Carried> {
        let before = counters::carried(&self.agent.instance)?;
        work()?;
        Ok(counters::carried(&self.agent.instance)? - before)
    }

    /// Asserts that two reach each other, as over so many routers.
    pub(crate) fn meet(
        &self,
        (one, at_one): (&str, IpAddr),
        (other, at_other): (&str, IpAddr),
        routers: u8,
    ) -> Result<()> {
        for (from, to) in [(one, at_other), (other, at_one)] {
            let answer = check::ping(from, to)?;
            let log = self.agent.log()?;
            assert_eq!(answer, Answer::Ttl(64 - routers), "{from} → {to}\n{log}");
        }
        Ok(())
    }
}
