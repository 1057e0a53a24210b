//! Curves over the number of peers.

use super::WIDTH;
use crate::bench::{
    goals,
    metric::{self, PEERS},
    report::{
        figure::with_unit,
        svg::{Anchor, Drawing},
    },
    results::Results,
    stats::Summary,
    subject::Subject,
};

/// Where the plot begins, and what is left beside it for names.
const LEFT: f64 = 92.0;
const RIGHT: f64 = 120.0;
const TOP: f64 = 30.0;
const HEIGHT: f64 = 240.0;
const BOTTOM: f64 = HEIGHT - 34.0;

/// A curve over the number of peers.
struct Curve {
    name: String,
    class: &'static str,
    points: Vec<(u32, Summary)>,
    unit: &'static str,
}

pub(super) fn panels(results: &Results) -> Vec<(&'static str, Drawing)> {
    let curve = |subject: Subject, id: &str, name: String, class| {
        let metric = |peers| metric::find(&format!("{id}_{peers}_peers"));
        let points: Vec<_> = PEERS
            .iter()
            .filter_map(|&peers| Some((peers, results.summary(subject, metric(peers)?)?)))
            .collect();
        Some(Curve {
            name,
            class,
            unit: points.first()?.1.unit,
            points,
        })
    };
    let rates: Vec<Curve> = [(Subject::Vxlan, "vxlan"), (Subject::Overlay, "overlay")]
        .into_iter()
        .filter_map(|(subject, class)| curve(subject, "pps", subject.name().to_owned(), class))
        .collect();
    let costs = [
        ("encap_ns", "encapsulation", "overlay"),
        ("decap_ns", "decapsulation", "overlay second"),
    ];
    let costs: Vec<Curve> = costs
        .into_iter()
        .filter_map(|(id, name, class)| curve(Subject::Overlay, id, name.to_owned(), class))
        .collect();
    [
        ("Packets sent to random peers", rates, None),
        (
            "A program's time for a packet",
            costs,
            Some(goals::NANOSECONDS),
        ),
    ]
    .into_iter()
    .filter_map(|(title, curves, goal)| Some((title, plot(title, &curves, goal)?)))
    .collect()
}

/// Curves over a logarithmic number of peers, and a goal that they should stay below.
fn plot(title: &'static str, curves: &[Curve], goal: Option<f64>) -> Option<Drawing> {
    let values = curves.iter().flat_map(|curve| &curve.points);
    let highest = values.map(|(_, summary)| summary.max).fold(0.0, f64::max);
    let step = step(highest.max(goal.unwrap_or(0.0)));
    let unit = curves.first()?.unit;
    let axes = Axes {
        top: (highest.max(goal.unwrap_or(0.0)) / step).ceil() * step,
    };

    let mut drawing = Drawing::new(WIDTH, HEIGHT);
    drawing.text((0.0, 14.0), Anchor::Start, "title", title);
    axes.draw(&mut drawing, step, unit);
    if let Some(goal) = goal {
        let y = axes.y(goal);
        drawing.line((LEFT, y), (WIDTH - RIGHT, y), "goal");
        let label = format!("goal {}", with_unit(goal, unit));
        drawing.text((WIDTH - RIGHT - 4.0, y - 5.0), Anchor::End, "muted", &label);
    }
    let mut names = Vec::new();
    for curve in curves {
        axes.trace(&mut drawing, curve);
        if let Some((_, last)) = curve.points.last() {
            names.push((axes.y(last.median), curve.name.as_str(), last.median));
        }
    }
    for (y, name, value) in apart(names) {
        let x = WIDTH - RIGHT + 12.0;
        drawing.text((x, y), Anchor::Start, "strong", name);
        let value = with_unit(value, unit);
        drawing.text((x, y + 15.0), Anchor::Start, "muted", &value);
    }
    Some(drawing)
}

