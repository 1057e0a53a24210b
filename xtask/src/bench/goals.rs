//! Performance goals, compared with the measurements.

use serde::Serialize;

use super::{results::Results, subject::Subject};
use Subject::{
    Baseline, Ceiling, Direct, Mixed, OneUplink, Overlay, OverlayOff, Services, ServicesVxlan,
    TwoUplinks, Vxlan,
};

/// One bound, and whether it holds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Goal {
    /// The bounded quantity, such as `UDP 64 B received, overlay ÷ vxlan`.
    pub(crate) text: String,
    /// `>=` or `<=`.
    pub(crate) holds: &'static str,
    pub(crate) bound: f64,
    /// The measured value; absent when something for it was not measured.
    pub(crate) value: Option<f64>,
    /// `×` for ratios.
    pub(crate) unit: &'static str,
    pub(crate) met: Option<bool>,
}

#[derive(Clone, Copy)]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

use Bound::{AtLeast, AtMost};

/// The value of overlay's metric, over that of another subject.
const RATIOS: &[(&str, &str, Subject, Bound)] = &[
    ("UDP 64 B sent", "udp_1_sent", Vxlan, AtLeast(2.0)),
    ("UDP 64 B sent", "udp_1_sent", Ceiling, AtLeast(0.97)),
    // What a sender gets rid of says little of those who lose it on the way.
    ("UDP 64 B received", "udp_1_received", Vxlan, AtLeast(2.0)),
    (
        "UDP 64 B received",
        "udp_1_received",
        Ceiling,
        AtLeast(0.97),
    ),
    (
        "UDP 64 B received",
        "udp_1_received",
        Baseline,
        AtLeast(0.98),
    ),
    ("Round trip, mean", "rtt_mean", Vxlan, AtMost(0.57)),
    ("Round trip, mean", "rtt_mean", Ceiling, AtMost(1.03)),
    ("Round trip, mean", "rtt_mean", Baseline, AtMost(1.02)),
    ("TCP, 1 stream, gso", "tcp_1_gso", Vxlan, AtLeast(1.15)),
    ("TCP, 1 stream, wire", "tcp_1_wire", Vxlan, AtLeast(1.25)),
    ("TCP, 1 stream, wire", "tcp_1_wire", Direct, AtLeast(0.85)),
    ("Transactions, 16 flows", "rr_16", Vxlan, AtLeast(1.25)),
    ("Transactions, 16 flows", "rr_16", Ceiling, AtLeast(0.97)),
    ("Connect, request, close", "crr_16", Vxlan, AtLeast(1.5)),
    ("Connect, request, close", "crr_16", Ceiling, AtLeast(0.98)),
    ("CPU time per packet", "cpu_per_packet", Vxlan, AtMost(0.60)),
    (
        "One node, UDP 64 B received",
        "local_udp_received",
        OverlayOff,
        AtLeast(1.30),
    ),
];

/// The value of a mixed pair's metric, over that of kernel VXLAN on both nodes.
const MIXED: &[(&str, &str, Subject, Bound)] = &[
    ("UDP 64 B received", "udp_1_received", Mixed, AtLeast(1.3)),
    ("TCP, 1 stream, gso", "tcp_1_gso", Mixed, AtLeast(1.15)),
    ("TCP, 1 stream, wire", "tcp_1_wire", Mixed, AtLeast(1.15)),
];

/// The value of overlay's metric through a translation, over that of kernel VXLAN through the same.
const TRANSLATED: &[(&str, &str)] = &[
    ("UDP 64 B received", "udp_1_received"),
    ("TCP, 1 stream, gso", "tcp_1_gso"),
    ("TCP, 1 stream, wire", "tcp_1_wire"),
];

/// What a program takes at 10,000 peers, in nanoseconds.
pub(crate) const NANOSECONDS: f64 = 120.0;
/// How many times as much it takes at 100,000 peers as at 10.
const GROWTH: f64 = 1.3;

