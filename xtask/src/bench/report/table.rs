//! The table on the terminal.

use std::fmt::Write as _;

use super::figure::{ratio, spread, with_unit};
use crate::bench::{
    goals,
    metric::{Group, Metric},
    results::{Context, Results},
    subject::Subject,
};

/// Medians, spread, ratios and goals.
pub(crate) fn table(context: &Context, results: &Results) -> String {
    let mut text = String::new();
    for group in Group::ALL {
        let metrics: Vec<_> = results
            .metrics()
            .filter(|metric| metric.group == group)
            .collect();
        if metrics.is_empty() {
            continue;
        }
        line(&mut text, &format!("── {} ", group.title()));
        for metric in metrics {
            rows(&mut text, metric, results);
        }
        text.push('\n');
    }
    goal_rows(&mut text, results);
    for failure in &results.failures {
        line(
            &mut text,
            &format!(
                "✗ round {}, {} of {}: {}",
                failure.round, failure.measurement, failure.subject, failure.why
            ),
        );
    }
    let machine = &context.machine;
    let ended = if context.interrupted {
        ", interrupted"
    } else {
        ""
    };
    line(
        &mut text,
        &format!(
            "{}, {} CPUs, kernel {}; {} of {} rounds{ended}; others used {:.0} % of the CPUs, the hypervisor {:.1} %",
            machine.cpu,
            machine.cpus,
            machine.kernel,
            context.complete_rounds,
            context.options.rounds,
            context.load_between * 100.0,
            context.stolen * 100.0
        ),
    );
    text
}

fn rows(text: &mut String, metric: &Metric, results: &Results) {
    line(text, metric.title);
    for subject in results.subjects_of(metric) {
        let Some(summary) = results.summary(subject, metric) else {
            continue;
        };
        let to = |other: Subject| {
            let ratio_to = results.ratio(subject, metric.id, other);
            ratio_to
                .filter(|_| subject != other)
                .map_or_else(String::new, |value| format!("{} {other}", ratio(value)))
        };
        let spread = spread(summary.min, summary.max, metric.unit);
        line(
            text,
            format!(
                "  {subject:<12} {:>12}   {spread:<22} {:<12}  {:<12}",
                with_unit(summary.median, metric.unit),
                to(Subject::Vxlan),
                to(Subject::Bare)
            )
            .trim_end(),
        );
    }
}

fn goal_rows(text: &mut String, results: &Results) {
    let goals = goals::judge(results);
    if goals.iter().all(|goal| goal.met.is_none()) {
        return;
    }
    line(text, "── Goals ");
    for goal in goals {
        let mark = match goal.met {
            Some(true) => "✓",
            Some(false) => "✗",
            None => "·",
        };
        line(
            text,
            &format!(
                "  {mark} {:<48} {:>12}   goal {}",
                goal.text,
                goal.value_text(),
                goal.bound_text()
            ),
        );
    }
    text.push('\n');
}

fn line(text: &mut String, line: &str) {
    // Writing to a string cannot fail.
    let _written = writeln!(text, "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::tests::sample;

    #[test]
    fn a_row_has_median_spread_and_ratios() {
        let (context, results) = sample();
        let text = table(&context, &results);
        let row = text
            .lines()
            .find(|line| line.trim_start().starts_with("overlay "))
            .unwrap();
        let words: Vec<_> = row.split_whitespace().collect();
        let expected = "overlay 420 kpps 410 – 430 kpps 2.15× vxlan 0.87× bare";
        assert_eq!(words.join(" "), expected);
        assert!(text.contains("✓ UDP 64 B sent, overlay ÷ vxlan"));
        assert!(text.contains("✗ round 2, udp-1 of tun: <b>lost</b>"));
    }
}
