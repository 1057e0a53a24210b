//! What the kernel itself says that the programs take, while they carry a flood.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use overlay_common::{maps, programs};
use overlay_tests::{counters, run, script::words};
use serde_json::Value;

use super::{Bench, Reading, iperf};
use crate::bench::{labs::Way, witness::watched};

const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

pub(super) fn measure(bench: &Bench, way: &Way) -> Result<Vec<Reading>> {
    let encapsulates = find(&way.client_node, programs::FROM_ENDPOINT)?;
    let decapsulates = find(&way.server_node, programs::FROM_UNDERLAY)?;
    let statistics = Statistics::on()?;
    let before = [run_time(encapsulates)?, run_time(decapsulates)?];
    watched(way, || iperf::udp(bench, way, 1))?;
    let after = [run_time(encapsulates)?, run_time(decapsulates)?];
    drop(statistics);
    let [encap, decap] = [0, 1].map(|program| after[program].since(before[program]));
    Ok(vec![
        Reading::new("from_endpoint_ns", encap.mean()?)?,
        Reading::new("from_underlay_ns", decap.mean()?)?,
    ])
}

/// The kernel's statistics of programs, which cost every program some time; as they were
/// before when dropped.
struct Statistics {
    before: String,
}

impl Statistics {
    fn on() -> Result<Self> {
        let before = fs::read_to_string(SWITCH).with_context(|| format!("read {SWITCH}"))?;
        fs::write(SWITCH, "1").with_context(|| format!("write {SWITCH}"))?;
        Ok(Self { before })
    }
}

impl Drop for Statistics {
    fn drop(&mut self) {
        if let Err(error) = fs::write(SWITCH, &self.before) {
            eprintln!("write {SWITCH}: {error}");
        }
    }
}

/// What a program has taken since statistics were first on.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct RunTime {
    nanoseconds: f64,
    runs: f64,
}

impl RunTime {
    fn since(self, earlier: Self) -> Self {
        Self {
            nanoseconds: self.nanoseconds - earlier.nanoseconds,
            runs: self.runs - earlier.runs,
        }
    }

    fn mean(self) -> Result<f64> {
        ensure!(self.runs > 0.0, "the program did not run");
        Ok(self.nanoseconds / self.runs)
    }
}

/// The id of an instance's program: the one of this name that uses the instance's counters.
///
/// Where it is attached does not matter: TCX has links to ask, clsact has not.
pub(crate) fn find(instance: &str, name: &str) -> Result<u32> {
    let map = counters::pin(instance, maps::PEER_STATS)?;
    let map = bpftool(&format!("map show pinned {}", map.display()))?;
    let map = map["id"].as_u64().context("a pinned map has no id")?;
    program_with(&bpftool("prog show")?, name, map)
        .with_context(|| format!("program {name} of {instance} is not loaded"))
}

fn program_with(programs: &Value, name: &str, map: u64) -> Option<u32> {
    let uses = |program: &Value| {
        let maps = program["map_ids"].as_array();
        maps.is_some_and(|maps| maps.iter().any(|id| id.as_u64() == Some(map)))
    };
    programs
        .as_array()?
        .iter()
        .find(|program| program["name"] == name && uses(program))
        .and_then(|program| u32::try_from(program["id"].as_u64()?).ok())
}

fn run_time(program: u32) -> Result<RunTime> {
    Ok(parse(&bpftool(&format!("prog show id {program}"))?))
}

/// A program that has not run yet has neither field.
fn parse(program: &Value) -> RunTime {
    let field = |name: &str| program[name].as_f64().unwrap_or(0.0);
    RunTime {
        nanoseconds: field("run_time_ns"),
        runs: field("run_cnt"),
    }
}

fn bpftool(arguments: &str) -> Result<Value> {
    let text = run::checked(&words(format!("bpftool --json {arguments}")))?;
    serde_json::from_str(&text)
        .with_context(|| format!("the output of `bpftool {arguments}` is not understood"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_program_is_found_by_name_and_map() {
        let programs = json!([
            {"id": 11, "type": "cgroup_device"},
            {"id": 12, "type": "sched_cls", "name": "from_endpoint", "map_ids": [1, 2]},
            {"id": 13, "type": "sched_cls", "name": "from_underlay", "map_ids": [3, 4]},
            {"id": 14, "type": "sched_cls", "name": "from_endpoint", "map_ids": [3, 4]},
        ]);
        assert_eq!(program_with(&programs, "from_endpoint", 4), Some(14));
        assert_eq!(program_with(&programs, "from_endpoint", 5), None);
    }

    #[test]
    fn a_mean_is_over_the_runs_between() {
        let before = parse(&json!({"id": 14, "run_time_ns": 1_000, "run_cnt": 10}));
        let after = parse(&json!({"id": 14, "run_time_ns": 5_000, "run_cnt": 50}));
        assert_eq!(after.since(before).mean().ok(), Some(100.0));
        assert_eq!(parse(&json!({"id": 14})), RunTime::default());
        assert!(after.since(after).mean().is_err());
    }
}
