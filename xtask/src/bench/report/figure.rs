//! Numbers as people read them.

/// A value with at most four digits, and its unit: `381 kpps`, `12.1 Gbit/s`.
pub(crate) fn with_unit(value: f64, unit: &str) -> String {
    match unit {
        "packets/s" => format!("{}pps", scaled(value)),
        "1/s" => format!("{}/s", scaled(value)),
        "frames" => short(value),
        _ => format!("{} {unit}", short(value)),
    }
}

/// From the lowest to the highest: `470 – 490 kpps`, `990 kpps – 1.02 Mpps`.
pub(super) fn spread(low: f64, high: f64, unit: &str) -> String {
    let [low, high] = [low, high].map(|value| with_unit(value, unit));
    match (low.split_once(' '), high.split_once(' ')) {
        (Some((number, low_unit)), Some((_, high_unit))) if low_unit == high_unit => {
            format!("{number} – {high}")
        }
        _ => format!("{low} – {high}"),
    }
}

/// Thousands and millions by their letter, after a space.
fn scaled(value: f64) -> String {
    if value >= 999_500.0 {
        format!("{} M", short(value / 1e6))
    } else if value >= 1_000.0 {
        format!("{} k", short(value / 1e3))
    } else {
        format!("{} ", short(value))
    }
}

/// Three significant digits; all of them before the point.
fn short(value: f64) -> String {
    let decimals = match value.abs() {
        below if below < 9.995 => 2,
        below if below < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}")
}

/// A ratio: `1.79×`.
pub(super) fn ratio(value: f64) -> String {
    format!("{value:.2}×")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        for (value, unit, text) in [
            (381_234.0, "packets/s", "381 kpps"),
            (1_234_567.0, "packets/s", "1.23 Mpps"),
            (999_600.0, "packets/s", "1.00 Mpps"),
            (42.0, "1/s", "42.0 /s"),
            (12.345, "Gbit/s", "12.3 Gbit/s"),
            (6.2, "µs", "6.20 µs"),
            (9.999, "µs", "10.0 µs"),
            (2_345.6, "ns", "2346 ns"),
            (40.2, "frames", "40.2"),
        ] {
            assert_eq!(with_unit(value, unit), text);
        }
        assert_eq!(ratio(1.789), "1.79×");
        assert_eq!(spread(470e3, 490e3, "packets/s"), "470 – 490 kpps");
        assert_eq!(spread(990e3, 1_020e3, "packets/s"), "990 kpps – 1.02 Mpps");
        assert_eq!(spread(24.0, 30.0, "frames"), "24.0 – 30.0");
    }
}
