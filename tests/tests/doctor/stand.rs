//! Three nodes at a switch, one of which is examined.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use overlay_tests::{
    agent::Agent,
    config::Config,
    guard::Guard,
    poll, run,
    script::{Step, inside, words},
    shape::{Scenario, Shape},
    topology::{Node, Topology},
};
use serde_json::Value;

/// Seconds for which counters are watched; where that is too short on a busy machine, it is done
/// again.
pub(crate) const SAMPLE: &str = "0.3";

pub(crate) struct Stand {
    pub(crate) guard: Guard,
    pub(crate) agent: Agent,
}

impl Stand {
    pub(crate) fn raise(name: &str) -> Result<Self> {
        Self::of(Guard::up(shape(name)?)?)
    }

    /// Agents that probe each other.
    pub(crate) fn probing(name: &str) -> Result<Self> {
        let probe = |_: &Node, config: &mut Config| config.node.probe = Some("200ms");
        Self::of(Guard::configured(shape(name)?, probe)?)
    }

    pub(crate) fn of(guard: Guard) -> Result<Self> {
        answer_always(guard.topology())?;
        let agent = guard.agent(1);
        let stand = Self { guard, agent };
        stand.is_healthy("the start")?;
        Ok(stand)
    }

    /// What the agent's `doctor` says.
    pub(crate) fn whole_diagnosis(&self) -> Result<Value> {
        Ok(self.agent.json(&["doctor", "--sample", SAMPLE])?)
    }

    /// What it says of the node.
    pub(crate) fn diagnosis(&self) -> Result<Value> {
        self.whole_diagnosis().map(of_the_node)
    }

    /// Waits until it has nothing to say.
    pub(crate) fn is_told_to_be_well(&self) {
        let node = &self.agent.instance;
        let told = poll::until_well(|| match self.agent.ask(&["doctor", "--verbose"]) {
            Ok(out) => {
                let passed = out
                    .stdout
                    .lines()
                    .filter(|line| line.starts_with("not found: "));
                let last = format!("node {node}: 0 findings, {} checks passed", passed.count());
                // That is the machine's, and others may use it just now.
                let is_machine = out.stdout.contains("[bpf-stats-on]");
                let well = is_machine || (out.success && out.stdout.contains(&last));
                (!well).then(|| out.stdout.clone())
            }
            Err(error) => Some(error.to_string()),
        });
        assert_eq!(told, Ok(()));
    }

    /// What `doctor` says without an agent.
    pub(crate) fn diagnosis_alone(&self) -> Result<Value> {
        diagnosis_by(&alone(&self.agent))
    }

    /// Waits until nothing is found any more.
    pub(crate) fn is_healthy(&self, after: &str) -> Result<()> {
        self.is_well(after, || self.diagnosis())
    }

    pub(crate) fn is_well(&self, after: &str, ask: impl Fn() -> Result<Value>) -> Result<()> {
        let well = poll::until_well(|| match ask() {
            Ok(diagnosis) if diagnosis["findings"] == Value::Array(Vec::new()) => None,
            Ok(diagnosis) => Some(format!("{:#}", diagnosis["findings"])),
            Err(error) => Some(format!("{error:#}")),
        });
        assert_eq!(well, Ok(()), "after {after}\n{}", self.agent.log()?);
        Ok(())
    }

    /// Starts the node's agent by a command line, whatever becomes of it.
    pub(crate) fn start_by(&self, argv: Vec<String>) -> Result<()> {
        let start = Step::Start {
            task: self.agent.instance.clone(),
            argv,
            log: self.agent.log_file(),
        };
        Ok(run::run_step(&self.guard.topology().shape.name, &start)?)
    }

    /// A namespace of the lab by its short name: `n1`, `n1c1`, `net`.
    pub(crate) fn namespace(&self, short: &str) -> String {
        format!("{}-{short}", self.guard.topology().shape.name)
    }

    /// Runs a command, as a shell reads it, in a namespace.
    pub(crate) fn within(&self, short: &str, command: &str) -> Result<String> {
        let mut argv = words(inside(&self.namespace(short), "sh -c"));
        argv.push(command.to_owned());
        run::checked(&argv).with_context(|| format!("in {short}: {command}"))
    }
}

fn shape(name: &str) -> Result<Shape> {
    let name = name.parse()?;
    Ok(Shape::new(name, Scenario::Overlay, Some(3), Some(1))?)
}

/// The command line of a `doctor` that asks no agent.
pub(crate) fn alone(agent: &Agent) -> Vec<String> {
    let config = agent.config_file();
    let node = &agent.instance;
    let config = config.to_string_lossy();
    let what = ["doctor", "--sample", SAMPLE, "--output", "json"];
    let whom = ["--config", &config, "--netns", node, "--instance", node];
    agent.argv(&[&what[..], &whom].concat())
}

/// The command line of the daemon.
pub(crate) fn run_of(agent: &Agent) -> Vec<String> {
    let config = agent.config_file();
    let config = config.to_string_lossy();
    agent.argv(&["run", "--config", &config, "--netns", &agent.instance])
}

/// What a command line of it says of the node.
pub(crate) fn diagnosis_by(argv: &[String]) -> Result<Value> {
    let out = run::output(argv)?;
    let diagnosis = serde_json::from_str(&out.stdout);
    let diagnosis = diagnosis.with_context(|| format!("{argv:?}: {}{}", out.stdout, out.stderr))?;
    Ok(of_the_node(diagnosis))
}

/// Without what somebody else on this machine may have set just now, and is no node's.
pub(crate) fn of_the_node(mut diagnosis: Value) -> Value {
    let findings = diagnosis.get_mut("findings");
    if let Some(findings) = findings.and_then(Value::as_array_mut) {
        findings.retain(|finding| finding["check"] != "bpf-stats-on");
    }
    diagnosis
}

/// A node tells a few times a second only that nobody listens; here it is asked more often.
fn answer_always(topology: &Topology) -> Result<()> {
    for node in &topology.nodes {
        for setting in ["net.ipv4.icmp_ratelimit=0", "net.ipv6.icmp.ratelimit=0"] {
            let line = format!("sysctl -qw {setting}");
            run::checked(inside(&node.namespace, line))?;
        }
    }
    Ok(())
}

/// Gives an agent another configuration until it is put back.
pub(crate) fn reconfigured(
    agent: &Agent,
    from: &str,
    to: &str,
) -> Result<impl Fn() -> Result<()> + use<>> {
    let file = agent.config_file();
    let good = fs::read_to_string(&file)?;
    let other = good.replacen(from, to, 1);
    ensure!(other != good, "no {from:?} in {good}");
    fs::write(&file, other)?;
    Ok(move || Ok(fs::write(&file, &good)?))
}
