//! A thousand ADDs and DELs, twenty a second, with plugins, agents and namespaces that end at any
//! moment: nothing of them is left.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread::{self, ScopedJoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use overlay_common::maps;
use overlay_tests::{agent::Agent, guard::Guard, netns::Temporary, poll, run};
use serde_json::Value;

use crate::{attachments, ip, nothing_is_left, plugin::Cni, tell, veths};

const CONTAINERS: usize = 500;
/// Ten come and ten go in a second.
const PACE: Duration = Duration::from_millis(100);
/// As many runtimes as ask at a time.
const WORKERS: usize = 8;
/// The agent is killed when so many more have come.
const KILLED_AFTER: usize = 60;

/// All that containers could leave on a node.
#[derive(Debug, PartialEq, Eq)]
struct Traces {
    veths: usize,
    rows: usize,
    ports: usize,
    rules: String,
    neighbours: usize,
    routes: String,
}

impl Traces {
    fn of(agent: &Agent) -> Result<Self> {
        let node = &agent.instance;
        let count = |value: Value| value.as_array().map_or(0, Vec::len);
        // nft numbers its objects anew with each change; without --handle it does not tell.
        let rules = tell(node, "nft --stateless list ruleset")?;
        Ok(Self {
            veths: veths(agent)?,
            rows: rows(node, maps::ENDPOINTS4)?,
            ports: rows(node, maps::PORTS)?,
            neighbours: count(ip(node, "neigh show nud permanent")?),
            routes: ip(node, "-4 route show table all")?.to_string(),
            rules,
        })
    }
}

/// The rows of a map of the instance.
fn rows(instance: &str, map: &str) -> Result<usize> {
    let pins = Path::new("/sys/fs/bpf/overlay").join(instance);
    let layout = fs::read_dir(&pins)?
        .filter_map(|entry| Some(entry.ok()?.path().join(map)))
        .find(|pin| pin.exists())
        .with_context(|| format!("no map {map} below {}", pins.display()))?;
    let dump = run::json(format!("bpftool -j map dump pinned {}", layout.display()))?;
    Ok(dump.as_array().context("no rows")?.len())
}

/// What a runtime does with one container; it says how often it was told to try again.
fn live_and_die(worker: usize, number: usize) -> Result<usize> {
    let (place, id) = (format!("tcnm-w{worker}"), format!("{}-{number}", crate::ID));
    let namespace = Temporary::make(&place)?;
    let cni = Cni::new("tcnm-n1", &id, &place);
    // Some plugins are killed at some moment, as kubelets do that have waited long enough.
    if number.is_multiple_of(5) {
        let mut plugin = cni.start("ADD")?;
        thread::sleep(Duration::from_millis(number as u64 % 13));
        plugin.kill()?;
        plugin.wait()?;
    }
    let mut again = 0;
    if !number.is_multiple_of(10) {
        poll::until_well(|| match cni.run("ADD") {
            Ok(said) if said.success => None,
            Ok(said) if said.code().is_ok_and(|code| code == 11) => {
                again += 1;
                Some(said.stdout)
            }
            // Not to be tried again: it fails at once, and says what was said.
            other => panic!("ADD of {id}: {other:?}"),
        })
        .map_err(anyhow::Error::msg)?;
        let link = ip(&place, "link show dev eth0")?;
        ensure!(link[0]["operstate"] == "UP", "{id}: {link}");
    }
    // Some namespaces are gone before their DEL, and for some there is no DEL at all.
    match number % 7 {
        0 => {
            drop(namespace);
            cni.setting("CNI_NETNS", "").run("DEL")?.well()?;
        }
        1 => drop(namespace),
        _ => {
            cni.run("DEL")?.well()?;
            drop(namespace);
        }
    }
    Ok(again)
}

#[test]
fn a_thousand_calls_while_the_agent_is_killed_leave_nothing() -> Result<()> {
    let guard = Guard::pair("tcnm")?;
    let agent = guard.agent(1);
    let before = Traces::of(&agent)?;
    let (next, done, again) = (
        AtomicUsize::new(0),
        AtomicBool::new(false),
        AtomicUsize::new(0),
    );
    let began = Instant::now();
    let work = |worker: usize| -> Result<()> {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= CONTAINERS {
                return Ok(());
            }
            let due = PACE * u32::try_from(number)?;
            thread::sleep(due.saturating_sub(began.elapsed()));
            again.fetch_add(live_and_die(worker, number)?, Ordering::Relaxed);
        }
    };
    let work = &work;
    let deaths = thread::scope(|scope| -> Result<usize> {
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| scope.spawn(move || work(worker)))
            .collect();
        let killer = scope.spawn(|| -> Result<usize> {
            let mut killed = 0;
            while !done.load(Ordering::Relaxed) {
                if next.load(Ordering::Relaxed) >= KILLED_AFTER * (killed + 1) {
                    agent.kill()?;
                    agent.start()?;
                    killed += 1;
                }
                thread::sleep(PACE);
            }
            Ok(killed)
        });
        let ended: Vec<_> = workers.into_iter().map(ScopedJoinHandle::join).collect();
        done.store(true, Ordering::Relaxed);
        let count = killer.join();
        for worker in ended {
            worker.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        count.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    ensure!(deaths >= 3, "the agent was killed {deaths} times");
    eprintln!(
        "{CONTAINERS} containers in {:?}; the agent was killed {deaths} times, {} ADDs were tried again",
        began.elapsed(),
        again.load(Ordering::Relaxed)
    );
    poll::until(|| attachments(&agent), Vec::is_empty)?;
    nothing_is_left(&agent, before.veths)?;
    ensure!(
        Traces::of(&agent)? == before,
        "{:?} was {before:?}",
        Traces::of(&agent)?
    );
    let spool = Path::new("/run/overlay/tcnm-n1/detach");
    ensure!(!spool.exists() || spool.read_dir()?.next().is_none());
    // Its addresses are free: neither the agent nor its state file knows of any of them.
    agent.stop()?;
    for entry in fs::read_dir("/var/lib/overlay/tcnm-n1")? {
        let path = entry?.path();
        let text = fs::read_to_string(&path)?;
        ensure!(!text.contains(crate::ID), "{} has: {text}", path.display());
    }
    agent.start()?;
    ensure!(attachments(&agent)?.is_empty());
    Ok(())
}
