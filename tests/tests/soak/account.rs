//! That every packet is accounted for.

use std::collections::BTreeSet;

use anyhow::Result;
use overlay_common::{maps, programs::TO_ENDPOINT};
use overlay_tests::{
    agent::Agent,
    counters::{self, Carried},
    run,
};
use serde_json::Value;

/// What the programs of an agent have counted, and how often the kernel ran them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) runs: u64,
    /// What was delivered, as it was counted for the peers,
    pub(crate) by_peers: Carried,
    /// and for the endpoints, those that are no more, too.
    pub(crate) by_endpoints: Carried,
    passed: u64,
    dropped: u64,
}

impl Account {
    /// Reads all of it at one moment: one at which nothing is under way.
    pub(crate) fn of(agent: &Agent, programs: &BTreeSet<u64>) -> Result<Self> {
        let sum = |map| -> Result<u64> {
            let reasons = counters::reasons(&agent.instance, map)?;
            Ok(reasons.iter().map(|(_, packets)| packets).sum())
        };
        for _ in 0..100 {
            let runs = runs(programs)?;
            let account = Self {
                runs,
                by_peers: counters::carried(&agent.instance)?,
                by_endpoints: counters::carried_by_endpoints(&agent.instance)?,
                passed: sum(maps::PASSES)?,
                dropped: sum(maps::DROPS)?,
            };
            if self::runs(programs)? == runs {
                return Ok(account);
            }
        }
        anyhow::bail!("there is always a packet under way");
    }

    /// Packets that left the programs in one way or another.
    pub(crate) fn exits(&self) -> u64 {
        self.delivered() + self.passed + self.dropped
    }

    /// Packets that left them on the fast path.
    pub(crate) fn delivered(&self) -> u64 {
        let Carried {
            sent,
            received,
            local,
        } = self.by_peers;
        sent + received + local
    }
}

/// How often the kernel ran some programs while it was asked to count.
fn runs(programs: &BTreeSet<u64>) -> Result<u64> {
    let mut runs = 0;
    for program in programs {
        let text = run::checked(format!("bpftool --json prog show id {program}"))?;
        let shown: Value = serde_json::from_str(&text)?;
        // It lets every packet go on to where the kernel sends it, and counts none.
        if shown["name"] != TO_ENDPOINT {
            runs += shown["run_cnt"].as_u64().unwrap_or(0);
        }
    }
    Ok(runs)
}
