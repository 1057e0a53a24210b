//! The cost of following a cluster's store, with few nodes in it and with many.
//!
//! A real etcd has the leases of nodes that exist there alone, and of some whose addresses are
//! looked after: what a container sends to somebody behind them is seen to arrive. One agent joins;
//! then nodes come and go; a plain watcher of the same keys, `etcdctl watch`, is the floor.

mod peers;
mod stand;
mod store;

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use serde::Serialize;
use serde_json::json;

use super::{
    goals::{Bound, Goal},
    interrupt, machine,
    report::markdown::Table,
    scale,
};
use crate::console::Console;
use peers::{LIVE, Peer};
use stand::{Stand, Taken, with_store};
use store::Store;

/// Nodes besides the one that is measured.
const SIZES: [u32; 2] = [100, 10_000];

/// The measurements with one number of nodes.
#[derive(Debug, Serialize)]
struct Figures {
    nodes: u32,
    /// From the start of the agent, with an empty memory, until a packet is at a peer.
    first_packet_seconds: f64,
    /// CPU time of agent and helper until then.
    start_cpu_seconds: f64,
    /// How many nodes have come, and as many gone.
    added: u32,
    /// In how many seconds.
    churn_seconds: f64,
    /// From the write of a lease until a packet is at its node, in milliseconds.
    added_p50_ms: f64,
    added_p99_ms: f64,
    /// Shares of one CPU during the churn.
    agent_cpu: f64,
    helper_cpu: f64,
    watcher_cpu: f64,
    /// In MiB, at their peaks.
    agent_rss: f64,
    helper_rss: f64,
    watcher_rss: f64,
    /// Requests and what came back on watches, of the node and of the watcher.
    store: Load,
}

#[derive(Debug, Serialize)]
struct Load {
    lists_to_start: u64,
    lists: u64,
    renewals: u64,
    watch_requests: u64,
    watch_answers: u64,
    sent_kib: u64,
}

/// Measures, and shows what came out.
///
/// # Errors
/// When the node cannot be made or the agent does not do what it is asked.
pub(super) fn run(console: Console, agent: &Path, out: &Path, quick: bool) -> Result<()> {
    let mut all = Vec::new();
    for nodes in SIZES {
        if interrupt::requested() {
            break;
        }
        console.say("bench", format_args!("a cluster of {nodes} nodes"));
        let figures = measure(agent, nodes, quick);
        all.push(figures.with_context(|| format!("measure with {nodes} nodes"))?);
    }
    let goals = judge(&all);
    let value = json!({
        "date": machine::now()?,
        "agent": agent.display().to_string(),
        "quick": quick,
        "sizes": all,
        "goals": goals,
    });
    let written = scale::insert(out, "cluster", value)?;
    print!("\n{}", table(&all, &goals));
    console.say("written", written.display());
    Ok(())
}

