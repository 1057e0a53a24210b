//! The agent's own cost, with few peers and with very many.
//!
//! One agent on a node of its own, whose peers exist only in its configuration: it is
//! started, its configuration is changed, it is left alone, and it is asked to attach
//! containers.

mod node;
mod peers;
mod report;

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::{interrupt, machine};
use crate::console::Console;
pub(super) use node::Node;
pub(super) use peers::config;
pub(super) use report::insert;

/// Numbers of peers.
const SIZES: [u32; 4] = [10, 1_000, 10_000, 100_000];
/// Every how many-th peer gets another address by the change.
const CHANGED: u32 = 100;
/// Devices that a program is attached to by TCX and nothing else.
const ATTACHED_ALONE: usize = 50;

/// How much is measured.
#[derive(Clone, Copy, Debug, Serialize)]
struct Options {
    quick: bool,
    /// Containers attached one after another through the API.
    endpoints: usize,
    /// How many more by the command line; and how many of the first are deleted again.
    by_command: usize,
    idle_seconds: u64,
}

impl Options {
    const FULL: Self = Self {
        quick: false,
        // A bridge has at most 1,023 ports.
        endpoints: 1_000,
        by_command: 20,
        idle_seconds: 20,
    };
    const QUICK: Self = Self {
        quick: true,
        endpoints: 100,
        by_command: 10,
        idle_seconds: 5,
    };
}

/// The measurements with one number of peers.
#[derive(Debug, Serialize)]
struct Figures {
    peers: u32,
    /// From the start of the process until it answers.
    start_seconds: f64,
    /// What the agent ran in that time: on a busy machine the rest is waiting.
    start_cpu_seconds: f64,
    /// From the replacement of the configuration until the kernel has all of it.
    change_seconds: Option<f64>,
    /// What the agent ran in that time.
    change_cpu_seconds: Option<f64>,
    /// Steps of that change.
    change_steps: Option<u64>,
    /// Peers that it touched.
    change_peers: u32,
    rss_mib: f64,
    rss_peak_mib: f64,
    /// Share of one CPU.
    idle_cpu: f64,
    endpoints: Option<Endpoints>,
}

/// The cost of attaching containers.
#[derive(Debug, Serialize)]
struct Endpoints {
    number: usize,
    /// Median of all, at the API.
    add_ms: f64,
    /// What the agent ran for each of them, in the mean.
    add_cpu_ms: f64,
    /// Median of the last tenth, when nearly all are there.
    add_last_ms: f64,
    /// Median with the start of the command.
    add_by_command_ms: f64,
    /// Median of attaching a program by TCX and nothing else: a container takes longer.
    tcx_alone_ms: f64,
    /// Medians of as many at the API of an agent that attaches its programs by clsact: of all,
    /// and of the last tenth.
    add_by_clsact_ms: f64,
    add_last_by_clsact_ms: f64,
    /// Median of deleting some, when all are there.
    delete_ms: f64,
    /// With all of them.
    rss_mib: f64,
    idle_cpu: f64,
}

/// Measures, and shows what came out.
///
/// # Errors
/// When the node cannot be made or the agent does not do what it is asked.
pub(super) fn run(console: Console, agent: &Path, out: &Path, quick: bool) -> Result<()> {
    let options = if quick { Options::QUICK } else { Options::FULL };
    let expedited = machine::rcu_expedited()?;
    let mut all = Vec::new();
    for peers in SIZES {
        if interrupt::requested() {
            break;
        }
        console.say("bench", format_args!("an agent with {peers} peers"));
        let figures = measure(agent, peers, &options);
        all.push(figures.with_context(|| format!("measure an agent with {peers} peers"))?);
    }
    let goals = report::judge(&all);
    let written = report::write(out, agent, expedited, &options, &all, &goals)?;
    print!("\n{}", report::table(&all, &goals));
    if expedited {
        console.say("with", "/sys/kernel/rcu_expedited");
    }
    console.say("written", written.display());
    Ok(())
}

