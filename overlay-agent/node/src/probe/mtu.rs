//! The largest packet that arrives at a peer, found by trying.
//!
//! Nobody on the way has to tell that a packet was too big: what is not answered did not arrive.
//! A healthy path costs one packet of the network's MTU now and then. Otherwise the search goes
//! to where the limit was the last time, then to 1280 bytes (that IPv6 needs), then halves.

use std::time::Instant;

use overlay_core::model::MIN_IPV6_MTU;

use super::window::PATIENCE;

/// Turns of a peer from the end of a search to the next one.
const REST: u8 = 12;
/// How often a packet must vanish before it is its size that is to blame.
const TRIES: u8 = 3;

/// The MTU that a path is known to carry, and the state of the search for a larger one.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Search {
    /// Nothing larger is sent: the network's MTU.
    limit: u16,
    found: Option<u16>,
    running: Option<Running>,
    rested: u8,
    sequence: u32,
}

#[derive(Clone, Copy, Debug)]
struct Running {
    /// The largest that has arrived.
    arrives: u16,
    /// The smallest that has not.
    vanishes: Option<u16>,
    /// Sent and not answered yet.
    sent: Option<Sent>,
    /// How often this size was sent.
    tries: u8,
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    size: u16,
    sequence: u32,
    at: Instant,
}

/// A packet to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Try {
    pub(crate) size: u16,
    pub(crate) sequence: u32,
}

impl Search {
    /// The largest packet that arrives, once a search has come to an end.
    pub(crate) const fn found(&self) -> Option<u16> {
        self.found
    }

    /// What is to be sent at this turn of a peer, which has last answered a usual question
    /// at `answered`.
    ///
    /// Packets of `smallest` bytes arrive: it answers them. More than `limit` are never sent.
    pub(crate) fn turn(
        &mut self,
        now: Instant,
        answered: Instant,
        smallest: u16,
        limit: u16,
    ) -> Option<Try> {
        if self.limit != limit {
            *self = Self {
                limit,
                sequence: self.sequence,
                ..Self::default()
            };
        }
        let mut running = match self.running {
            Some(running) => running,
            None if self.found.is_some() && self.rested < REST => {
                self.rested += 1;
                return None;
            }
            None => Running {
                arrives: smallest,
                vanishes: None,
                sent: None,
                tries: 0,
            },
        };
        if let Some(sent) = running.sent {
            // A peer that answers nothing at all says nothing about sizes.
            if now.saturating_duration_since(sent.at) < PATIENCE || answered <= sent.at {
                return None;
            }
            if running.tries == TRIES {
                running.vanishes = Some(sent.size);
                running.tries = 0;
            }
        }
        let size = running.next_size(limit, self.found);
        self.running = Some(running);
        let Some(size) = size else {
            self.end(running.arrives);
            return None;
        };
        self.sequence = self.sequence.wrapping_add(1);
        let sequence = self.sequence;
        self.running = Some(Running {
            sent: Some(Sent {
                size,
                sequence,
                at: now,
            }),
            tries: running.tries + 1,
            ..running
        });
        Some(Try { size, sequence })
    }

    /// A packet was answered.
    pub(crate) fn answered(&mut self, sequence: u32, size: u16) {
        let Some(running) = &mut self.running else {
            return;
        };
        let Some(sent) = running.sent else { return };
        if (sent.sequence, sent.size) != (sequence, size) {
            return;
        }
        running.arrives = sent.size;
        running.sent = None;
        running.tries = 0;
        if running.next_size(self.limit, self.found).is_none() {
            let arrives = running.arrives;
            self.end(arrives);
        }
    }

    /// This node itself could not send a packet because of its size.
    pub(crate) fn refused(&mut self) {
        if let Some(running) = &mut self.running
            && let Some(sent) = running.sent.take()
        {
            running.vanishes = Some(sent.size);
            running.tries = 0;
        }
    }

    fn end(&mut self, arrives: u16) {
        self.found = Some(arrives);
        self.running = None;
        self.rested = 0;
    }
}

