//! The clock that all streams of a load share: when it began, and whether it is to end.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// How often senders and receivers work.
pub(super) const BEAT: Duration = Duration::from_millis(1);
/// How long a receiver waits for a packet that is under way after the last was sent.
pub(super) const UNDER_WAY: Duration = Duration::from_millis(500);

/// Shared by the threads of a load.
#[derive(Clone, Debug)]
pub(super) struct Clock {
    began: Instant,
    end: Arc<AtomicBool>,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self {
            began: Instant::now(),
            end: Arc::default(),
        }
    }

    pub(super) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    pub(super) fn end(&self) {
        self.end.store(true, Ordering::Relaxed);
    }

    pub(super) fn has_ended(&self) -> bool {
        self.end.load(Ordering::Relaxed)
    }
}

/// Wakes its thread at every beat. Only the last few that were missed are made up for: more
/// would be a burst that no queue has room for.
pub(super) struct Beat(Instant);

impl Beat {
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    pub(super) fn wait(&mut self) {
        const MADE_UP_FOR: u32 = 5;
        let now = Instant::now();
        let earliest = now.checked_sub(MADE_UP_FOR * BEAT).unwrap_or(now);
        self.0 = (self.0 + BEAT).max(earliest);
        thread::sleep(self.0.saturating_duration_since(now));
    }
}
