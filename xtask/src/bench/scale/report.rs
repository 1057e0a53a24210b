//! The figures beside the goals.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};

use super::{Endpoints, Figures, Options};
use crate::bench::{
    goals::{Bound, Goal},
    machine,
    report::markdown::Table,
    results::SCHEMA,
};

#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
fn number(count: u64) -> f64 {
    count as f64
}

/// The goals, and what was measured for them.
pub(super) fn judge(all: &[Figures]) -> Vec<Goal> {
    let at = |peers: u32| all.iter().find(|figures| figures.peers == peers);
    let (few, many) = (at(10), at(100_000));
    let attached =
        |figures: Option<&Figures>| figures.and_then(|f| Some(f.endpoints.as_ref()?.add_ms));
    let steps_a_peer = many.and_then(|f| Some(number(f.change_steps?) / f64::from(f.change_peers)));
    let goal = |text: &str, value, unit, bound| {
        Goal::new(text.to_owned(), value, unit, Bound::AtMost(bound))
    };
    vec![
        goal(
            "Start with 100,000 peers",
            many.map(|f| f.start_seconds),
            "s",
            5.0,
        ),
        goal(
            "Change of 1 % of 100,000 peers",
            many.and_then(|f| f.change_seconds),
            "s",
            0.5,
        ),
        // Forwarding entry and VTEP, new and old; neighbour and map entry.
        goal("Steps of it for each changed peer", steps_a_peer, "", 6.0),
        goal(
            "RSS with 100,000 peers",
            many.map(|f| f.rss_mib),
            "MiB",
            150.0,
        ),
        goal("RSS with 10 peers", few.map(|f| f.rss_mib), "MiB", 20.0),
        goal("Attaching a container, 10 peers", attached(few), "ms", 10.0),
        goal(
            "Attaching a container, 100,000 peers",
            attached(many),
            "ms",
            10.0,
        ),
        goal(
            "CPU while idle, 10 peers",
            few.map(|f| f.idle_cpu * 100.0),
            "%",
            0.5,
        ),
        goal(
            "CPU while idle, 100,000 peers",
            many.map(|f| f.idle_cpu * 100.0),
            "%",
            0.5,
        ),
    ]
}

/// Puts the figures into `results.json`, beside those of other runs that are there.
pub(super) fn write(
    out: &Path,
    agent: &Path,
    rcu_expedited: bool,
    options: &Options,
    all: &[Figures],
    goals: &[Goal],
) -> Result<PathBuf> {
    let scale = json!({
        "date": machine::now()?,
        "agent": agent.display().to_string(),
        "rcu_expedited": rcu_expedited,
        "options": options,
        "sizes": all,
        "goals": goals,
    });
    insert(out, "scale", scale)
}

/// Puts a part into `results.json`, beside those of other runs that are there.
pub(in crate::bench) fn insert(out: &Path, part: &str, value: Value) -> Result<PathBuf> {
    let path = out.join("results.json");
    let mut document: Map<String, Value> = match fs::read_to_string(&path) {
        Ok(text) => serde_json::from_str(&text)
            .with_context(|| format!("read {}; remove it to begin anew", path.display()))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Map::new(),
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    };
    document.insert("schema".to_owned(), json!(SCHEMA));
    document.insert(part.to_owned(), value);
    let text = serde_json::to_string_pretty(&document).context("write down the results")?;
    fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

/// A row about containers: its title, the digits of each number, and the number.
type OfContainers = (&'static str, usize, fn(&Endpoints) -> f64);

/// The figures for a terminal, and for a document.
pub(super) fn table(all: &[Figures], goals: &[Goal]) -> String {
    let mut table = Table::new("peers", all, |f| f.peers.to_string());
    table.numbers(&[
        ("start, s", 2, |f| Some(f.start_seconds)),
        ("… running", 2, |f| Some(f.start_cpu_seconds)),
        ("change of 1 %, s", 2, |f| f.change_seconds),
        ("… running", 2, |f| f.change_cpu_seconds),
        ("… steps", 0, |f| f.change_steps.map(number)),
        ("RSS, MiB", 1, |f| Some(f.rss_mib)),
        ("… at its peak", 1, |f| Some(f.rss_peak_mib)),
        ("CPU while idle, %", 2, |f| Some(f.idle_cpu * 100.0)),
    ]);
    let of_containers: [OfContainers; 11] = [
        ("containers", 0, |e| number(e.number as u64)),
        ("attaching one, median, ms", 1, |e| e.add_ms),
        ("… running, mean", 1, |e| e.add_cpu_ms),
        ("… of the last tenth", 1, |e| e.add_last_ms),
        ("… by the command", 1, |e| e.add_by_command_ms),
        ("… by clsact", 1, |e| e.add_by_clsact_ms),
        ("… … of the last tenth", 1, |e| e.add_last_by_clsact_ms),
        ("deleting one, median, ms", 1, |e| e.delete_ms),
        ("attaching a program by TCX alone, ms", 1, |e| {
            e.tcx_alone_ms
        }),
        ("RSS with them, MiB", 1, |e| e.rss_mib),
        ("CPU while idle with them, %", 2, |e| e.idle_cpu * 100.0),
    ];
    for (title, digits, value) in of_containers {
        table.row(title, |f| match &f.endpoints {
            Some(endpoints) => format!("{:.digits$}", value(endpoints)),
            None => String::new(),
        });
    }
    table.with_goals(goals)
}
