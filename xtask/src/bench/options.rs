//! What the user asks for, and how long everything takes.

use std::{path::PathBuf, time::Duration};

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use serde::Serialize;

use super::{growth, measure::Measurement, subject::Subject};
use crate::vm;

/// Arguments of `bench`.
#[derive(clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub(crate) struct Args {
    /// Three rounds of short measurements, without those of many flows: a first look, in four
    /// minutes
    #[arg(long)]
    pub(crate) quick: bool,
    /// What the agent takes with up to 100,000 peers, instead of what packets take
    #[arg(long, conflicts_with_all = ["rounds", "congestion", "only", "subjects"])]
    pub(crate) scale: bool,
    /// What it takes to follow a cluster's store with up to 10,000 nodes in it, instead of what packets take
    #[arg(long, conflicts_with_all = ["scale", "rounds", "congestion", "only", "subjects"])]
    pub(crate) cluster: bool,
    /// Instructions for each packet instead of time, on Debian's kernels in an emulated machine: the
    /// same on a busy machine
    #[arg(long, conflicts_with_all = ["scale", "cluster", "quick", "rounds", "congestion", "only", "subjects"])]
    pub(crate) icount: bool,
    /// With --icount: the kernels
    #[arg(long = "kernel", value_enum, requires = "icount", default_values = ["6.12", "7.2"])]
    pub(crate) kernels: Vec<vm::Choice>,
    /// Another build of the agent, measured beside this one as subject `baseline`
    #[arg(long, conflicts_with_all = ["scale", "cluster", "plugins"], value_name = "AGENT")]
    pub(crate) baseline: Option<PathBuf>,
    /// What it takes to give containers a network by CNI, beside the bridge plugin, instead of what packets take
    #[arg(long, conflicts_with_all = ["scale", "cluster", "icount", "rounds", "congestion", "only", "subjects"])]
    pub(crate) plugins: bool,
    /// How often everything is measured [default: 5, with --quick 3]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: Option<u32>,
    /// Folder for results.json, the charts and the page [default: bench in the target folder]
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
    /// Congestion control of TCP [default: the system's]
    #[arg(long)]
    pub(crate) congestion: Option<String>,
    /// Measure although the machine is busy
    #[arg(long)]
    pub(crate) force: bool,
    /// Only these measurements
    #[arg(long, value_delimiter = ',', num_args = 1.., value_parser = selected())]
    only: Vec<Selected>,
    /// Only these subjects
    #[arg(long, value_delimiter = ',', num_args = 1.., value_enum)]
    pub(crate) subjects: Vec<Subject>,
}

/// A measurement of the rounds, or growth, which comes after them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Selected {
    Round(Measurement),
    Growth,
}

fn selected() -> impl clap::builder::TypedValueParser<Value = Selected> {
    let names = Measurement::ALL
        .iter()
        .map(|measurement| measurement.name());
    PossibleValuesParser::new(names.chain([growth::NAME])).map(|name| {
        Measurement::ALL
            .iter()
            .copied()
            .find(|measurement| measurement.name() == name)
            .map_or(Selected::Growth, Selected::Round)
    })
}

/// The measurements, for how long and how often.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) quick: bool,
    pub(crate) rounds: u32,
    pub(crate) measurements: Vec<Measurement>,
    pub(crate) subjects: Vec<Subject>,
    pub(crate) growth: bool,
    pub(crate) times: Times,
}

/// How long each measurement takes.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Times {
    /// Whole seconds, as iperf3 and sockperf take them.
    #[serde(rename = "tcp_seconds")]
    pub(crate) tcp: u32,
    #[serde(rename = "udp_seconds")]
    pub(crate) udp: u32,
    /// Of more than one TCP stream or UDP flow.
    #[serde(rename = "many_seconds")]
    pub(crate) many: u32,
    #[serde(rename = "rtt_seconds")]
    pub(crate) rtt: u32,
    #[serde(rename = "rr_seconds", serialize_with = "seconds")]
    pub(crate) requests: Duration,
    #[serde(rename = "crr_seconds", serialize_with = "seconds")]
    pub(crate) connections: Duration,
    /// Once with packets and once without.
    #[serde(rename = "cpu_seconds", serialize_with = "seconds")]
    pub(crate) cpu: Duration,
    #[serde(rename = "growth_seconds", serialize_with = "seconds")]
    pub(crate) flood: Duration,
    /// Runs of each program for a value of its cost.
    pub(crate) test_runs: usize,
}

fn seconds<S: serde::Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}

