//! The table on the terminal.

use std::fmt::Write as _;

use super::figure::{ratio, spread, with_unit};
use crate::bench::{
    goals,
    machine::QUIET,
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
    if let Some(warning) = unreliable(context) {
        line(&mut text, &warning);
    }
    text
}

/// Why numbers of a busy machine are not to be compared with others.
pub(super) fn unreliable(context: &Context) -> Option<String> {
    let load = context.load_before.max(context.load_between);
    (load > QUIET).then(|| {
        format!(
            "unreliable: others used up to {:.0} % of the CPUs, where {:.0} % are allowed without \
             --force; ratios of one run may hold, numbers do not",
            load * 100.0,
            QUIET * 100.0
        )
    })
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
    let (judged, open): (Vec<_>, Vec<_>) = goals.into_iter().partition(|goal| goal.met.is_some());
    for goal in judged {
        let mark = if goal.met == Some(true) { "✓" } else { "✗" };
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
    if !open.is_empty() {
        line(text, &format!("  {} more were not measured", open.len()));
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
        assert!(text.contains("✓ UDP 64 B received, overlay ÷ vxlan"));
        // One line for all that nobody asked for.
        assert!(!text.contains("Round trip"), "{text}");
        assert_eq!(text.matches("not measured").count(), 1, "{text}");
        assert!(text.contains("✗ round 2, udp-1 of tun: <b>lost</b>"));
        assert!(!text.contains("unreliable"), "{text}");
    }

    #[test]
    fn numbers_of_a_busy_machine_are_said_to_be_unreliable() {
        let (mut context, results) = sample();
        context.load_before = 0.17;
        let text = table(&context, &results);
        let warning = "unreliable: others used up to 17 % of the CPUs, where 5 % are allowed";
        assert!(text.contains(warning), "{text}");
    }
}
