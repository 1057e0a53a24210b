//! What it takes to give a container a network by CNI: `overlay-cni` and its agent beside the bridge
//! plugin with host-local.
//!
//! Each subject has a node of its own, and they take turns: some containers of one, one after another,
//! then of the next; and as many again at a time. Where a container goes to is a namespace that was
//! there before.

mod call;
mod report;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use overlay_tests::run;
use serde::Serialize;

use super::{
    interrupt,
    scale::{Node, config},
};
use crate::{console::Console, setup::clients};
use call::{Kind, Plugin};

/// The name of the node whose agent attaches its programs by TCX, in its configuration,
const BY_TCX: &str = "bench-scale";
/// and of the one whose agent does it by clsact.
const BY_CLSACT: &str = "bench-clsact";
/// Peers that an agent has.
const PEERS: u32 = 10;

/// How much is measured.
#[derive(Clone, Copy, Debug, Serialize)]
struct Options {
    rounds: usize,
    /// Containers of a subject in a round that come one after another.
    single: usize,
    /// Those that come at once.
    together: usize,
    /// Containers that all stay, by which the agent's memory is measured.
    staying: usize,
}

impl Options {
    const FULL: Self = Self {
        rounds: 10,
        single: 10,
        together: 50,
        staying: 500,
    };
    const QUICK: Self = Self {
        rounds: 3,
        single: 5,
        together: 20,
        staying: 100,
    };
}

/// The measurements of one subject.
#[derive(Debug, Default, Serialize)]
struct Figures {
    /// One after another, from the start of the plugin to its end, in milliseconds.
    add_ms: Vec<f64>,
    del_ms: Vec<f64>,
    /// A second, of those that come and go at once: one figure a round.
    adds_a_second: Vec<f64>,
    dels_a_second: Vec<f64>,
}

#[derive(Debug, Serialize)]
struct Memory {
    /// Of the agent, in MiB, without containers and with all that stay.
    before_mib: f64,
    after_mib: f64,
    containers: usize,
    /// Of those that have stayed until nothing was left to do, their programs attached.
    del_ms: Vec<f64>,
}

/// What the plugin's process takes that has nothing to ask its agent (VERSION).
#[derive(Debug, Serialize)]
struct Process {
    /// From its start to its end.
    ms: Vec<f64>,
    /// Resident when it has started.
    resident_kib: u64,
}

/// Measures, and shows what came out.
///
/// # Errors
/// When a node cannot be made, or a plugin does not do what it is asked.
pub(super) fn run(console: Console, agent: &Path, out: &Path, quick: bool) -> Result<()> {
    let options = if quick { Options::QUICK } else { Options::FULL };
    let others = others()?;
    let mut node = Node::make(agent, "auto")?;
    let mut by_clsact = Node::named(BY_CLSACT, agent, "clsact")?;
    for node in [&mut node, &mut by_clsact] {
        let text = config(PEERS, None);
        node.configure(&text.replace(BY_TCX, node.name()))?;
        node.start()?;
        node.settle()?;
    }
    let plugins = Plugin::all(&node, &by_clsact, agent, &others);
    for plugin in &plugins {
        plugin.make_place()?;
    }
    let mut all: BTreeMap<Kind, Figures> = BTreeMap::new();
    let containers = Containers::make(&node, options.together.max(options.single))?;
    for round in 0..options.rounds {
        if interrupt::requested() {
            break;
        }
        console.say(
            "bench",
            format_args!("containers, round {} of {}", round + 1, options.rounds),
        );
        // Another one begins each time, so that none is always behind the slowest.
        let (later, first) = plugins.split_at(round % plugins.len());
        for plugin in first.iter().chain(later) {
            let figures = all.entry(plugin.kind).or_default();
            one_after_another(plugin, &containers, options.single, figures)?;
            together(plugin, &containers, options.together, figures)?;
        }
    }
    drop(containers);
    let ours = plugins.first().context("no plugin of ours")?;
    let memory = memory(&node, ours, options.staying)?;
    let process = process(ours)?;
    for plugin in &plugins {
        plugin.remove_place()?;
    }
    node.down()?;
    by_clsact.down()?;
    let written = report::write(out, agent, &others, &options, &all, &memory, &process)?;
    print!("\n{}", report::table(&all, &memory, &process));
    console.say("written", written.display());
    Ok(())
}

