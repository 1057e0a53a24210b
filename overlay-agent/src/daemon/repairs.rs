//! Telling repairs from all other work: what is put right although nothing that was asked for has
//! changed was broken by somebody else.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use tracing::warn;

use super::Reconciler;
use crate::{
    desired::Facts,
    plan::{Plan, Step},
    shared::Shared,
    surroundings::Way,
    trouble::Trouble,
};

/// Who breaks the same again and again is told of once in so long.
const PAUSE: Duration = Duration::from_mins(1);
/// What a line names.
const NAMED: usize = 3;

/// What was as it should be, and what has been repaired since.
#[derive(Debug, Default)]
pub(super) struct Repairs {
    /// Counts what is asked for: another configuration, a container, a switch.
    wishes: u64,
    settled: Option<Settled>,
    /// Things that were put right since the agent's start.
    pub(super) count: u64,
    told: Option<(Instant, Vec<String>)>,
}

/// What a node that was as it should be followed from.
#[derive(Debug, PartialEq, Eq)]
struct Settled {
    wishes: u64,
    facts: Facts,
    /// A path whose MTU is another now changes routes.
    ways: Shared<BTreeMap<IpAddr, Way>>,
    problems: Vec<Trouble>,
}

impl Reconciler {
    /// Something is asked for: the steps that follow are no repair.
    pub(super) fn wish(&mut self) {
        self.repairs.wishes += 1;
    }

    /// All is as it should be.
    pub(super) fn settle_on(&mut self, problems: &[Trouble]) {
        self.repairs.settled = Some(self.settled_now(problems));
    }

    fn settled_now(&self, problems: &[Trouble]) -> Settled {
        Settled {
            wishes: self.repairs.wishes,
            facts: self.facts.clone(),
            ways: self.observed.around.ways.clone(),
            problems: problems.to_vec(),
        }
    }

    /// Counts what these steps put right, and tells what was missing, unless they follow from
    /// something that was asked for, or that the node itself is now.
    pub(super) fn note_repairs(&mut self, plan: &Plan, problems: &[Trouble]) {
        let before = self.repairs.settled.take();
        if before != Some(self.settled_now(problems)) {
            return;
        }
        let lacks: Vec<String> = plan.steps().iter().filter_map(Step::lack).collect();
        if !lacks.is_empty() {
            self.repairs.tell(lacks, Instant::now());
        }
    }
}

impl Repairs {
    fn tell(&mut self, lacks: Vec<String>, now: Instant) {
        self.count += u64::try_from(lacks.len()).unwrap_or(u64::MAX);
        let told = self.told.as_ref();
        if told.is_some_and(|(at, same)| *same == lacks && now.duration_since(*at) < PAUSE) {
            return;
        }
        warn!(
            "repairing what somebody else has changed: {}",
            first(&lacks)
        );
        self.told = Some((now, lacks));
    }
}

fn first(lacks: &[String]) -> String {
    let (named, more) = lacks.split_at(lacks.len().min(NAMED));
    let named = named.join(", ");
    match more.len() {
        0 => named,
        more => format!("{named}, and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::{PAUSE, Repairs, first};

    #[test]
    fn the_same_is_counted_each_time_and_told_once_in_a_while() {
        let mut repairs = Repairs::default();
        let now = Instant::now();
        let lacks = || vec!["device ovl1 was missing".to_owned()];
        repairs.tell(lacks(), now);
        repairs.tell(lacks(), now);
        assert_eq!(repairs.count, 2);
        assert_eq!(repairs.told.as_ref().map(|(at, _)| *at), Some(now));
        repairs.tell(lacks(), now + PAUSE);
        assert_eq!(repairs.told.map(|(at, _)| at), Some(now + PAUSE));
    }

    #[test]
    fn of_many_the_first_are_named() {
        let lacks: Vec<String> = (1..=5).map(|number| number.to_string()).collect();
        assert_eq!(first(&lacks[..2]), "1, 2");
        assert_eq!(first(&lacks), "1, 2, 3, and 2 more");
    }
}
