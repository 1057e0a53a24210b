//! Round trips of one peer: how long, how steady.

use std::time::Duration;

/// Figures of the round trips so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RoundTrips {
    pub(crate) last: Duration,
    pub(crate) least: Duration,
    /// Moves an eighth of the way to each new one, as TCP's does (RFC 6298 §2.3).
    pub(crate) smoothed: Duration,
    /// How much one differs from the next, moving by a sixteenth: the estimator of RFC 3550
    /// §6.4.1, on round trips, because the clocks of two nodes are not one.
    pub(crate) jitter: Duration,
}

impl RoundTrips {
    pub(crate) const fn first(rtt: Duration) -> Self {
        Self {
            last: rtt,
            least: rtt,
            smoothed: rtt,
            jitter: Duration::ZERO,
        }
    }

    pub(crate) fn add(&mut self, rtt: Duration) {
        let difference = rtt.abs_diff(self.last);
        self.jitter = self.jitter * 15 / 16 + difference / 16;
        self.smoothed = self.smoothed * 7 / 8 + rtt / 8;
        self.least = self.least.min(rtt);
        self.last = rtt;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_steady_peer_has_no_jitter() {
        let mut rtt = RoundTrips::first(10 * MS);
        for _ in 0..100 {
            rtt.add(10 * MS);
        }
        assert!(rtt.smoothed.abs_diff(10 * MS) < MS / 1000);
        assert_eq!((rtt.least, rtt.jitter), (10 * MS, Duration::ZERO));
    }

    #[test]
    fn jitter_tends_to_the_mean_difference() {
        let mut rtt = RoundTrips::first(10 * MS);
        for turn in 0..200 {
            rtt.add(if turn % 2 == 0 { 14 * MS } else { 10 * MS });
        }
        assert!(rtt.jitter.abs_diff(4 * MS) < MS / 100, "{:?}", rtt.jitter);
        assert!(rtt.smoothed.abs_diff(12 * MS) < MS, "{:?}", rtt.smoothed);
        assert_eq!((rtt.least, rtt.last), (10 * MS, 10 * MS));
    }
}
