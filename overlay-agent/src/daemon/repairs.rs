//! Telling repairs from all other work: what is put right although nothing that was asked for has
//! changed was broken by somebody else.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use overlay_core::{
    desired::Facts,
    objects::Guard,
    plan::{Plan, Step},
    shared::Shared,
    surroundings::Way,
    trouble::Trouble,
};
use overlay_kernel::managers;
use tracing::{debug, warn};

use super::Reconciler;

/// Within this time, the same repair again belongs to one fight.
const PAUSE: Duration = Duration::from_mins(1);
/// After so many of the same repair without such a pause, it counts as a fight.
const FIGHT: u32 = 3;
/// Objects that a line names at most.
const NAMED: usize = 3;

/// The settled state, and the repairs since then.
#[derive(Debug, Default)]
pub(super) struct Repairs {
    /// Counts what is asked for: another configuration, a container, a switch.
    wishes: u64,
    settled: Option<Settled>,
    /// The repairs that were logged since.
    told: BTreeSet<String>,
    /// Things that were put right since the agent's start.
    pub(super) count: u64,
    /// Repairs within the last [`PAUSE`].
    lately: BTreeMap<String, Lately>,
    /// When something was put right last for at least the [`FIGHT`]th time.
    fought: Option<Instant>,
}

#[derive(Debug)]
struct Lately {
    last: Instant,
    times: u32,
}

/// Repairs worth a line of the log.
#[derive(Debug, Default, PartialEq, Eq)]
struct News {
    lacks: Vec<String>,
    /// Repairs in vain.
    in_vain: Vec<String>,
}

/// The inputs of a settled state.
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

    /// What was asked for last is done, by itself: all else is as it was.
    pub(super) fn settle_wish(&mut self) {
        let wishes = self.repairs.wishes;
        if let Some(settled) = &mut self.repairs.settled
            && settled.wishes + 1 == wishes
        {
            settled.wishes = wishes;
        }
    }

    /// What was settled counts no more.
    pub(super) fn unsettle(&mut self) {
        self.repairs.settled = None;
    }

    /// All is as it should be.
    pub(super) fn settle_on(&mut self, problems: &[Trouble]) {
        self.repairs.told.clear();
        self.repairs.settled = Some(self.settled_now(problems));
    }

    fn settled_now(&self, problems: &[Trouble]) -> Settled {
        Settled {
            wishes: self.repairs.wishes,
            // The guard's rules have the numbers of devices in them, which are new with each that is
            // put right.
            facts: Facts {
                guard: None,
                ..self.facts.clone()
            },
            ways: self.observed.around.ways.clone(),
            problems: problems.to_vec(),
        }
    }

    /// Counts what these steps put right, and tells what was missing, unless they follow from
    /// something that was asked for, or from what the node itself is now.
    pub(super) fn note_repairs(&mut self, plan: &Plan, problems: &[Trouble]) {
        let now = self.settled_now(problems);
        let Some(before) = &self.repairs.settled else {
            return;
        };
        if before.wishes != now.wishes {
            return;
        }
        // Where more is other than it was, devices and routes may follow from that. Nothing but its
        // removal makes a namespace necessary that was there.
        let is_alone = *before == now;
        // A look can come halfway: the kernel takes programs and routes from a device before the
        // device itself. What is put right then has consequences, but no device is one.
        let is_first = self.repairs.told.is_empty();
        let is_told = |step: &Step| match step {
            Step::CreateNamespace { .. } => true,
            Step::CreateLink { .. } => is_alone,
            _ => is_alone && is_first,
        };
        // Its rules follow from the routes and translations of others: as long as it does what it
        // was made for, nobody has touched it.
        let is_whole = matches!(self.observed.objects.guard, Some(Guard::Does(_)));
        let steps = plan.steps().iter();
        let steps = steps.filter(|step| !(is_whole && matches!(step, Step::SetGuard { .. })));
        let steps = steps.filter(|step| is_told(step));
        let mut lacks: Vec<String> = steps.filter_map(Step::lack).collect();
        lacks.retain(|lack| self.repairs.told.insert(lack.clone()));
        let News { lacks, in_vain } = self.repairs.note(lacks, Instant::now());
        if !lacks.is_empty() {
            warn!(
                "repairing what somebody else has changed: {}",
                first(&lacks)
            );
        }
        if !in_vain.is_empty() {
            warn!("{}", fight(&in_vain, &suspects()));
        }
    }
}