/// Where the plugins are that ours is compared with: the newest that were fetched.
fn others() -> Result<PathBuf> {
    let clients = clients::folder().context("find the user's cache: set HOME")?;
    let places = ["forky", "bookworm"].map(|release| clients.join(release).join("usr/lib/cni"));
    let found = places.iter().find(|place| {
        let version = std::process::Command::new(place.join("bridge")).output();
        version.is_ok_and(|output| output.status.success())
    });
    let found = found.with_context(|| {
        format!(
            "there is no bridge plugin below {}: run cargo xtask test once, which fetches it",
            clients.display()
        )
    });
    found.cloned()
}

/// Namespaces that nobody is in; they go with the value.
struct Containers(Vec<String>);

impl Containers {
    fn make(node: &Node, number: usize) -> Result<Self> {
        let names = (0..number).map(|number| format!("{}-p{number}", node.name()));
        let made = Self(names.collect());
        for name in &made.0 {
            run::checked(format!("ip netns add {name}"))?;
        }
        Ok(made)
    }
}

impl Drop for Containers {
    fn drop(&mut self) {
        for name in &self.0 {
            if let Err(error) = run::checked(format!("ip netns del {name}")) {
                eprintln!("namespace {name} is left: {error}");
            }
        }
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn one_after_another(
    plugin: &Plugin,
    containers: &Containers,
    number: usize,
    figures: &mut Figures,
) -> Result<()> {
    let some = &containers.0[..number];
    for (verb, times) in [("ADD", &mut figures.add_ms), ("DEL", &mut figures.del_ms)] {
        for container in some {
            times.push(milliseconds(plugin.call(verb, container)?));
        }
    }
    Ok(())
}

fn together(
    plugin: &Plugin,
    containers: &Containers,
    number: usize,
    figures: &mut Figures,
) -> Result<()> {
    let some = &containers.0[..number];
    for (verb, rates) in [
        ("ADD", &mut figures.adds_a_second),
        ("DEL", &mut figures.dels_a_second),
    ] {
        let since = Instant::now();
        thread::scope(|scope| {
            let calls = some.iter().map(|it| scope.spawn(|| plugin.call(verb, it)));
            let calls: Vec<_> = calls.collect();
            for call in calls {
                let called = call.join();
                ensure!(called.is_ok(), "a thread that calls plugins has panicked");
                called.map_or(Ok(Duration::ZERO), |outcome| outcome)?;
            }
            Ok(())
        })?;
        let each = since.elapsed() / u32::try_from(number)?;
        rates.push(1.0 / each.as_secs_f64());
    }
    Ok(())
}

/// The agent's memory for containers that stay.
fn memory(node: &Node, ours: &Plugin, number: usize) -> Result<Memory> {
    let containers = Containers::make(node, number)?;
    node.settle()?;
    let before_mib = node.memory()?.now;
    for container in &containers.0 {
        ours.call("ADD", container)?;
    }
    node.settle()?;
    let after_mib = node.memory()?.now;
    let mut del_ms = Vec::new();
    for container in &containers.0 {
        del_ms.push(milliseconds(ours.call("DEL", container)?));
    }
    Ok(Memory {
        before_mib,
        after_mib,
        containers: number,
        del_ms,
    })
}

fn process(ours: &Plugin) -> Result<Process> {
    let calls = (0..50).map(|_| Ok(milliseconds(ours.call("VERSION", "none")?)));
    Ok(Process {
        ms: calls.collect::<Result<_>>()?,
        resident_kib: ours.resident()?,
    })
}