/// Moves names down that would stand on the one above.
fn apart(mut names: Vec<(f64, &str, f64)>) -> Vec<(f64, &str, f64)> {
    const APART: f64 = 36.0;
    names.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut least = f64::MIN;
    for name in &mut names {
        name.0 = name.0.max(least);
        least = name.0 + APART;
    }
    names
}

/// A round number of which three to six reach this high.
fn step(highest: f64) -> f64 {
    let unit = 10_f64.powf((highest / 3.0).log10().floor());
    let times = [5.0, 2.0, 1.0]
        .into_iter()
        .find(|times| times * unit <= highest / 3.0);
    times.unwrap_or(1.0) * unit
}

/// From numbers of peers and values to points.
struct Axes {
    top: f64,
}

impl Axes {
    fn x(peers: u32) -> f64 {
        let [peers, least, most] =
            [peers, PEERS[0], PEERS[PEERS.len() - 1]].map(|peers| f64::from(peers).log10());
        LEFT + (WIDTH - LEFT - RIGHT) * (peers - least) / (most - least)
    }

    fn y(&self, value: f64) -> f64 {
        BOTTOM - (BOTTOM - TOP) * value / self.top
    }

    fn draw(&self, drawing: &mut Drawing, step: f64, unit: &str) {
        let mut value = 0.0;
        while value <= self.top + step / 2.0 {
            let (y, zero) = (self.y(value), value == 0.0);
            let class = if zero { "axis" } else { "grid" };
            drawing.line((LEFT, y), (WIDTH - RIGHT, y), class);
            let label = if zero {
                "0".to_owned()
            } else {
                with_unit(value, unit)
            };
            drawing.text((LEFT - 8.0, y + 4.0), Anchor::End, "muted", &label);
            value += step;
        }
        for peers in PEERS {
            let label = grouped(peers);
            drawing.text(
                (Self::x(peers), BOTTOM + 18.0),
                Anchor::Middle,
                "muted",
                &label,
            );
        }
        let after = (WIDTH - RIGHT + 40.0, BOTTOM + 18.0);
        drawing.text(after, Anchor::Start, "muted", "peers");
    }

    fn trace(&self, drawing: &mut Drawing, curve: &Curve) {
        let at = |(peers, summary): &(u32, Summary)| (Self::x(*peers), self.y(summary.median));
        let line: Vec<_> = curve.points.iter().map(at).collect();
        drawing.curve(&line, curve.class);
        for point in &curve.points {
            let (peers, summary) = point;
            let x = Self::x(*peers);
            drawing.line(
                (x, self.y(summary.min)),
                (x, self.y(summary.max)),
                "whisker",
            );
            let told = format!(
                "{}, {} peers: {}",
                curve.name,
                grouped(*peers),
                with_unit(summary.median, curve.unit)
            );
            drawing.dot(at(point), curve.class, &told);
        }
    }
}

/// 100000 as 100,000.
fn grouped(number: u32) -> String {
    if number < 1_000 {
        number.to_string()
    } else {
        format!("{},{:03}", grouped(number / 1_000), number % 1_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::tests::sample;

    #[test]
    fn growth_is_a_curve() {
        let (_, results) = sample();
        let panels = panels(&results);
        assert_eq!(panels.len(), 1, "no cost was measured");
        let text = panels[0].1.inline("");
        assert!(text.contains("<polyline") && text.contains("100,000"));
    }

    #[test]
    fn steps_are_round_and_few() {
        for (highest, expected) in [(738.0, 200.0), (584e3, 1e5), (3.0, 1.0), (120.0, 20.0)] {
            let step = step(highest);
            assert!(
                (step - expected).abs() < 1e-6 * expected,
                "{highest}: {step}"
            );
        }
    }

    #[test]
    fn names_do_not_stand_on_each_other() {
        let moved = apart(vec![(50.0, "b", 1.0), (40.0, "a", 2.0), (200.0, "c", 3.0)]);
        let at: Vec<_> = moved.iter().map(|&(y, name, _)| (name, y)).collect();
        assert_eq!(at, [("a", 40.0), ("b", 76.0), ("c", 200.0)]);
    }
}
