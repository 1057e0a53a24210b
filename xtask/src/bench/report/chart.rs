//! Charts: bars with their spread for each metric, curves for growth.

mod curves;

use super::{
    figure::{ratio, spread, with_unit},
    svg::{Anchor, Drawing},
};
use crate::bench::{
    metric::{Better, Group, Metric},
    results::Results,
    stats::Summary,
    subject::Subject,
};

const WIDTH: f64 = 560.0;
/// Where bars begin, and how long the longest is.
const LEFT: f64 = 92.0;
const LENGTH: f64 = 240.0;
const HEAD: f64 = 30.0;
const ROW: f64 = 26.0;
const THICKNESS: f64 = 16.0;

/// The charts of a group, one below the other.
pub(super) fn of_group(group: Group, results: &Results) -> Option<Drawing> {
    let panels = panels(group, results);
    let drawings: Vec<Drawing> = panels.into_iter().map(|(_, drawing)| drawing).collect();
    (!drawings.is_empty()).then(|| Drawing::stack(&drawings))
}

/// The charts of a group with their titles.
pub(super) fn panels(group: Group, results: &Results) -> Vec<(&'static str, Drawing)> {
    if group == Group::Growth {
        return curves::panels(results);
    }
    results
        .metrics()
        .filter(|metric| metric.group == group)
        .map(|metric| (metric.title, bars(metric, results)))
        .collect()
}

/// A bar for each subject, as long as its median; a line from its lowest to its highest value.
fn bars(metric: &Metric, results: &Results) -> Drawing {
    let rows: Vec<(Subject, Summary)> = results
        .subjects_of(metric)
        .into_iter()
        .filter_map(|subject| Some((subject, results.summary(subject, metric)?)))
        .collect();
    let scale = scale(&rows);
    let mut y = HEAD;
    let mut drawing = Drawing::new(WIDTH, HEAD + ROW * count(rows.len()));
    drawing.text((0.0, 14.0), Anchor::Start, "title", metric.title);
    let better = match metric.better {
        Better::Higher => "more is better",
        Better::Lower => "less is better",
    };
    drawing.text((WIDTH, 14.0), Anchor::End, "muted", better);
    for (subject, summary) in &rows {
        bar(&mut drawing, y, scale, (*subject, summary), metric, results);
        y += ROW;
    }
    drawing
}

fn bar(
    drawing: &mut Drawing,
    y: f64,
    scale: f64,
    (subject, summary): (Subject, &Summary),
    metric: &Metric,
    results: &Results,
) {
    let at = |value: f64| LEFT + LENGTH * (value / scale).min(1.0);
    let (middle, base) = (y + THICKNESS / 2.0, y + THICKNESS - 4.0);
    let name_class = if subject == Subject::Overlay {
        "strong"
    } else {
        ""
    };
    drawing.text((LEFT - 8.0, base), Anchor::End, name_class, subject.name());
    let told = format!(
        "{}: {} ({})",
        subject.about(),
        with_unit(summary.median, metric.unit),
        spread(summary.min, summary.max, metric.unit)
    );
    drawing.bar(
        (LEFT, y),
        (at(summary.median) - LEFT, THICKNESS),
        subject.name(),
        &told,
    );
    let mut end = at(summary.median);
    if summary.median > scale {
        // Too long to be drawn beside the others.
        let x = end - 24.0;
        drawing.line((x - 3.0, y + THICKNESS + 2.0), (x + 3.0, y - 2.0), "cut");
    } else {
        let (low, high) = (at(summary.min), at(summary.max));
        drawing.line((low, middle), (high, middle), "whisker");
        for x in [low, high] {
            drawing.line((x, middle - 4.0), (x, middle + 4.0), "whisker");
        }
        end = end.max(high);
    }
    drawing.text(
        (end + 8.0, base),
        Anchor::Start,
        name_class,
        &with_unit(summary.median, metric.unit),
    );
    let reference = reference(metric);
    if subject != reference
        && let Some(value) = results.ratio(subject, metric.id, reference)
    {
        let class = format!("badge {}", subject.name());
        let text = format!("{} {reference}", ratio(value));
        drawing.text((WIDTH, base), Anchor::End, &class, &text);
    }
}

/// What overlay is compared with.
fn reference(metric: &Metric) -> Subject {
    if metric.group == Group::Local {
        Subject::OverlayOff
    } else {
        Subject::Vxlan
    }
}

/// The value of the longest bar. One subject that has far more than all others is cut, or
/// nothing would be seen of them.
fn scale(rows: &[(Subject, Summary)]) -> f64 {
    const FAR: f64 = 3.0;
    let highest = |rows: &[&Summary]| rows.iter().map(|row| row.max).fold(0.0, f64::max);
    let mut sorted: Vec<&Summary> = rows.iter().map(|(_, summary)| summary).collect();
    sorted.sort_by(|a, b| a.median.total_cmp(&b.median));
    let Some((last, others)) = sorted.split_last() else {
        return 1.0;
    };
    let without = highest(others);
    if !others.is_empty() && last.median > FAR * without {
        return without * 1.25;
    }
    highest(&sorted)
}

fn count(rows: usize) -> f64 {
    f64::from(u32::try_from(rows).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::tests::sample;

    fn row(values: &[f64]) -> (Subject, Summary) {
        (Subject::Bare, Summary::of(values, "µs").unwrap())
    }

    #[test]
    fn one_far_bar_is_cut_and_two_are_not() {
        let (short, long) = (row(&[5.0]), row(&[6.0, 7.0, 9.0]));
        let (far, farther) = (row(&[450.0]), row(&[460.0]));
        for (rows, expected) in [
            (vec![short.clone(), long.clone()], 9.0),
            (vec![short.clone(), long.clone(), far.clone()], 9.0 * 1.25),
            (vec![short, long, far.clone(), farther], 460.0),
            (vec![far], 450.0),
        ] {
            assert!((scale(&rows) - expected).abs() < 1e-9, "{rows:?}");
        }
    }

    #[test]
    fn a_panel_shows_every_subject_and_its_ratio() {
        let (_, results) = sample();
        let [(title, drawing)] = &panels(Group::Udp, &results)[..] else {
            panic!("one metric was measured");
        };
        assert_eq!(*title, "UDP 64 B, 1 flow, received");
        let text = drawing.inline(title);
        for part in ["bare", "vxlan", "overlay", "420 kpps", "2.15× vxlan"] {
            assert!(text.contains(part), "{part}");
        }
        assert!(panels(Group::Latency, &results).is_empty());
    }
}
