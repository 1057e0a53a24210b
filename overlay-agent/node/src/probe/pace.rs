//! When whom: everybody once in an interval, evenly spread, and never more than so many a second.

use std::time::{Duration, Instant};

/// Packets a second that are sent without being asked. With more peers than that for each second
/// of the interval, the interval is longer.
pub(crate) const CEILING: u32 = 2_000;
/// Turns in a row before something else is looked at.
const BURST: usize = 32;

/// Turns of the peers, one after another.
#[derive(Debug)]
pub(crate) struct Pace {
    asked_for: Duration,
    next: usize,
    due: Instant,
}

impl Pace {
    pub(crate) const fn new(interval: Duration, now: Instant) -> Self {
        Self {
            asked_for: interval,
            next: 0,
            due: now,
        }
    }

    /// Takes another interval.
    pub(crate) fn change(&mut self, interval: Duration) {
        self.asked_for = interval;
    }

    /// The time from a peer's turn to its next.
    pub(crate) fn interval(&self, peers: usize) -> Duration {
        self.asked_for.max(self.gap(peers) * count(peers))
    }

    /// The time from one peer's turn to the next one's.
    fn gap(&self, peers: usize) -> Duration {
        (self.asked_for / count(peers).max(1)).max(Duration::from_secs(1) / CEILING)
    }

    /// When somebody's turn is next.
    pub(crate) const fn due(&self) -> Instant {
        self.due
    }

    /// Whose turn it is by now; nobody's when nobody is there.
    pub(crate) fn turns(&mut self, peers: usize, now: Instant) -> Vec<usize> {
        let gap = self.gap(peers);
        let mut turns = Vec::new();
        while self.due <= now && turns.len() < BURST.min(peers) {
            self.next = if self.next < peers { self.next } else { 0 };
            turns.push(self.next);
            self.next += 1;
            self.due += gap;
        }
        // Who has slept does not make up for it.
        if peers == 0 || self.due + self.interval(peers) < now {
            self.due = now + gap;
        }
        turns
    }

    /// Makes room under the ceiling for packets besides one for each turn.
    pub(crate) fn also_sent(&mut self, packets: u32) {
        self.due += Duration::from_secs(1) / CEILING * packets;
    }
}

fn count(peers: usize) -> u32 {
    u32::try_from(peers).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Turns within a time, each with the moment of it.
    fn played(
        pace: &mut Pace,
        peers: usize,
        from: Instant,
        length: Duration,
    ) -> Vec<(Duration, usize)> {
        let mut turns = Vec::new();
        while pace.due() <= from + length {
            let now = pace.due();
            turns.extend(
                pace.turns(peers, now)
                    .into_iter()
                    .map(|peer| (now - from, peer)),
            );
        }
        turns
    }

    #[test]
    fn everybody_has_a_turn_in_each_interval() {
        let (now, interval) = (Instant::now(), Duration::from_secs(5));
        let mut pace = Pace::new(interval, now);
        let turns = played(&mut pace, 3, now, Duration::from_secs(14));
        let peers: Vec<usize> = turns.iter().map(|(_, peer)| *peer).collect();
        assert_eq!(peers, [0, 1, 2, 0, 1, 2, 0, 1, 2]);
        let gaps = turns.windows(2).map(|pair| pair[1].0.abs_diff(pair[0].0));
        assert!(gaps.into_iter().all(|gap| gap == interval / 3));
        assert_eq!(pace.interval(3), interval);
    }

    #[test]
    fn very_many_are_asked_less_often() {
        let now = Instant::now();
        let mut pace = Pace::new(Duration::from_secs(5), now);
        let turns = played(&mut pace, 100_000, now, Duration::from_secs(1));
        assert!(
            turns.len().abs_diff(CEILING as usize) <= 1,
            "{}",
            turns.len()
        );
        assert_eq!(pace.interval(100_000), Duration::from_secs(50));
        assert_eq!(pace.interval(1_000), Duration::from_secs(5));
    }

    #[test]
    fn what_was_missed_is_not_made_up_for() {
        let now = Instant::now();
        let mut pace = Pace::new(Duration::from_secs(1), now);
        assert_eq!(pace.turns(2, now).len(), 1);
        let later = now + Duration::from_hours(1);
        assert!(pace.turns(2, later).len() <= 2);
        assert!(pace.due() > later);
        assert!(pace.turns(2, later).is_empty());
    }

    #[test]
    fn nobody_has_no_turn_and_a_peer_that_went_has_none() {
        let now = Instant::now();
        let mut pace = Pace::new(Duration::from_secs(1), now);
        assert!(pace.turns(0, now).is_empty());
        assert!(pace.due() > now);
        let due = pace.due();
        assert_eq!(pace.turns(5, due), [0]);
        let due = pace.due();
        assert_eq!(pace.turns(1, due), [0]);
    }
}
