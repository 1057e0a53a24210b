//! Run times of programs, as the kernel counts them.

use std::fs;

use overlay_common::maps;
use serde_json::Value;

use crate::{
    counters,
    error::{Error, Result},
};

const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// The kernel's statistics of programs, which cost every program some time; as they were
/// before when dropped.
pub struct Statistics {
    before: String,
}

impl Statistics {
    /// Has the kernel count.
    pub fn on() -> Result<Self> {
        let before = fs::read_to_string(SWITCH).map_err(Error::file("read", SWITCH))?;
        fs::write(SWITCH, "1").map_err(Error::file("write", SWITCH))?;
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

/// The run time of a program since statistics were first on.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RunTime {
    nanoseconds: f64,
    runs: f64,
}

impl RunTime {
    /// The run time of a program until now.
    pub fn of(program: u32) -> Result<Self> {
        let id = program.to_string();
        Ok(parse(&counters::bpftool(&["prog", "show", "id", &id])?))
    }

    /// The run time since `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            nanoseconds: self.nanoseconds - earlier.nanoseconds,
            runs: self.runs - earlier.runs,
        }
    }

    /// Nanoseconds a run; `None` when it did not run.
    pub fn mean(self) -> Option<f64> {
        (self.runs > 0.0).then(|| self.nanoseconds / self.runs)
    }
}

/// The id of an instance's program: the one of this name that uses the instance's counters.
///
/// Where it is attached does not matter: TCX has links to ask, clsact has not.
pub fn find(instance: &str, name: &str) -> Result<u32> {
    let map = counters::pin(instance, maps::PEER_STATS)?;
    let map = counters::bpftool(&["map", "show", "pinned", &map.to_string_lossy()])?;
    let programs = counters::bpftool(&["prog", "show"])?;
    let found = map["id"]
        .as_u64()
        .and_then(|map| program_with(&programs, name, map));
    found.ok_or_else(|| {
        Error::output(
            "bpftool --json prog show",
            format!("no {name} of {instance} is loaded"),
        )
    })
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

/// A program that has not run yet has neither field.
fn parse(program: &Value) -> RunTime {
    let field = |name: &str| program[name].as_f64().unwrap_or(0.0);
    RunTime {
        nanoseconds: field("run_time_ns"),
        runs: field("run_cnt"),
    }
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
        assert_eq!(after.since(before).mean(), Some(100.0));
        assert_eq!(parse(&json!({"id": 14})), RunTime::default());
        assert_eq!(after.since(after).mean(), None);
    }
}
