//! The health of one peer, as probes have found it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use overlay_control::PeerState;

use super::{
    mtu::{Search, Try},
    rtt::RoundTrips,
    window::{Loss, PATIENCE, Window},
    wire::{Message, Sizes},
};

/// Unanswered questions after which a peer counts as silent.
const MISSED: u32 = 3;
/// How long what a peer has said of the other direction is believed, at least.
const BELIEVED: Duration = Duration::from_mins(1);
/// Questions of a peer that are answered a second, and at once.
const ANSWERS: u32 = 40;

/// The agent that answers at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub(crate) node: String,
    pub(crate) version: String,
    pub(crate) abi: u32,
}

/// One peer, from the first message to it or from it on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Health {
    window: Window,
    first_asked: Option<Instant>,
    pub(crate) last_heard: Option<Instant>,
    pub(crate) last_answered: Option<Instant>,
    /// When a question came back because nobody listens there.
    pub(crate) last_refused: Option<Instant>,
    told: Option<Told>,
    pub(crate) rtt: Option<RoundTrips>,
    pub(crate) search: Search,
    pub(crate) identity: Option<Arc<Identity>>,
    /// Its last report on the packets that it sends to this node.
    pub(crate) sizes: Sizes,
    answers: Budget,
    /// The state that was last logged.
    pub(crate) noted: Option<PeerState>,
}

/// A peer's report on the other direction.
#[derive(Clone, Copy, Debug)]
struct Told {
    at: Instant,
    /// When it had last heard this node.
    heard: Option<Instant>,
}

/// How long after a question the peer counts as silent, where one is asked in each `interval`.
pub(crate) fn silence(interval: Duration) -> Duration {
    interval * MISSED + PATIENCE
}

impl Health {
    /// Notes a usual question; its number.
    pub(crate) fn ask(&mut self, now: Instant) -> u32 {
        self.first_asked.get_or_insert(now);
        self.window.ask()
    }

    /// Forgets all that follows from questions: there are none for a while.
    pub(crate) fn stop_asking(&mut self) {
        *self = Self {
            last_heard: self.last_heard,
            told: self.told,
            identity: self.identity.take(),
            sizes: self.sizes,
            answers: self.answers,
            ..Self::default()
        };
    }

    /// The packet of a certain size that is due, if one is.
    pub(crate) fn size_to_try(&mut self, now: Instant, smallest: u16, limit: u16) -> Option<Try> {
        let answered = self.last_answered?;
        self.search.turn(now, answered, smallest, limit)
    }

    /// Any message of the peer.
    pub(crate) fn hear(&mut self, now: Instant, message: &Message<'_>) {
        self.last_heard = Some(now);
        self.sizes = message.sizes;
        let known = self.identity.as_deref();
        let same = |known: &Identity| {
            (&*known.node, &*known.version, known.abi) == (message.node, message.agent, message.abi)
        };
        if !known.is_some_and(same) {
            self.identity = Some(Arc::new(Identity {
                node: message.node.to_owned(),
                version: message.agent.to_owned(),
                abi: message.abi,
            }));
        }
    }

    /// Notes what a question says of the other direction; whether it is to be answered.
    pub(crate) fn asked(&mut self, now: Instant, heard: Option<Duration>) -> bool {
        self.told = Some(Told {
            at: now,
            heard: heard.and_then(|ago| now.checked_sub(ago)),
        });
        self.answers.take(now)
    }

    /// An answer to a usual question that was sent at `sent`.
    pub(crate) fn answered(&mut self, now: Instant, number: u32, sent: Instant) {
        if !self.window.answer(number) {
            return;
        }
        self.heard_by_it(now);
        let rtt = now.saturating_duration_since(sent);
        match &mut self.rtt {
            Some(rtts) => rtts.add(rtt),
            None => self.rtt = Some(RoundTrips::first(rtt)),
        }
    }

