//! Round by round through measurements and subjects, then through numbers of peers.

use std::{
    io::{self, Write as _},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Result;

use super::{
    growth::{self, Growing},
    interrupt, machine,
    measure::{Bench, Reading},
    metric::{self, PEERS},
    report::figure,
    results::{Context, Document, Failure, Results},
    subject::Subject,
};
use crate::console::Console;

/// Measures all that was asked for, as long as nobody interrupts.
pub(super) fn run(
    console: Console,
    bench: &Bench,
    context: &mut Context,
    results: &mut Results,
    out: &Path,
) -> Result<()> {
    let rounds = context.options.rounds;
    let started = Instant::now();
    if !context.options.measurements.is_empty() {
        for round in 0..rounds {
            if round > 0 {
                between(console, context)?;
            }
            if !one(console, bench, context, results, round) {
                return Ok(());
            }
            context.complete_rounds = round + 1;
            Document::new(context, results).write(&out.join("results.json"))?;
            let left = started.elapsed() / (round + 1) * (rounds - round - 1);
            console.say(
                "bench",
                format_args!(
                    "round {} of {rounds} done, {} left",
                    round + 1,
                    minutes(left)
                ),
            );
        }
    }
    grow(console, bench, context, results)
}

/// Looks whether others have begun to use the machine.
fn between(console: Console, context: &mut Context) -> Result<()> {
    let load = machine::load()?;
    context.load_between = context.load_between.max(load);
    if load > machine::QUIET {
        console.say(
            "bench",
            format_args!(
                "warning: other processes use {:.0} % of the CPUs; the next round is affected",
                load * 100.0
            ),
        );
    }
    Ok(())
}

/// One round; false when it was interrupted.
fn one(
    console: Console,
    bench: &Bench,
    context: &Context,
    results: &mut Results,
    round: u32,
) -> bool {
    let options = &context.options;
    for &measurement in &options.measurements {
        let order = options.order(measurement, round);
        if order.is_empty() {
            continue;
        }
        let line = Line::begin(round + 1, measurement.name());
        for subject in order {
            let readings = bench.measure(measurement, subject);
            if interrupt::requested() {
                line.end();
                console.say("bench", "interrupted: what was measured is kept");
                return false;
            }
            match readings {
                Ok(readings) => {
                    line.add(subject, &readings, measurement.headline());
                    results.add(round + 1, subject, &readings);
                }
                Err(error) => {
                    line.failed(subject);
                    results.failures.push(Failure {
                        round: round + 1,
                        subject: subject.name(),
                        measurement: measurement.name().to_owned(),
                        why: format!("{error:#}"),
                    });
                }
            }
        }
        line.end();
    }
    true
}

/// All rounds at one number of peers, then at the next: adding them to the kernel takes longer
/// than a round. The programs alone get all numbers in each round.
fn grow(console: Console, bench: &Bench, context: &Context, results: &mut Results) -> Result<()> {
    let mut growing = Vec::new();
    for subject in context.options.growing() {
        growing.push((subject, Growing::prepare(bench, subject)?));
    }
    if growing.is_empty() {
        return Ok(());
    }
    for peers in PEERS {
        console.say("bench", format_args!("{peers} peers"));
        for (_, lab) in &mut growing {
            lab.grow(peers)?;
        }
        let headline = format!("pps_{peers}_peers");
        for round in 1..=context.options.rounds {
            let line = Line::begin(round, growth::NAME);
            growing.rotate_left(1);
            for (subject, lab) in &growing {
                let readings = lab.measure(bench);
                if interrupt::requested() {
                    line.end();
                    return Ok(());
                }
                match readings {
                    Ok(readings) => {
                        line.add(*subject, &readings, &headline);
                        results.add(round, *subject, &readings);
                    }
                    Err(error) => {
                        line.failed(*subject);
                        results.failures.push(not_grown(round, *subject, &error));
                    }
                }
            }
            line.end();
        }
    }
    console.say("bench", "the programs alone, with all numbers of peers");
    for round in 1..=context.options.rounds {
        for (subject, lab) in &mut growing {
            let measured = lab.measure_programs(bench, &PEERS);
            if interrupt::requested() {
                return Ok(());
            }
            match measured {
                Ok(measured) => {
                    for (of, readings) in measured {
                        results.add(round, of, &readings);
                    }
                }
                Err(error) => results.failures.push(not_grown(round, *subject, &error)),
            }
        }
    }
    Ok(())
}

fn not_grown(round: u32, subject: Subject, error: &anyhow::Error) -> Failure {
    Failure {
        round,
        subject: subject.name(),
        measurement: growth::NAME.to_owned(),
        why: format!("{error:#}"),
    }
}

/// A line of progress that grows with each subject.
struct Line(io::Stdout);

impl Line {
    fn begin(round: u32, name: &str) -> Self {
        let line = Self(io::stdout());
        line.show(format_args!("{:>12}  {name:<11}", format!("round {round}")));
        line
    }

    fn add(&self, subject: Subject, readings: &[Reading], headline: &str) {
        let reading = readings.iter().find(|reading| reading.metric == headline);
        let text = reading
            .and_then(|reading| Some((reading.value, metric::find(reading.metric)?.unit)))
            .map_or_else(String::new, |(value, unit)| figure::with_unit(value, unit));
        self.show(format_args!("  {subject} {text}"));
    }

    fn failed(&self, subject: Subject) {
        self.show(format_args!("  {subject} FAILED"));
    }

    fn end(self) {
        self.show(format_args!("\n"));
    }

    fn show(&self, text: std::fmt::Arguments<'_>) {
        let mut out = self.0.lock();
        // When nobody reads any more, the measurements still have to be made.
        let _unread = out.write_fmt(text).and_then(|()| out.flush());
    }
}

fn minutes(time: Duration) -> String {
    let seconds = time.as_secs();
    format!("{}:{:02} min", seconds / 60, seconds % 60)
}