fn measure(agent: &Path, peers: u32, options: &Options) -> Result<Figures> {
    // At both ends, because few and many peers are what can make a difference.
    let attaches = SIZES.first() == Some(&peers) || SIZES.last() == Some(&peers);
    let by_clsact = attaches.then(|| attach_by_clsact(agent, peers, options));
    let by_clsact = by_clsact.transpose()?;
    let mut node = Node::make(agent, "auto")?;
    let alone = attaches.then(|| node.attach_alone(ATTACHED_ALONE));
    let alone = alone.transpose()?.unwrap_or_default();
    node.configure(&config(peers, None))?;
    let start_seconds = node.start()?.as_secs_f64();
    let start_cpu_seconds = node.cpu_time()?.as_secs_f64();
    node.settle()?;
    let memory = node.memory()?;
    let idle_cpu = idle(&node, options)?;
    let change_peers = peers / CHANGED;
    let change = (change_peers > 0).then(|| node.change(&config(peers, Some(CHANGED))));
    let change = change.transpose()?;
    node.settle()?;
    let endpoints = by_clsact.map(|by_clsact| attach(&mut node, options, &alone, &by_clsact));
    let endpoints = endpoints.transpose()?;
    node.down()?;
    Ok(Figures {
        peers,
        start_seconds,
        start_cpu_seconds,
        change_seconds: change.map(|change| change.time.as_secs_f64()),
        change_cpu_seconds: change.map(|change| change.cpu.as_secs_f64()),
        change_steps: change.map(|change| change.steps),
        change_peers,
        rss_mib: memory.now,
        rss_peak_mib: memory.peak,
        idle_cpu,
        endpoints,
    })
}

/// Containers of an agent that attaches its programs as on kernels without TCX.
fn attach_by_clsact(agent: &Path, peers: u32, options: &Options) -> Result<Vec<Duration>> {
    let mut node = Node::make(agent, "clsact")?;
    node.configure(&config(peers, None))?;
    node.start()?;
    node.settle()?;
    node.make_containers(options.endpoints)?;
    let times = (0..options.endpoints)
        .map(|number| node.attach(number))
        .collect::<Result<_>>()?;
    node.down()?;
    Ok(times)
}

fn attach(
    node: &mut Node,
    options: &Options,
    alone: &[Duration],
    by_clsact: &[Duration],
) -> Result<Endpoints> {
    node.make_containers(options.endpoints + options.by_command)?;
    let before = node.cpu_time()?;
    let mut by_api = Vec::new();
    for number in 0..options.endpoints {
        by_api.push(node.attach(number)?);
    }
    let ran = node.cpu_time()?.saturating_sub(before);
    let mut by_command = Vec::new();
    for number in 0..options.by_command {
        by_command.push(node.attach_by_command(options.endpoints + number)?);
    }
    node.settle()?;
    let rss_mib = node.memory()?.now;
    let idle_cpu = idle(node, options)?;
    let deleted = (0..options.by_command).map(|number| node.detach(number));
    let deleted: Vec<Duration> = deleted.collect::<Result<_>>()?;
    Ok(Endpoints {
        number: options.endpoints,
        add_ms: median(&by_api),
        add_cpu_ms: (ran / u32::try_from(options.endpoints)?).as_secs_f64() * 1e3,
        add_last_ms: median(last_tenth(&by_api)),
        add_by_command_ms: median(&by_command),
        tcx_alone_ms: median(alone),
        add_by_clsact_ms: median(by_clsact),
        add_last_by_clsact_ms: median(last_tenth(by_clsact)),
        delete_ms: median(&deleted),
        rss_mib,
        idle_cpu,
    })
}

/// Those that came when nearly all were there.
fn last_tenth(times: &[Duration]) -> &[Duration] {
    &times[times.len() - times.len().div_ceil(10)..]
}

/// The share of a CPU that the agent takes while nothing happens.
fn idle(node: &Node, options: &Options) -> Result<f64> {
    node.share(options.idle_seconds)
}

/// In milliseconds; NaN without any.
fn median(times: &[Duration]) -> f64 {
    let mut times = times.to_vec();
    times.sort();
    let middle = times.get(times.len() / 2);
    middle.map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
}
