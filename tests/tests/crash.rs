//! The agent is killed at every step of what it does, and started again: it comes to the same
//! state as if it had never been killed, and nothing is left behind.

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
    config::{Config, Endpoint, Network},
    counters,
    guard::Guard,
    lab, run,
    script::words,
    shape::{Scenario, Shape},
    snapshot::Snapshot,
};
use serde_json::Value;

/// Ends the agent after so many steps.
const ABORT: &str = "OVERLAY_ABORT_AFTER_STEP";
/// More than any plan here has.
const MOST_STEPS: u32 = 300;

/// A node with an underlay, on which the test does what the agent is about.
struct Stand {
    guard: Guard,
    agent: Agent,
    /// Namespaces that the agent makes.
    containers: Vec<String>,
}

/// What an instance consists of.
#[derive(Debug, PartialEq)]
struct State {
    node: Snapshot,
    /// Addresses and routes inside.
    containers: BTreeMap<String, String>,
    addresses: BTreeMap<String, String>,
}

impl Stand {
    fn raise(name: &str, containers: &[&str]) -> Result<Self> {
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
    fn config(&self, endpoints: &[&String]) -> Config {
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

    fn write(&self, config: &Config) -> Result<()> {
        Ok(fs::write(self.agent.config_file(), config.to_toml())?)
    }

    /// The state of an agent that is well and has nothing to do.
    fn state(&self) -> Result<State> {
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
    fn crash_and_start(&self, step: u32) -> Result<bool> {
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
    fn end(&self, before: &Snapshot) -> Result<()> {
        self.agent.kill()?;
        self.agent.tell(&["down"])?;
        self.is_blank(before)
    }

    /// Nothing of the agent's is there.
    fn is_blank(&self, before: &Snapshot) -> Result<()> {
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
fn lives_on(agent: &Agent) -> Result<bool> {
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
fn last_noted(journal: &Path) -> Option<SystemTime> {
    let text = fs::read_to_string(journal).ok()?;
    let (whole, _) = text.rsplit_once('\n')?;
    let (since, _) = whole.lines().last()?.strip_prefix('[')?.split_once(',')?;
    Some(SystemTime::UNIX_EPOCH + Duration::from_nanos(since.parse().ok()?))
}

/// What the agent has set in a container.
fn inside_of(container: &str) -> Result<String> {
    let address = run::checked(&words(format!(
        "ip -n {container} -oneline address show dev eth0 scope global"
    )))?;
    let routes = run::checked(&words(format!("ip -n {container} route")))?;
    let link = run::checked(&words(format!("ip -n {container} -json link show eth0")))?;
    let link: Value = serde_json::from_str(&link)?;
    let (mac, mtu) = (&link[0]["address"], &link[0]["mtu"]);
    // After the number of the device.
    let address = address.split_once(' ').map_or("", |(_, address)| address);
    Ok(format!("{address}{routes}{mac} {mtu}"))
}

fn is_there(namespace: &str) -> bool {
    Path::new("/run/netns").join(namespace).exists()
}

/// The addresses of all endpoints.
fn addresses(agent: &Agent) -> Result<BTreeMap<String, String>> {
    let status = agent.json(&["status"])?;
    let endpoints = status["endpoints"].as_array().context("no endpoints")?;
    let addresses = endpoints.iter().map(|endpoint| {
        let name = endpoint["name"].as_str().context("no name")?;
        Ok((name.to_owned(), endpoint["addresses"].to_string()))
    });
    addresses.collect()
}

fn same(state: &State, expected: &State, when: &str) {
    let changes = state.node.changes_since(&expected.node);
    assert_eq!(changes.lines, Vec::<String>::new(), "{when}");
    assert_eq!(state.addresses, expected.addresses, "{when}");
    assert_eq!(state.containers, expected.containers, "{when}");
}

#[test]
fn the_first_start_and_the_removal() -> Result<()> {
    let stand = Stand::raise("tcstart", &["web"])?;
    let (agent, before) = (&stand.agent, Snapshot::of(&stand.agent.instance)?);
    stand.write(&stand.config(&[&stand.containers[0]]))?;
    agent.start()?;
    let expected = stand.state()?;
    agent.tell(&["down"])?;
    stand.is_blank(&before)?;
    for step in 1..MOST_STEPS {
        let started = stand.crash_and_start(step)?;
        same(
            &stand.state()?,
            &expected,
            &format!("killed after step {step}"),
        );
        agent.kill()?;
        // By a process of its own, which is killed, too.
        let mut last = agent.with(ABORT, step).ask(&["down"])?;
        let removed = last.success;
        if !removed {
            last = agent.ask(&["down"])?;
        }
        stand
            .is_blank(&before)
            .with_context(|| format!("down, killed after step {step}: {}", last.stderr))?;
        if !started && removed {
            println!("start and down take less than {step} steps");
            return Ok(());
        }
    }
    anyhow::bail!("there is no end to it");
}

#[test]
fn a_change() -> Result<()> {
    let stand = Stand::raise("tcchange", &["a", "b", "c", "d"])?;
    let (agent, names) = (&stand.agent, &stand.containers);
    let before = Snapshot::of(&agent.instance)?;
    // From one to the other: a peer moves, `a` and `c` come and go, a network goes and comes.
    let mut one = stand.config(&[&names[1], &names[2]]);
    one.networks.push(Network {
        name: "other".to_owned(),
        vni: 2,
        port: one.networks[0].port,
        cidr: vec!["10.245.0.0/16".to_owned()],
        subnet: vec!["10.245.1.0/24".to_owned()],
        ..Network::default()
    });
    one.endpoints.push(Endpoint {
        name: names[3].clone(),
        network: "other".to_owned(),
        netns: Some(names[3].clone()),
        ..Endpoint::default()
    });
    let mut other = stand.config(&[&names[0], &names[1]]);
    "192.168.56.77".clone_into(&mut other.networks[0].peers[0].vtep);

    stand.write(&one)?;
    agent.start()?;
    let kept = addresses(agent)?[&names[1]].clone();
    let mut expected = Vec::new();
    for config in [&other, &one] {
        agent.kill()?;
        stand.write(config)?;
        agent.start()?;
        let state = stand.state()?;
        assert_eq!(state.addresses[&names[1]], kept);
        expected.push((config, state));
    }
    for step in 1..MOST_STEPS {
        let mut died = false;
        for (config, expected) in &expected {
            agent.kill()?;
            stand.write(config)?;
            died |= stand.crash_and_start(step)?;
            same(
                &stand.state()?,
                expected,
                &format!("killed after step {step}"),
            );
        }
        if !died {
            println!("a change takes less than {step} steps");
            return stand.end(&before);
        }
    }
    anyhow::bail!("there is no end to it");
}

#[test]
fn an_upgrade_that_the_old_build_takes_back() -> Result<()> {
    let stand = Stand::raise("tcabi", &["web"])?;
    let (old, before) = (&stand.agent, Snapshot::of(&stand.agent.instance)?);
    let new = old.with("OVERLAY_ABI", overlay_common::ABI + 1);
    stand.write(&stand.config(&[&stand.containers[0]]))?;
    old.start()?;
    let expected = stand.state()?;
    let [pins, ..] = lab::traces(&old.instance);
    let pinned = counters::pins(&pins)?;
    for step in 1..MOST_STEPS {
        old.kill()?;
        let dying = new.with(ABORT, step);
        let survived = dying.try_start()? && lives_on(&dying)?;
        new.kill()?;
        old.start()?;
        let when = format!("killed after step {step}");
        same(&stand.state()?, &expected, &when);
        assert_eq!(counters::pins(&pins)?, pinned, "{when}");
        if survived {
            println!("an upgrade takes less than {step} steps");
            return stand.end(&before);
        }
    }
    anyhow::bail!("there is no end to it");
}

#[test]
fn an_endpoint_of_the_api_s() -> Result<()> {
    let stand = Stand::raise("tcapi", &["web", "job"])?;
    let (agent, web, job) = (&stand.agent, &stand.containers[0], &stand.containers[1]);
    let before = Snapshot::of(&agent.instance)?;
    stand.write(&stand.config(&[web]))?;
    agent.start()?;
    let without = stand.state()?;
    // It is over when the agent has died.
    let wait = ["--wait", "0"];
    let add = ["endpoint", "add", job, "--network", "lab", "--netns", job];
    let add = [&add[..], &wait].concat();
    agent.tell(&add)?;
    assert!(lives_on(agent)?);
    let with = stand.state()?;
    let del = [&["endpoint", "del", job][..], &wait].concat();
    agent.tell(&del)?;
    assert!(lives_on(agent)?);
    let mut crashes = 0;
    for step in 1..MOST_STEPS {
        agent.kill()?;
        if stand.crash_and_start(step)? {
            continue;
        }
        let mut died = false;
        for (command, done) in [(&add[..], &with), (&del[..], &without)] {
            let when = format!("{command:?}, killed after step {step}");
            let process = agent.process()?.context("no agent")?;
            let answer = agent.ask(command)?;
            if answer.success && lives_on(agent)? {
                same(&stand.state()?, done, &when);
                continue;
            }
            let dead = process.wait(Instant::now() + Duration::from_secs(10));
            assert!(
                dead,
                "{when}: not dead, but {}\n{}",
                answer.stderr,
                agent.log()?
            );
            died = true;
            agent.start()?;
            let state = stand.state()?;
            // It is deleted as soon as that is written down, and not before; what was answered is
            // done, and what was not promised to anybody is not there.
            let is_there = state.addresses.contains_key(job);
            if answer.success {
                assert_eq!(is_there, done.addresses.contains_key(job), "{when}");
            } else if command == add {
                assert!(!is_there, "{when}");
            }
            same(&state, if is_there { &with } else { &without }, &when);
            if is_there {
                agent.tell(&del)?;
                assert!(lives_on(agent)?);
            }
            break;
        }
        if !died {
            assert!(crashes > 0, "it was never killed");
            return stand.end(&before);
        }
        crashes += 1;
    }
    anyhow::bail!("there is no end to it");
}

#[test]
fn a_state_file_that_is_not_whole_is_refused_and_kept() -> Result<()> {
    let stand = Stand::raise("tctorn", &["web"])?;
    let agent = &stand.agent;
    stand.write(&stand.config(&[&stand.containers[0]]))?;
    agent.start()?;
    let expected = stand.state()?;
    agent.kill()?;
    let [_, _, folder] = lab::traces(&agent.instance);
    let path = folder.join("state.json");
    let whole = fs::read(&path)?;
    let foreign = br#"{ "format": 2, "instance": "somebody", "config": "/etc/x.toml" }"#;
    for torn in [&whole[..whole.len() / 2], b"", foreign] {
        fs::write(&path, torn)?;
        let config = agent.config_file().to_string_lossy().into_owned();
        for command in [
            &["run", "--config", &config, "--netns", &agent.instance][..],
            &["down"],
        ] {
            let out = agent.ask(command)?;
            assert_eq!(out.code, Some(2), "{command:?}: {}", out.stderr);
            for part in [&*path.to_string_lossy(), "move it away"] {
                assert!(out.stderr.contains(part), "{command:?}: {}", out.stderr);
            }
        }
        assert_eq!(fs::read(&path)?, torn);
    }
    fs::write(&path, whole)?;
    agent.start()?;
    same(&stand.state()?, &expected, "with the file back");
    Ok(agent.tell(&["down"]).map(drop)?)
}
