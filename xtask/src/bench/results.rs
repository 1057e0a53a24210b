//! The measurements, and `results.json`.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::{
    goals::{self, Goal},
    machine::Machine,
    measure::Reading,
    metric::{self, METRICS, Metric},
    options::{Options, Times},
    stats::Summary,
    subject::Subject,
};

/// Version of the schema. It changes when a field goes or changes its meaning; not when
/// fields, subjects or metrics are added.
pub(crate) const SCHEMA: u32 = 1;

/// A value that there is not, and why.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Failure {
    /// Counted from 1.
    pub(crate) round: u32,
    pub(crate) subject: &'static str,
    pub(crate) measurement: String,
    pub(crate) why: String,
}

/// All values so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Results {
    values: BTreeMap<(Subject, &'static str), BTreeMap<u32, f64>>,
    pub(crate) failures: Vec<Failure>,
}

impl Results {
    /// Adds a round's readings.
    pub(crate) fn add(&mut self, round: u32, subject: Subject, readings: &[Reading]) {
        for reading in readings {
            self.values
                .entry((subject, reading.metric))
                .or_default()
                .insert(round, reading.value);
        }
    }

    /// A metric of a subject, if it was measured.
    pub(crate) fn summary(&self, subject: Subject, metric: &Metric) -> Option<Summary> {
        let values: Vec<f64> = self.rounds(subject, metric.id)?.values().copied().collect();
        Summary::of(&values, metric.unit)
    }

    /// The median of a metric of a subject.
    pub(crate) fn median(&self, subject: Subject, metric: &str) -> Option<f64> {
        let values: Vec<f64> = self.rounds(subject, metric)?.values().copied().collect();
        Some(Summary::of(&values, "")?.median)
    }

    /// How many times as much as another subject a subject has of a metric: the median of the
    /// rounds' ratios, because both sides of each were measured within seconds.
    pub(crate) fn ratio(&self, subject: Subject, metric: &str, to: Subject) -> Option<f64> {
        let others = self.rounds(to, metric)?;
        let ratios: Vec<f64> = self
            .rounds(subject, metric)?
            .iter()
            .filter_map(|(round, value)| Some(value / others.get(round)?))
            .collect();
        Some(Summary::of(&ratios, "")?.median)
    }

    fn rounds(&self, subject: Subject, metric: &str) -> Option<&BTreeMap<u32, f64>> {
        let metric = metric::find(metric)?.id;
        self.values.get(&(subject, metric))
    }

    /// The metrics of a group that were measured.
    pub(crate) fn metrics(&self) -> impl Iterator<Item = &'static Metric> {
        METRICS
            .iter()
            .filter(|metric| !self.subjects_of(metric).is_empty())
    }

    /// The subjects that a metric was measured of.
    pub(crate) fn subjects_of(&self, metric: &Metric) -> Vec<Subject> {
        let measured = |subject: &Subject| self.values.contains_key(&(*subject, metric.id));
        Subject::ALL.iter().copied().filter(measured).collect()
    }
}

/// The context of the values.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    /// UTC.
    pub(crate) date: String,
    pub(crate) machine: Machine,
    pub(crate) options: Options,
    pub(crate) congestion: String,
    /// Rounds that were measured from first to last.
    pub(crate) complete_rounds: u32,
    /// Whether the user ended it before its time.
    pub(crate) interrupted: bool,
    /// Share of the CPUs' time that others used before the run.
    pub(crate) load_before: f64,
    /// The largest such share between two rounds.
    pub(crate) load_between: f64,
    /// Share of the CPUs' time that the hypervisor took meanwhile.
    pub(crate) stolen: f64,
}

/// `results.json`; see `docs/benchmarks.md`.
#[derive(Debug, Serialize)]
pub(crate) struct Document<'a> {
    schema: u32,
    date: &'a str,
    complete: bool,
    machine: &'a Machine,
    conditions: Conditions,
    options: DocumentOptions<'a>,
    metrics: BTreeMap<&'static str, DocumentMetric>,
    subjects: BTreeMap<&'static str, BTreeMap<&'static str, Summary>>,
    goals: Vec<Goal>,
    failures: &'a [Failure],
}

#[derive(Debug, Serialize)]
struct Conditions {
    load_before: f64,
    load_between: f64,
    stolen: f64,
}

#[derive(Debug, Serialize)]
struct DocumentOptions<'a> {
    quick: bool,
    rounds: u32,
    complete_rounds: u32,
    congestion_control: &'a str,
    #[serde(flatten)]
    times: Times,
}

#[derive(Debug, Serialize)]
struct DocumentMetric {
    title: &'static str,
    unit: &'static str,
    better: &'static str,
    group: &'static str,
}

impl<'a> Document<'a> {
    pub(crate) fn new(context: &'a Context, results: &'a Results) -> Self {
        let mut subjects: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
        for metric in METRICS {
            for &subject in Subject::ALL {
                if let Some(summary) = results.summary(subject, metric) {
                    subjects
                        .entry(subject.name())
                        .or_default()
                        .insert(metric.id, summary);
                }
            }
        }
        let metrics = results.metrics().map(|metric| {
            let about = DocumentMetric {
                title: metric.title,
                unit: metric.unit,
                better: metric.better.name(),
                group: metric.group.name(),
            };
            (metric.id, about)
        });
        Self {
            schema: SCHEMA,
            date: &context.date,
            complete: !context.interrupted,
            machine: &context.machine,
            conditions: Conditions {
                load_before: context.load_before,
                load_between: context.load_between,
                stolen: context.stolen,
            },
            options: DocumentOptions {
                quick: context.options.quick,
                rounds: context.options.rounds,
                complete_rounds: context.complete_rounds,
                congestion_control: &context.congestion,
                times: context.options.times,
            },
            metrics: metrics.collect(),
            subjects,
            goals: goals::judge(results),
            failures: &results.failures,
        }
    }

