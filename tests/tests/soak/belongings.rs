//! What an agent has of the machine.

use std::{collections::BTreeSet, fs};

use anyhow::{Context as _, Result};
use overlay_common::maps;
use overlay_tests::{agent::Agent, counters, lab, snapshot::Snapshot};
use serde_json::Value;

/// All of it but the memory.
#[derive(Debug, PartialEq)]
pub(crate) struct Belongings {
    descriptors: usize,
    threads: u64,
    /// Ids of the programs and maps that it holds.
    pub(crate) programs: BTreeSet<u64>,
    maps: BTreeSet<u64>,
    /// Its maps' entries, but for the counters.
    entries: Vec<Value>,
    /// Its pins, files and namespaces.
    names: BTreeSet<String>,
    node: Snapshot,
}

impl Belongings {
    pub(crate) fn of(agent: &Agent) -> Result<Self> {
        let process = agent.process()?.context("the agent does not run")?;
        let folder = format!("/proc/{}", process.pid);
        let held = |what: &str| -> Result<BTreeSet<u64>> {
            let mut ids = BTreeSet::new();
            for entry in fs::read_dir(format!("{folder}/fdinfo"))? {
                let text = fs::read_to_string(entry?.path()).unwrap_or_default();
                ids.extend(field(&text, what));
            }
            Ok(ids)
        };
        let mut entries = Vec::new();
        for map in [
            maps::NETWORKS,
            maps::PEERS4,
            maps::PEERS6,
            maps::VTEPS4,
            maps::VTEPS6,
            maps::ENDPOINTS4,
            maps::ENDPOINTS6,
            maps::PORTS,
            maps::SOURCES,
            maps::CIDRS,
        ] {
            let mut found = counters::dump(&agent.instance, map)?;
            found.sort_by_key(ToString::to_string);
            entries.extend(found);
        }
        let mut names = BTreeSet::new();
        let [pins, runtime, state] = lab::traces(&agent.instance);
        let pins = counters::pins(&pins)?;
        names.extend(pins.iter().map(|path| path.display().to_string()));
        for folder in [runtime.as_path(), &state, "/run/netns".as_ref()] {
            for entry in fs::read_dir(folder)? {
                names.insert(entry?.path().display().to_string());
            }
        }
        let lab = agent.instance.split('-').next().unwrap_or_default();
        names.retain(|name| name.contains(lab));
        let status = fs::read_to_string(format!("{folder}/status"))?;
        Ok(Self {
            descriptors: fs::read_dir(format!("{folder}/fd"))?.count(),
            threads: field(&status, "Threads:").context("no threads")?,
            programs: held("prog_id:")?,
            maps: held("map_id:")?,
            entries,
            names,
            node: Snapshot::of(&agent.instance)?.anonymous(),
        })
    }

    /// The same with programs and maps by their number: an agent that starts loads its own.
    pub(crate) fn counted(mut self) -> Self {
        for ids in [&mut self.programs, &mut self.maps] {
            *ids = (0..).take(ids.len()).collect();
        }
        self
    }

    /// What differs; empty when nothing does.
    pub(crate) fn changes_since(&self, before: &Self) -> String {
        let mut lines = self.node.changes_since(&before.node).lines;
        let mut tell = |what: &str, now: String, then: String| {
            if now != then {
                lines.push(format!("{what}: {then}, now {now}"));
            }
        };
        // Fewer are no leak: something was still under way then.
        tell(
            "descriptors",
            self.descriptors.max(before.descriptors).to_string(),
            before.descriptors.to_string(),
        );
        tell(
            "threads",
            self.threads.max(before.threads).to_string(),
            before.threads.to_string(),
        );
        tell(
            "programs",
            format!("{:?}", self.programs),
            format!("{:?}", before.programs),
        );
        tell(
            "maps",
            format!("{:?}", self.maps),
            format!("{:?}", before.maps),
        );
        tell(
            "entries",
            format!("{:?}", self.entries),
            format!("{:?}", before.entries),
        );
        tell(
            "names",
            format!("{:?}", self.names),
            format!("{:?}", before.names),
        );
        lines.join("\n")
    }
}

/// The number after a word at the beginning of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The agent's memory in KiB.
pub(crate) fn memory(agent: &Agent) -> Result<u64> {
    let process = agent.process()?.context("the agent does not run")?;
    let status = fs::read_to_string(format!("/proc/{}/status", process.pid))?;
    field(&status, "VmRSS:").context("no VmRSS")
}
