//! Statistics of one metric over the rounds.

use serde::Serialize;

/// A metric of a subject over all rounds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Summary {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    pub(crate) unit: &'static str,
    /// One a round, in their order; a round in which the measurement failed has none.
    pub(crate) values: Vec<f64>,
}

impl Summary {
    /// None without values.
    pub(crate) fn of(values: &[f64], unit: &'static str) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (&min, &max) = (sorted.first()?, sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        };
        Some(Self {
            median,
            min,
            max,
            unit,
            values: values.to_vec(),
        })
    }
}

/// The mean of the lower 99 %: an interrupt in a run of nanoseconds is not the run's cost.
pub(crate) fn mean_without_interrupts(samples: &mut [u32]) -> Option<f64> {
    samples.sort_unstable();
    let kept = &samples[..samples.len() - samples.len() / 100];
    let sum: f64 = kept.iter().copied().map(f64::from).sum();
    let count = f64::from(u32::try_from(kept.len()).ok()?);
    (count > 0.0).then(|| sum / count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_in_the_middle() {
        let summary = Summary::of(&[9.0, 1.0, 5.0], "µs").unwrap();
        assert_eq!((summary.min, summary.median, summary.max), (1.0, 5.0, 9.0));
        assert_eq!(summary.values, [9.0, 1.0, 5.0], "in order of the rounds");
        let even = Summary::of(&[4.0, 2.0], "µs");
        assert_eq!(even.map(|summary| summary.median), Some(3.0));
        assert_eq!(Summary::of(&[], "µs"), None);
    }

    #[test]
    fn the_slowest_hundredth_is_left_out() {
        let mut samples = vec![100; 198];
        samples.extend([9_000, 90_000]);
        assert_eq!(mean_without_interrupts(&mut samples), Some(100.0));
        assert_eq!(mean_without_interrupts(&mut [7]), Some(7.0));
        assert_eq!(mean_without_interrupts(&mut []), None);
    }
}