    /// An answer about a size.
    pub(crate) fn size_answered(&mut self, now: Instant, number: u32, size: u16) {
        self.heard_by_it(now);
        self.search.answered(number, size);
    }

    fn heard_by_it(&mut self, now: Instant) {
        self.last_answered = Some(now);
        self.told = Some(Told {
            at: now,
            heard: Some(now),
        });
    }

    pub(crate) fn loss(&self, interval: Duration) -> Loss {
        self.window.loss(interval)
    }

    /// Whether the peer hears this node, by what it said last.
    pub(crate) fn is_heard(&self, now: Instant, silence: Duration) -> Option<bool> {
        let told = self
            .told
            .filter(|told| now.saturating_duration_since(told.at) <= silence.max(BELIEVED))?;
        Some(told.hears(silence))
    }

    /// Whether it is there and has nobody who listens for questions. Hosts limit how often they say
    /// so.
    pub(crate) fn refuses(&self, now: Instant, silence: Duration) -> bool {
        let recently = |at: Instant| now.saturating_duration_since(at) <= silence.max(BELIEVED);
        self.last_refused.is_some_and(recently) && self.last_answered <= self.last_refused
    }

    /// How it stands, when after `silence` without an answer a peer counts as silent.
    pub(crate) fn reach(&self, now: Instant, silence: Duration) -> PeerState {
        let Some(first_asked) = self.first_asked else {
            return PeerState::NotAsked;
        };
        let recent = |at: Instant| now.saturating_duration_since(at) <= silence;
        if self.last_answered.is_some_and(recent) {
            return PeerState::Answers;
        }
        let asked_long_before = |at: Instant| at.saturating_duration_since(first_asked) > silence;
        let says_no = self.is_heard(now, silence) == Some(false)
            && self.told.is_some_and(|told| asked_long_before(told.at));
        match self.last_answered {
            _ if says_no => PeerState::OneWay,
            Some(_) => PeerState::Silent,
            None if recent(first_asked) => PeerState::Waiting,
            None => PeerState::NoAgent,
        }
    }
}

impl Told {
    fn hears(self, silence: Duration) -> bool {
        self.heard
            .is_some_and(|heard| self.at.saturating_duration_since(heard) <= silence)
    }
}

/// So much a second, and no more at once.
#[derive(Clone, Copy, Debug, Default)]
struct Budget {
    since: Option<Instant>,
    used: u32,
}