    /// Writes it; a reader sees the old one or the new one.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let new = path.with_extension("json.new");
        let text = serde_json::to_string_pretty(self).context("write results as JSON")?;
        fs::write(&new, text + "\n").with_context(|| format!("write {}", new.display()))?;
        fs::rename(&new, path).with_context(|| format!("replace {}", path.display()))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::Value;

    /// A run on a machine that there is not.
    pub(crate) fn sample() -> (Context, Results) {
        let machine = Machine {
            cpu: "Example <CPU> & Co".into(),
            cpus: 2,
            virtualised: true,
            memory_mib: 8_000,
            system: "Example Linux".into(),
            kernel: "6.18.0".into(),
            clock_source: "tsc".into(),
            client_core: 0,
            server_core: 1,
            agent: "overlay-agent 0.1.0".into(),
            baseline: None,
            commit: None,
            iperf3: "3.12".into(),
            sockperf: "3.7".into(),
            iproute2: "6.1".into(),
            bpftool: "7.1".into(),
        };
        let options = Options {
            quick: true,
            rounds: 3,
            measurements: Vec::new(),
            subjects: Subject::ALL.to_vec(),
            growth: false,
            times: Times {
                tcp: 1,
                udp: 1,
                many: 1,
                rtt: 1,
                requests: std::time::Duration::from_millis(500),
                connections: std::time::Duration::from_millis(500),
                cpu: std::time::Duration::from_millis(500),
                flood: std::time::Duration::from_millis(500),
                test_runs: 1_000,
            },
        };
        let context = Context {
            date: "2026-01-02T03:04:05Z".into(),
            machine,
            options,
            congestion: "cubic".into(),
            complete_rounds: 3,
            interrupted: false,
            load_before: 0.01,
            load_between: 0.02,
            stolen: 0.0,
        };
        let mut results = Results::default();
        for (subject, values) in [
            (Subject::Bare, [480e3, 470e3, 490e3]),
            (Subject::Vxlan, [200e3, 210e3, 190e3]),
            (Subject::Overlay, [430e3, 410e3, 420e3]),
        ] {
            for (round, value) in (1..).zip(values) {
                let reading = Reading::new("udp_1_received", value).unwrap();
                results.add(round, subject, &[reading]);
            }
        }
        for (peers, pps) in [(10, 400e3), (100_000, 350e3)] {
            let reading = Reading::new(&format!("pps_{peers}_peers"), pps).unwrap();
            results.add(1, Subject::Overlay, &[reading]);
        }
        results.failures.push(Failure {
            round: 2,
            subject: "tun",
            measurement: "udp-1".into(),
            why: "<b>lost</b>".into(),
        });
        (context, results)
    }

    #[test]
    fn the_schema_is_stable() {
        let (context, results) = sample();
        let document = serde_json::to_value(Document::new(&context, &results)).unwrap();
        let summary = &document["subjects"]["overlay"]["udp_1_received"];
        for (field, value) in [("median", 420e3), ("min", 410e3), ("max", 430e3)] {
            assert_eq!(summary[field], value, "{field}");
        }
        assert_eq!(summary["unit"], "packets/s");
        assert_eq!(summary["values"].as_array().unwrap().len(), 3);
        assert_eq!(document["metrics"]["udp_1_received"]["better"], "higher");

        let keys =
            |value: &Value| -> Vec<String> { value.as_object().unwrap().keys().cloned().collect() };
        assert_eq!(
            keys(&document),
            [
                "complete",
                "conditions",
                "date",
                "failures",
                "goals",
                "machine",
                "metrics",
                "options",
                "schema",
                "subjects"
            ]
        );
        assert_eq!(
            keys(&document["machine"]),
            [
                "agent",
                "bpftool",
                "client_core",
                "clock_source",
                "commit",
                "cpu",
                "cpus",
                "iperf3",
                "iproute2",
                "kernel",
                "memory_mib",
                "server_core",
                "sockperf",
                "system",
                "virtualised"
            ]
        );
        assert_eq!(
            keys(&document["options"]),
            [
                "complete_rounds",
                "congestion_control",
                "cpu_seconds",
                "crr_seconds",
                "growth_seconds",
                "many_seconds",
                "quick",
                "rounds",
                "rr_seconds",
                "rtt_seconds",
                "tcp_seconds",
                "test_runs",
                "udp_seconds"
            ]
        );
        assert_eq!(
            keys(&document["goals"][0]),
            ["bound", "holds", "met", "text", "unit", "value"]
        );
        assert_eq!(document["schema"], SCHEMA);
    }

    #[test]
    fn a_ratio_needs_both_sides() {
        let (_, results) = sample();
        let ratio = |to| results.ratio(Subject::Overlay, "udp_1_received", to);
        assert!(ratio(Subject::Vxlan).is_some());
        assert_eq!(ratio(Subject::Tun), None);
    }

    #[test]
    fn a_ratio_is_between_values_of_one_round() {
        let mut results = Results::default();
        let mut add = |round, subject, value| {
            results.add(round, subject, &[Reading::new("rtt_mean", value).unwrap()]);
        };
        // The machine slows down, and one measurement fails: 0.5 all the same.
        for (round, ours, theirs) in [(1, 5.0, Some(10.0)), (2, 9.0, None), (3, 20.0, Some(40.0))] {
            add(round, Subject::Overlay, ours);
            if let Some(theirs) = theirs {
                add(round, Subject::Vxlan, theirs);
            }
        }
        let ratio = results.ratio(Subject::Overlay, "rtt_mean", Subject::Vxlan);
        assert_eq!(ratio, Some(0.5));
    }
}