fn measure(agent: &Path, nodes: u32, quick: bool) -> Result<Figures> {
    // As many come in a minute as are 1 % of 10,000.
    let added: u32 = if quick { 20 } else { 100 };
    let mut stand = Stand::make(agent, nodes, added + 1)?;
    let begin = with_store(Store::counters)?;
    let start = stand.start()?;
    let first = stand.arrives(Peer(LIVE))?.duration_since(start);
    let [agent_then, helper_then, _] = stand.taken()?;
    // What comes at once after the start is no churn.
    thread::sleep(Duration::from_secs(5));
    let listed = with_store(Store::counters)?;
    let before = stand.taken()?;
    let since = Instant::now();
    let mut times = Vec::new();
    for number in 1..=added {
        let due = since + Duration::from_millis(600) * number;
        let (new, old) = (Peer(LIVE + number), Peer(number));
        let put = with_store(|store| {
            let put = Instant::now();
            store.put(&new.key(), &new.lease())?;
            Ok(put)
        })?;
        times.push(stand.arrives(new)?.duration_since(put));
        with_store(|store| store.delete(&old.key()))?;
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    let seconds = since.elapsed().as_secs_f64();
    let after = stand.taken()?;
    let counted = with_store(Store::counters)?;
    stand.down()?;
    let share = |index: usize| {
        let ran = |taken: &[Taken; 3]| taken[index].cpu;
        ran(&after).saturating_sub(ran(&before)).as_secs_f64() / seconds
    };
    let to_start = listed.since(&begin);
    let load = counted.since(&listed);
    times.sort();
    Ok(Figures {
        nodes,
        first_packet_seconds: first.as_secs_f64(),
        start_cpu_seconds: (agent_then.cpu + helper_then.cpu).as_secs_f64(),
        added,
        churn_seconds: seconds,
        added_p50_ms: percentile(&times, 50),
        added_p99_ms: percentile(&times, 99),
        agent_cpu: share(0),
        helper_cpu: share(1),
        watcher_cpu: share(2),
        agent_rss: after[0].rss,
        helper_rss: after[1].rss,
        watcher_rss: after[2].rss,
        store: Load {
            lists_to_start: to_start.lists,
            lists: load.lists,
            renewals: load.renewals,
            watch_requests: load.watches,
            watch_answers: load.watch_answers,
            sent_kib: load.sent_bytes / 1024,
        },
    })
}

/// Of sorted times, in milliseconds; NaN without any.
fn percentile(times: &[Duration], percent: usize) -> f64 {
    let place = (times.len() * percent).div_ceil(100).saturating_sub(1);
    let time = times.get(place);
    time.map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
}

fn judge(all: &[Figures]) -> Vec<Goal> {
    let of = |nodes: u32, text: &str, unit, bound, value: &dyn Fn(&Figures) -> f64| {
        let figures = all.iter().find(|figures| figures.nodes == nodes);
        let text = format!("{text}, {nodes} nodes");
        Goal::new(text, figures.map(value), unit, Bound::AtMost(bound))
    };
    let first = |f: &Figures| f.first_packet_seconds;
    vec![
        of(100, "From start to the first packet", "s", 1.0, &first),
        of(10_000, "From start to the first packet", "s", 5.0, &first),
        of(10_000, "An added node is reached, p99", "ms", 500.0, &|f| {
            f.added_p99_ms
        }),
        of(
            10_000,
            "CPU of agent and helper, 1 % churn a minute",
            "%",
            5.0,
            &|f| (f.agent_cpu + f.helper_cpu) * 100.0,
        ),
        of(
            10_000,
            "RSS of agent and helper at its peak",
            "MiB",
            100.0,
            &|f| f.agent_rss + f.helper_rss,
        ),
    ]
}

/// The figures for a terminal, and for a document.
fn table(all: &[Figures], goals: &[Goal]) -> String {
    let mut table = Table::new("nodes", all, |f| f.nodes.to_string());
    table.numbers(&[
        ("start to first packet, s", 2, |f| {
            Some(f.first_packet_seconds)
        }),
        ("… agent and helper running", 2, |f| {
            Some(f.start_cpu_seconds)
        }),
    ]);
    table.row("added node reached, median / p99, ms", |f| {
        format!("{:.0} / {:.0}", f.added_p50_ms, f.added_p99_ms)
    });
    table.row("CPU under churn, agent + helper, %", |f| {
        format!("{:.1} + {:.1}", f.agent_cpu * 100.0, f.helper_cpu * 100.0)
    });
    table.numbers(&[("… of `etcdctl watch`", 1, |f| Some(f.watcher_cpu * 100.0))]);
    table.row("RSS at its peak, agent + helper, MiB", |f| {
        format!("{:.0} + {:.0}", f.agent_rss, f.helper_rss)
    });
    table.numbers(&[("… of `etcdctl watch`", 0, |f| Some(f.watcher_rss))]);
    table.row("lists by etcd, start / churn", |f| {
        format!("{} / {}", f.store.lists_to_start, f.store.lists)
    });
    table.row("renewals, watch requests under churn", |f| {
        format!("{}, {}", f.store.renewals, f.store.watch_requests)
    });
    table.row("messages on watches of both", |f| {
        f.store.watch_answers.to_string()
    });
    table.row("KiB sent by etcd under churn", |f| {
        f.store.sent_kib.to_string()
    });
    table.with_goals(goals)
}