/// All goals.
pub(crate) fn judge(results: &Results) -> Vec<Goal> {
    let ratios = RATIOS.iter().map(|&(what, metric, to, bound)| {
        let text = format!("{what}, overlay ÷ {to}");
        Goal::new(text, results.ratio(Overlay, metric, to), "×", bound)
    });
    let mixed = MIXED.iter().map(|&(what, metric, subject, bound)| {
        let text = format!("{what}, {subject} ÷ {Vxlan}");
        Goal::new(text, results.ratio(subject, metric, Vxlan), "×", bound)
    });
    let translated = TRANSLATED.iter().map(|&(what, metric)| {
        let text = format!("{what}, {Services} ÷ {ServicesVxlan}");
        let ratio = results.ratio(Services, metric, ServicesVxlan);
        Goal::new(text, ratio, "×", AtLeast(1.0))
    });
    let uplinks = Goal::new(
        format!("UDP, 32 flows received, {TwoUplinks} ÷ {OneUplink}"),
        results.ratio(TwoUplinks, "udp_32_received", OneUplink),
        "×",
        AtLeast(1.7),
    );
    let programs = [("Encapsulation", "encap"), ("Decapsulation", "decap")];
    let programs = programs.into_iter().flat_map(|(what, id)| {
        let at = |peers: u32| results.median(Overlay, &format!("{id}_ns_{peers}_peers"));
        let growth = at(100_000).zip(at(10)).map(|(many, few)| many / few);
        [
            Goal::new(
                format!("{what} at 10,000 peers"),
                at(10_000),
                "ns",
                AtMost(NANOSECONDS),
            ),
            Goal::new(
                format!("{what}, 100,000 peers ÷ 10 peers"),
                growth,
                "×",
                AtMost(GROWTH),
            ),
        ]
    });
    ratios
        .chain(mixed)
        .chain(translated)
        .chain([uplinks])
        .chain(programs)
        .collect()
}

impl Goal {
    pub(crate) fn new(text: String, value: Option<f64>, unit: &'static str, bound: Bound) -> Self {
        let (holds, bound, met) = match bound {
            AtLeast(bound) => (">=", bound, value.map(|value| value >= bound)),
            AtMost(bound) => ("<=", bound, value.map(|value| value <= bound)),
        };
        Self {
            text,
            holds,
            bound,
            value,
            unit,
            met,
        }
    }

    /// The bound as people write it.
    pub(crate) fn bound_text(&self) -> String {
        let sign = if self.holds == ">=" { '≥' } else { '≤' };
        format!("{sign} {}", number(self.bound, self.unit))
    }

    /// The value as people write it.
    pub(crate) fn value_text(&self) -> String {
        self.value.map_or_else(
            || "not measured".to_owned(),
            |value| number(value, self.unit),
        )
    }
}

fn number(value: f64, unit: &str) -> String {
    match unit {
        "×" => format!("{value:.2}×"),
        "ns" => format!("{value:.0} ns"),
        "" => format!("{value:.2}"),
        unit => format!("{value:.2} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{measure::Reading, metric, results};

    #[test]
    fn goals_are_about_metrics_that_there_are() {
        for &(_, id, _, _) in RATIOS.iter().chain(MIXED) {
            assert!(metric::find(id).is_some(), "{id}");
        }
    }

    #[test]
    fn a_goal_is_met_missed_or_open() {
        let (_, results) = results::tests::sample();
        let goals = judge(&results);
        let of = |text: &str| goals.iter().find(|goal| goal.text == text).unwrap();
        let udp = of("UDP 64 B received, overlay ÷ vxlan");
        assert_eq!((udp.value, udp.met), (Some(2.15), Some(true)));
        assert_eq!(
            (udp.value_text(), udp.bound_text()),
            ("2.15×".into(), "≥ 2.00×".into())
        );
        let round_trip = of("Round trip, mean, overlay ÷ vxlan");
        assert_eq!((round_trip.value, round_trip.met), (None, None));
        assert_eq!(round_trip.value_text(), "not measured");
    }

    #[test]
    fn programs_are_judged_by_time_and_by_growth() {
        let mut results = Results::default();
        for (peers, nanoseconds) in [(10, 100.0), (10_000, 110.0), (100_000, 140.0)] {
            let id = format!("encap_ns_{peers}_peers");
            results.add(1, Overlay, &[Reading::new(&id, nanoseconds).unwrap()]);
        }
        let goals = judge(&results);
        let of = |text: &str| goals.iter().find(|goal| goal.text == text).unwrap().met;
        assert_eq!(of("Encapsulation at 10,000 peers"), Some(true));
        assert_eq!(of("Encapsulation, 100,000 peers ÷ 10 peers"), Some(false));
        assert_eq!(of("Decapsulation at 10,000 peers"), None);
    }
}