impl Times {
    const FULL: Self = Self {
        tcp: 2,
        udp: 2,
        many: 1,
        rtt: 2,
        requests: Duration::from_millis(1500),
        connections: Duration::from_millis(1500),
        cpu: Duration::from_secs(2),
        flood: Duration::from_secs(1),
        test_runs: 20_000,
    };
    const QUICK: Self = Self {
        tcp: 1,
        udp: 1,
        many: 1,
        rtt: 1,
        requests: Duration::from_millis(500),
        connections: Duration::from_millis(500),
        cpu: Duration::from_secs(1),
        flood: Duration::from_millis(300),
        test_runs: 10_000,
    };
}

impl From<&Args> for Options {
    fn from(args: &Args) -> Self {
        let all = args.only.is_empty();
        let picked = |selected| match selected {
            Selected::Round(measurement) if all => !args.quick || measurement.is_brief(),
            Selected::Growth if all => true,
            _ => args.only.contains(&selected),
        };
        let subjects = Subject::ALL.iter().copied();
        Self {
            quick: args.quick,
            rounds: args.rounds.unwrap_or(if args.quick { 3 } else { 5 }),
            measurements: Measurement::ALL
                .iter()
                .copied()
                .filter(|&measurement| picked(Selected::Round(measurement)))
                .collect(),
            subjects: subjects
                .filter(|subject| args.subjects.is_empty() || args.subjects.contains(subject))
                .filter(|subject| *subject != Subject::Baseline || args.baseline.is_some())
                .collect(),
            growth: picked(Selected::Growth),
            times: if args.quick {
                Times::QUICK
            } else {
                Times::FULL
            },
        }
    }
}

impl Options {
    /// The subjects of a measurement in the order of a round: another one begins each time,
    /// so that none is always the one after the slowest.
    pub(crate) fn order(&self, measurement: Measurement, round: u32) -> Vec<Subject> {
        let mut subjects: Vec<Subject> = self
            .subjects
            .iter()
            .copied()
            .filter(|subject| measurement.subjects().contains(subject))
            .collect();
        if !subjects.is_empty() {
            let by = round as usize % subjects.len();
            subjects.rotate_left(by);
        }
        subjects
    }

    /// The subjects whose peers are made many.
    pub(crate) fn growing(&self) -> Vec<Subject> {
        let picked = |subject: &Subject| self.growth && self.subjects.contains(subject);
        Subject::GROWING.iter().copied().filter(picked).collect()
    }

    /// The subjects that need a lab.
    pub(crate) fn needed(&self) -> Vec<Subject> {
        let growing = self.growing();
        let measured = |subject: &Subject| {
            growing.contains(subject)
                || self
                    .measurements
                    .iter()
                    .any(|measurement| measurement.subjects().contains(subject))
        };
        self.subjects.iter().copied().filter(measured).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn options(line: &str) -> Options {
        let words = std::iter::once("bench").chain(line.split_whitespace());
        Options::from(&Cli::try_parse_from(words).unwrap().args)
    }

    #[test]
    fn everything_is_measured_unless_something_is_named() {
        let all = options("");
        assert_eq!((all.rounds, all.growth), (5, true));
        assert_eq!(all.measurements, Measurement::ALL);
        let others = Subject::ALL.iter().copied();
        let others: Vec<Subject> = others
            .filter(|&subject| subject != Subject::Baseline)
            .collect();
        assert_eq!(all.needed(), others);
        assert_eq!(options("--baseline agent").needed(), Subject::ALL);

        let some = options("--quick --only udp-1,growth --subjects vxlan overlay");
        assert_eq!((some.rounds, some.growth), (3, true));
        assert_eq!(some.measurements, [Measurement::Udp(1)]);
        assert_eq!(some.needed(), [Subject::Vxlan, Subject::Overlay]);

        let local = options("--only local-udp --rounds 1");
        assert_eq!(local.needed(), Subject::LOCAL);
        assert!(local.growing().is_empty());
    }

    #[test]
    fn every_subject_is_first_once() {
        let options = options("--baseline agent");
        let first: Vec<Subject> = (0..)
            .zip(Subject::UNSHAPED)
            .map(|(round, _)| options.order(Measurement::Rtt, round)[0])
            .collect();
        assert_eq!(first, Subject::UNSHAPED);
        let local = options.order(Measurement::LocalRtt, 1);
        assert_eq!(
            local,
            [Subject::Overlay, Subject::OverlayOff, Subject::Ceiling]
        );
    }
}