impl Budget {
    fn take(&mut self, now: Instant) -> bool {
        const SECOND: Duration = Duration::from_secs(1);
        let since = *self.since.get_or_insert(now);
        if now.saturating_duration_since(since) >= SECOND {
            *self = Self {
                since: Some(now),
                used: 0,
            };
        }
        self.used += 1;
        self.used <= ANSWERS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::wire::Kind;

    const INTERVAL: Duration = Duration::from_secs(1);

    /// A peer in a world whose clock a test moves.
    struct World {
        health: Health,
        now: Instant,
        silence: Duration,
    }

    impl World {
        fn new() -> Self {
            Self {
                health: Health::default(),
                now: Instant::now(),
                silence: silence(INTERVAL),
            }
        }

        fn asks(&mut self, answered: bool) {
            let number = self.health.ask(self.now);
            let sent = self.now;
            if answered {
                self.hears();
                self.health
                    .answered(self.now + INTERVAL / 100, number, sent);
            }
            self.now += INTERVAL;
        }

        fn is_asked(&mut self, heard: Option<Duration>) -> bool {
            self.hears();
            self.health.asked(self.now, heard)
        }

        fn hears(&mut self) {
            let message = Message {
                kind: Kind::Question,
                size: 140,
                vni: 1,
                sequence: 1,
                time: 0,
                heard: None,
                abi: 3,
                agent: "1",
                node: "n",
                sizes: Sizes::default(),
            };
            self.health.hear(self.now, &message);
        }

        fn reach(&self) -> PeerState {
            self.health.reach(self.now, self.silence)
        }
    }

    #[test]
    fn who_never_answered_has_no_agent_and_who_did_is_silent() {
        let mut world = World::new();
        assert_eq!(world.reach(), PeerState::NotAsked);
        world.asks(false);
        assert_eq!(world.reach(), PeerState::Waiting);
        for _ in 0..5 {
            world.asks(false);
        }
        assert_eq!(world.reach(), PeerState::NoAgent);
        world.asks(true);
        assert_eq!(world.reach(), PeerState::Answers);
        for _ in 0..3 {
            world.asks(false);
        }
        assert_eq!(world.reach(), PeerState::Answers, "three may be lost");
        for _ in 0..3 {
            world.asks(false);
        }
        assert_eq!(world.reach(), PeerState::Silent);
        assert_eq!(world.health.loss(INTERVAL), Loss { asked: 6, lost: 5 });
    }

    #[test]
    fn who_asks_and_does_not_hear_is_one_way() {
        for answered_before in [false, true] {
            let mut world = World::new();
            world.asks(answered_before);
            for _ in 0..10 {
                world.asks(false);
                let ago = answered_before.then(|| world.now - world.health.first_asked.unwrap());
                world.is_asked(ago);
            }
            assert_eq!(world.reach(), PeerState::OneWay);
            assert_eq!(world.health.is_heard(world.now, world.silence), Some(false));
            world.asks(true);
            assert_eq!(world.reach(), PeerState::Answers);
        }
    }

    #[test]
    fn a_peer_that_starts_is_not_one_way() {
        let mut world = World::new();
        world.asks(false);
        world.is_asked(None);
        assert_eq!(world.reach(), PeerState::Waiting);
    }

    #[test]
    fn who_refuses_is_there() {
        let mut world = World::new();
        let refuses = |world: &World| world.health.refuses(world.now, world.silence);
        assert!(!refuses(&world));
        world.asks(false);
        world.health.last_refused = Some(world.now);
        assert!(refuses(&world));
        world.now += INTERVAL;
        world.asks(true);
        assert!(!refuses(&world), "somebody listens now");
        world.health.last_refused = Some(world.now);
        world.now += 2 * BELIEVED;
        assert!(!refuses(&world), "that was long ago");
    }

    #[test]
    fn what_was_said_long_ago_is_not_believed() {
        let mut world = World::new();
        for _ in 0..10 {
            world.asks(false);
        }
        world.is_asked(None);
        assert_eq!(world.reach(), PeerState::OneWay);
        world.now += 2 * BELIEVED;
        assert_eq!(world.reach(), PeerState::NoAgent);
        assert_eq!(world.health.is_heard(world.now, world.silence), None);
    }

    #[test]
    fn a_peer_that_asks_too_often_is_not_always_answered() {
        let mut world = World::new();
        let answered = (0..3 * ANSWERS).filter(|_| world.is_asked(None)).count();
        assert_eq!(answered, ANSWERS as usize);
        world.now += INTERVAL;
        assert!(world.is_asked(None));
    }

    #[test]
    fn who_is_not_asked_any_more_is_not_silent() {
        let mut world = World::new();
        world.asks(true);
        world.now += 60 * INTERVAL;
        assert_eq!(world.reach(), PeerState::Silent);
        world.health.stop_asking();
        assert_eq!(world.reach(), PeerState::NotAsked);
        assert!(world.health.last_heard.is_some() && world.health.identity.is_some());
        world.asks(false);
        assert_eq!(world.reach(), PeerState::Waiting);
    }

    #[test]
    fn an_answer_without_a_question_changes_nothing() {
        let mut world = World::new();
        world.asks(false);
        world.health.answered(world.now, 7, world.now);
        assert_eq!(world.health.rtt, None);
        assert_eq!(world.reach(), PeerState::Waiting);
    }
}
