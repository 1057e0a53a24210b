//! A node on which an agent is killed, and what it consists of.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result, ensure};
use overlay_tests::{
    agent::Agent,
    config::{Config, Endpoint},
    guard::Guard,
    lab, run,
    shape::{Scenario, Shape},
    snapshot::Snapshot,
};
use serde_json::Value;

/// Ends the agent after so many steps.
pub(crate) const ABORT: &str = "OVERLAY_ABORT_AFTER_STEP";
/// More than any plan here has.
pub(crate) const MOST_STEPS: u32 = 300;

/// A node with an underlay, on which the test does what the agent is about.
pub(crate) struct Stand {
    pub(crate) guard: Guard,
    pub(crate) agent: Agent,
    /// Namespaces that the agent makes.
    pub(crate) containers: Vec<String>,
}

/// What an instance consists of.
#[derive(Debug, PartialEq)]
pub(crate) struct State {
    pub(crate) node: Snapshot,
    /// Addresses and routes inside.
    pub(crate) containers: BTreeMap<String, String>,
    pub(crate) addresses: BTreeMap<String, String>,
}

impl Stand {
    pub(crate) fn raise(name: &str, containers: &[&str]) -> Result<Self> {
        let guard = Guard::underlay(Shape::usual(name, Scenario::Overlay)?)?;
        let agent = guard.agent(1);
        let containers = containers
            .iter()
            .map(|container| format!("{name}-{container}"));
        Ok(Self {
            guard,
            agent,
            containers: containers.collect(),
        })
    }

    /// The lab's configuration of the first node, with endpoints of this test's.
    pub(crate) fn config(&self, endpoints: &[&String]) -> Config {
        let mut config = self.guard.first_config();
        let endpoint = |name: &&String| Endpoint {
            name: (*name).clone(),
            network: config.networks[0].name.clone(),
            netns: Some((*name).clone()),
            ..Endpoint::default()
        };
        config.endpoints = endpoints.iter().map(endpoint).collect();
        config
    }

    pub(crate) fn write(&self, config: &Config) -> Result<()> {
        Ok(fs::write(self.agent.config_file(), config.to_toml())?)
    }

    /// The state of an agent that is well and has nothing to do.
    pub(crate) fn state(&self) -> Result<State> {
        let plan = self.agent.plan()?;
        ensure!(plan.is_empty(), "{plan:?}\n{}", self.agent.log()?);
        let there = self.containers.iter().filter(|name| is_there(name));
        Ok(State {
            node: Snapshot::of(&self.agent.instance)?.anonymous(),
            containers: there
                .map(|name| Ok((name.clone(), inside_of(name)?)))
                .collect::<Result<_>>()?,
            addresses: addresses(&self.agent)?,
        })
    }

    /// Starts the agent so that it ends after some steps, and again if it did; whether it did.
    pub(crate) fn crash_and_start(&self, step: u32) -> Result<bool> {
        let dying = self.agent.with(ABORT, step);
        if dying.try_start()? && lives_on(&dying)? {
            return Ok(false);
        }
        self.agent
            .start()
            .with_context(|| format!("after step {step}"))?;
        Ok(true)
    }

    /// Ends an agent that may still be about to end at a step, and leaves nothing.
    pub(crate) fn end(&self, before: &Snapshot) -> Result<()> {
        self.agent.kill()?;
        self.agent.tell(&["down"])?;
        self.is_blank(before)
    }

    /// Nothing of the agent's is there.
    pub(crate) fn is_blank(&self, before: &Snapshot) -> Result<()> {
        let changes = Snapshot::of(&self.agent.instance)?.changes_since(before);
        ensure!(changes.lines.is_empty(), "left behind:\n{changes}");
        let traces = lab::traces(&self.agent.instance);
        let namespaces = self.containers.iter().filter(|name| is_there(name));
        let left: Vec<_> = traces.iter().filter(|path| path.exists()).collect();
        let namespaces: Vec<_> = namespaces.collect();
        ensure!(left.is_empty(), "left behind: {left:?}");
        ensure!(namespaces.is_empty(), "left behind: {namespaces:?}");
        Ok(())
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        for container in self.containers.iter().filter(|name| is_there(name)) {
            let argv = ["ip", "netns", "del", container].map(str::to_owned);
            if let Err(error) = run::checked(&argv) {
                eprintln!("namespace {container} was not removed: {error}");
            }
        }
    }
}

/// Whether an agent that is well is still so when its disk knows what it remembers, and nothing is
/// left to be done: both take steps, too.
pub(crate) fn lives_on(agent: &Agent) -> Result<bool> {
    /// From the last look at the disk to the end of the step.
    const A_STEP: Duration = Duration::from_millis(50);
    let [_, runtime, disk] = lab::traces(&agent.instance);
    let [journal, disk] = [runtime.join("journal"), disk.join("state.json")];
    let until = Instant::now() + Duration::from_secs(10);
    while let Some(process) = agent.process()? {
        // There is no journal before the first change.
        let noted = last_noted(&journal);
        let written = fs::metadata(&disk).and_then(|file| file.modified());
        let behind = noted.is_some_and(|noted| written.is_ok_and(|written| written < noted));
        // Who containers are, the guard's tables learn in the round after their attachment.
        if !behind && agent.plan().is_ok_and(|plan| plan.is_empty()) {
            return Ok(!process.wait(Instant::now() + A_STEP));
        }
        ensure!(Instant::now() < until, "disk or plan do not follow");
        thread::sleep(Duration::from_millis(1));
    }
    Ok(false)
}

/// The time of the journal's last line that is whole: what the disk gets.
pub(crate) fn last_noted(journal: &Path) -> Option<SystemTime> {
    let text = fs::read_to_string(journal).ok()?;
    let (whole, _) = text.rsplit_once('\n')?;
    let (since, _) = whole.lines().last()?.strip_prefix('[')?.split_once(',')?;
    Some(SystemTime::UNIX_EPOCH + Duration::from_nanos(since.parse().ok()?))
}

/// What the agent has set in a container.
pub(crate) fn inside_of(container: &str) -> Result<String> {
    let address = run::checked(format!(
        "ip -n {container} -oneline address show dev eth0 scope global"
    ))?;
    let routes = run::checked(format!("ip -n {container} route"))?;
    let link = run::checked(format!("ip -n {container} -json link show eth0"))?;
    let link: Value = serde_json::from_str(&link)?;
    let (mac, mtu) = (&link[0]["address"], &link[0]["mtu"]);
    // After the number of the device.
    let address = address.split_once(' ').map_or("", |(_, address)| address);
    Ok(format!("{address}{routes}{mac} {mtu}"))
}

pub(crate) fn is_there(namespace: &str) -> bool {
    Path::new("/run/netns").join(namespace).exists()
}

/// The addresses of all endpoints.
pub(crate) fn addresses(agent: &Agent) -> Result<BTreeMap<String, String>> {
    let status = agent.json(&["status"])?;
    let endpoints = status["endpoints"].as_array().context("no endpoints")?;
    let addresses = endpoints.iter().map(|endpoint| {
        let name = endpoint["name"].as_str().context("no name")?;
        Ok((name.to_owned(), endpoint["addresses"].to_string()))
    });
    addresses.collect()
}

pub(crate) fn same(state: &State, expected: &State, when: &str) {
    let changes = state.node.changes_since(&expected.node);
    assert_eq!(changes.lines, Vec::<String>::new(), "{when}");
    assert_eq!(state.addresses, expected.addresses, "{when}");
    assert_eq!(state.containers, expected.containers, "{when}");
}