impl Repairs {
    /// Counts what is put right, and finds what is to be told: each time, until it is a fight.
    fn note(&mut self, lacks: Vec<String>, now: Instant) -> News {
        self.count += u64::try_from(lacks.len()).unwrap_or(u64::MAX);
        let is_old = |then: Instant| now.duration_since(then) >= PAUSE;
        self.lately.retain(|_, lately| !is_old(lately.last));
        let mut news = News::default();
        let mut goes_on = false;
        for lack in lacks {
            let new = Lately {
                last: now,
                times: 0,
            };
            let lately = self.lately.entry(lack.clone()).or_insert(new);
            lately.last = now;
            lately.times += 1;
            goes_on |= lately.times >= FIGHT;
            if lately.times == FIGHT {
                news.in_vain.push(lack);
            } else if lately.times < FIGHT {
                news.lacks.push(lack);
            }
        }
        if self.fought.is_some_and(|then| !is_old(then)) {
            // The same fight, though about something else.
            news.in_vain.clear();
        }
        if goes_on {
            self.fought = Some(now);
        }
        news
    }
}

/// Running programs that configure networks.
fn suspects() -> Vec<&'static str> {
    match managers::running() {
        Ok(running) => running.into_iter().collect(),
        Err(error) => {
            debug!("nobody is suspected: {error}");
            Vec::new()
        }
    }
}

fn fight(in_vain: &[String], suspects: &[&str]) -> String {
    let whom = match suspects {
        [] => "and none of those that usually do runs in this network namespace".to_owned(),
        [one] => format!("probably {one}, which runs here"),
        several => format!("probably one of {}, which run here", several.join(", ")),
    };
    format!(
        "somebody undoes again and again what is repaired, {whom}: {}; have it leave devices named \
         ovl… alone (docs/beside.md). It goes on being repaired and counted, and is not told again \
         before it has stopped for {} s",
        first(in_vain),
        PAUSE.as_secs()
    )
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
    use std::time::{Duration, Instant};

    use super::{FIGHT, News, PAUSE, Repairs, fight, first};

    const SECOND: Duration = Duration::from_secs(1);

    fn lacks(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn the_same_is_counted_and_told_each_time_until_it_is_a_fight() {
        let mut repairs = Repairs::default();
        let now = Instant::now();
        let told = |names: &[&str]| News {
            lacks: lacks(names),
            in_vain: Vec::new(),
        };
        assert_eq!(repairs.note(lacks(&["a"]), now), told(&["a"]));
        assert_eq!(repairs.note(lacks(&["a", "b"]), now), told(&["a", "b"]));
        let fought = repairs.note(lacks(&["a", "b"]), now);
        assert_eq!(fought.lacks, lacks(&["b"]));
        assert_eq!(fought.in_vain, lacks(&["a"]));
        assert_eq!(repairs.note(lacks(&["a"]), now), told(&[]));
        assert_eq!(repairs.count, 6);
        assert_eq!(repairs.note(lacks(&["a"]), now + PAUSE), told(&["a"]));
    }

    #[test]
    fn a_fight_is_told_once_whatever_it_is_about() {
        let mut repairs = Repairs::default();
        let mut now = Instant::now();
        let mut round = |name: &str, after: Duration| {
            now += after;
            repairs.note(lacks(&[name]), now).in_vain
        };
        for _ in 1..FIGHT {
            assert!(round("a", SECOND).is_empty());
        }
        assert_eq!(round("a", SECOND), ["a"]);
        for _ in 0..100 {
            assert!(round("a", SECOND).is_empty());
            assert!(round("b", SECOND).is_empty());
        }
    }

    #[test]
    fn a_fight_that_has_ended_and_begins_anew_is_told_anew() {
        let mut repairs = Repairs::default();
        let mut now = Instant::now();
        for _ in 0..2 {
            let mut told = 0;
            for _ in 0..10 {
                now += SECOND;
                told += repairs.note(lacks(&["a"]), now).in_vain.len();
            }
            assert_eq!(told, 1);
            now += PAUSE;
        }
    }

    #[test]
    fn whoever_runs_is_suspected() {
        let told = |suspects: &[&str]| fight(&lacks(&["device ovl1 was missing"]), suspects);
        assert!(told(&["dhcpcd"]).contains("probably dhcpcd, which runs here: device ovl1 was"));
        assert!(told(&["bird", "dhcpcd"]).contains("one of bird, dhcpcd, which run here"));
        assert!(told(&[]).contains("none of those"));
    }

    #[test]
    fn of_many_the_first_are_named() {
        let lacks: Vec<String> = (1..=5).map(|number| number.to_string()).collect();
        assert_eq!(first(&lacks[..2]), "1, 2");
        assert_eq!(first(&lacks), "1, 2, 3, and 2 more");
    }
}
