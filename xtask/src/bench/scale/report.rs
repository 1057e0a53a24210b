//! The figures beside the goals.

use std::{
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};

use super::{Figures, Options};
use crate::bench::{
    goals::{Bound, Goal},
    machine,
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

/// The figures for a terminal, and for a document.
pub(super) fn table(all: &[Figures], goals: &[Goal]) -> String {
    let mut text = String::new();
    let columns: Vec<String> = all.iter().map(|f| f.peers.to_string()).collect();
    let mut row = |cells: Vec<String>| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    };
    row([vec!["peers".to_owned()], columns].concat());
    row(std::iter::repeat_n("---".to_owned(), all.len() + 1).collect());
    let mut line = |title: &str, value: &dyn Fn(&Figures) -> Option<String>| {
        let cells = all.iter().map(|f| value(f).unwrap_or_default());
        row(std::iter::once(title.to_owned()).chain(cells).collect());
    };
    line("start, s", &|f| Some(format!("{:.2}", f.start_seconds)));
    line("… running", &|f| {
        Some(format!("{:.2}", f.start_cpu_seconds))
    });
    line("change of 1 %, s", &|f| {
        Some(format!("{:.2}", f.change_seconds?))
    });
    line("… running", &|f| {
        Some(format!("{:.2}", f.change_cpu_seconds?))
    });
    line("… steps", &|f| Some(f.change_steps?.to_string()));
    line("RSS, MiB", &|f| Some(format!("{:.1}", f.rss_mib)));
    line("… at its peak", &|f| {
        Some(format!("{:.1}", f.rss_peak_mib))
    });
    line("CPU while idle, %", &|f| {
        Some(format!("{:.2}", f.idle_cpu * 100.0))
    });
    let attached = |f: &Figures, value: &dyn Fn(&super::Endpoints) -> f64, digits: usize| {
        Some(format!("{:.digits$}", value(f.endpoints.as_ref()?)))
    };
    line("containers", &|f| {
        attached(f, &|e| number(e.number as u64), 0)
    });
    line("attaching one, median, ms", &|f| {
        attached(f, &|e| e.add_ms, 1)
    });
    line("… running, mean", &|f| attached(f, &|e| e.add_cpu_ms, 1));
    line("… of the last tenth", &|f| {
        attached(f, &|e| e.add_last_ms, 1)
    });
    line("… by the command", &|f| {
        attached(f, &|e| e.add_by_command_ms, 1)
    });
    line("… by clsact", &|f| {
        attached(f, &|e| e.add_by_clsact_ms, 1)
    });
    line("… … of the last tenth", &|f| {
        attached(f, &|e| e.add_last_by_clsact_ms, 1)
    });
    line("deleting one, median, ms", &|f| {
        attached(f, &|e| e.delete_ms, 1)
    });
    line("attaching a program by TCX alone, ms", &|f| {
        attached(f, &|e| e.tcx_alone_ms, 1)
    });
    line("RSS with them, MiB", &|f| attached(f, &|e| e.rss_mib, 1));
    line("CPU while idle with them, %", &|f| {
        attached(f, &|e| e.idle_cpu * 100.0, 2)
    });
    text.push('\n');
    for goal in goals {
        let met = match goal.met {
            Some(true) => "met",
            Some(false) => "not met",
            None => "",
        };
        let (what, value) = (&goal.text, goal.value_text());
        let _ = writeln!(text, "| {what} {} | {value} | {met} |", goal.bound_text());
    }
    text
}
