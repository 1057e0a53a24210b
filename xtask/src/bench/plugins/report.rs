//! The figures beside each other.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
};

use anyhow::Result;
use serde_json::json;

use super::{Figures, Memory, Options, Process, call::Kind};
use crate::bench::{machine, scale};

/// Puts the figures into `results.json`, beside those of other runs that are there.
pub(super) fn write(
    out: &Path,
    agent: &Path,
    others: &Path,
    options: &Options,
    all: &BTreeMap<Kind, Figures>,
    memory: &Memory,
    process: &Process,
) -> Result<PathBuf> {
    let subjects: Vec<_> = all
        .iter()
        .map(|(kind, figures)| json!({ "subject": kind, "figures": figures }))
        .collect();
    let value = json!({
        "date": machine::now()?,
        "agent": agent.display().to_string(),
        "plugins": others.display().to_string(),
        "rcu_expedited": machine::rcu_expedited()?,
        "options": options,
        "subjects": subjects,
        "memory": memory,
        "process": process,
    });
    scale::insert(out, "plugins", value)
}

/// Median and what nine of ten lie between.
struct Spread {
    low: f64,
    median: f64,
    high: f64,
}

impl Spread {
    fn of(values: &[f64]) -> Self {
        let mut values = values.to_vec();
        values.sort_by(f64::total_cmp);
        let at = |percent: usize| {
            let place = (values.len() * percent).div_ceil(100).saturating_sub(1);
            values.get(place).copied().unwrap_or(f64::NAN)
        };
        Self {
            low: at(5),
            median: at(50),
            high: at(95),
        }
    }
}

/// The figures for a terminal, and for a document.
pub(super) fn table(all: &BTreeMap<Kind, Figures>, memory: &Memory, process: &Process) -> String {
    let mut text = String::new();
    let mut row = |cells: Vec<String>| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    };
    let head = std::iter::once(String::new()).chain(all.keys().map(|it| it.name().to_owned()));
    row(head.collect());
    row(vec!["---".to_owned(); all.len() + 1]);
    let mut line = |title: &str, digits: usize, of: &dyn Fn(&Figures) -> &[f64]| {
        let ours = all.get(&Kind::Overlay).map(|it| Spread::of(of(it)).median);
        let cells = all.iter().map(|(kind, figures)| {
            let Spread { low, median, high } = Spread::of(of(figures));
            let figure = format!("{median:.digits$} ({low:.digits$}–{high:.digits$})");
            match ours {
                Some(ours) if *kind != Kind::Overlay => {
                    format!("{figure}, × {:.2}", median / ours)
                }
                _ => figure,
            }
        });
        row(std::iter::once(title.to_owned()).chain(cells).collect());
    };
    line("ADD, one after another, ms", 1, &|it| &it.add_ms);
    line("DEL, one after another, ms", 1, &|it| &it.del_ms);
    line("ADD at once, a second", 0, &|it| &it.adds_a_second);
    line("DEL at once, a second", 0, &|it| &it.dels_a_second);
    let containers = f64::from(u32::try_from(memory.containers).unwrap_or(u32::MAX));
    let each = (memory.after_mib - memory.before_mib) * 1024.0 / containers;
    let _ = writeln!(
        text,
        "\nagent: {:.1} MiB, with {} containers {:.1}: {each:.1} KiB each",
        memory.before_mib, memory.containers, memory.after_mib
    );
    let mut line = |what: &str, times: &[f64]| {
        let Spread { low, median, high } = Spread::of(times);
        let _ = writeln!(text, "{what}: {median:.1} ms ({low:.1}–{high:.1})");
    };
    line("DEL of those that have stayed", &memory.del_ms);
    line(
        "overlay-cni for VERSION, from its start to its end",
        &process.ms,
    );
    let _ = writeln!(text, "… resident: {} KiB", process.resident_kib);
    text
}

#[cfg(test)]
mod tests {
    use super::Spread;

    #[test]
    fn a_spread_is_of_sorted_values() {
        let values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        let Spread { low, median, high } = Spread::of(&values);
        assert!((low - 5.0).abs() < 1e-9 && (median - 50.0).abs() < 1e-9);
        assert!((high - 95.0).abs() < 1e-9);
        assert!(Spread::of(&[]).median.is_nan());
    }
}