impl Running {
    /// The next size to try; `None` when there is nothing left to find out.
    fn next_size(&self, limit: u16, last_time: Option<u16>) -> Option<u16> {
        let Some(vanishes) = self.vanishes else {
            return (self.arrives < limit).then_some(limit);
        };
        let (low, high) = (self.arrives, vanishes);
        if self.tries > 0 {
            return self.sent.map(|sent| sent.size);
        }
        let last_time = last_time
            .into_iter()
            .flat_map(|last| [last, last.saturating_add(1)]);
        let mut guesses = last_time.chain([MIN_IPV6_MTU]);
        guesses
            .find(|guess| (low + 1..high).contains(guess))
            .or_else(|| (low + 1 < high).then(|| low.midpoint(high)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    /// Plays a path that carries `path` bytes; packets and turns until there is a result.
    fn play(search: &mut Search, path: u16, limit: u16) -> (Vec<u16>, usize) {
        let mut now = Instant::now();
        let mut sizes = Vec::new();
        let before = search.found;
        for turn in 0..200 {
            now += Duration::from_secs(1);
            if let Some(sent) = search.turn(now, now, 140, limit) {
                assert!(sent.size <= limit);
                sizes.push(sent.size);
                if sent.size <= path {
                    search.answered(sent.sequence, sent.size);
                }
            }
            if search.running.is_none()
                && !sizes.is_empty()
                && (search.found != before || turn >= REST.into())
            {
                return (sizes, turn);
            }
        }
        panic!("no end: {search:?} after {sizes:?}");
    }

    #[test]
    fn a_healthy_path_costs_one_packet() {
        let mut search = Search::default();
        assert_eq!(play(&mut search, 1450, 1450), (vec![1450], 0));
        assert_eq!(search.found(), Some(1450));
        // And one again after a rest.
        let (sizes, turns) = play(&mut search, 1450, 1450);
        assert_eq!((sizes, turns), (vec![1450], REST.into()));
    }

    #[test]
    fn what_was_found_is_confirmed_in_few_packets() {
        let mut search = Search::default();
        let (first, _) = play(&mut search, 1380, 1450);
        assert_eq!(search.found(), Some(1380));
        assert!(first.len() < 30, "{first:?}");
        let (again, _) = play(&mut search, 1380, 1450);
        assert_eq!(again, [1450, 1450, 1450, 1380, 1381, 1381, 1381]);
    }

    proptest! {
        #[test]
        fn every_limit_is_found(path in 140..9000_u16, limit in 141..9000_u16) {
            let mut search = Search::default();
            play(&mut search, path, limit);
            prop_assert_eq!(search.found(), Some(path.min(limit)));
        }
    }

    #[test]
    fn a_silent_peer_says_nothing_about_sizes() {
        let (mut search, mut now) = (Search::default(), Instant::now());
        let answered = now;
        assert!(search.turn(now, answered, 140, 1450).is_some());
        for _ in 0..50 {
            now += Duration::from_secs(5);
            assert_eq!(search.turn(now, answered, 140, 1450), None);
        }
        assert_eq!(search.found(), None);
    }

    #[test]
    fn two_packets_may_be_lost_for_another_reason() {
        let (mut search, mut now) = (Search::default(), Instant::now());
        for _ in 1..TRIES {
            assert_eq!(
                search.turn(now, now, 140, 1450).map(|sent| sent.size),
                Some(1450)
            );
            now += PATIENCE;
        }
        let last = search.turn(now, now, 140, 1450).unwrap();
        search.answered(last.sequence, last.size);
        assert_eq!(search.found(), Some(1450));
    }

    #[test]
    fn an_answer_to_something_else_is_none() {
        let (mut search, now) = (Search::default(), Instant::now());
        let sent = search.turn(now, now, 140, 1450).unwrap();
        search.answered(sent.sequence, sent.size - 1);
        search.answered(sent.sequence + 1, sent.size);
        assert_eq!(search.found(), None);
    }

    #[test]
    fn what_this_node_cannot_send_is_not_tried_again() {
        let (mut search, now) = (Search::default(), Instant::now());
        assert_eq!(
            search.turn(now, now, 140, 1450).map(|sent| sent.size),
            Some(1450)
        );
        search.refused();
        assert_eq!(
            search.turn(now, now, 140, 1450).map(|sent| sent.size),
            Some(1280)
        );
    }

    #[test]
    fn another_mtu_is_another_search() {
        let (mut search, now) = (Search::default(), Instant::now());
        assert_eq!(
            search.turn(now, now, 140, 1450).map(|sent| sent.size),
            Some(1450)
        );
        assert_eq!(
            search.turn(now, now, 140, 1380).map(|sent| sent.size),
            Some(1380)
        );
    }
}
