//! Notifies the service manager, where one has started the agent: `sd_notify(3)`.

use std::{future::pending, time::Duration};

use overlay_core::plural::count_of;
use sd_notify::NotifyState;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

use super::Reconciler;

/// A node on which something fails again and again is as ready as it can be.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long it should go on waiting for an agent that waits for its underlay: until the next
/// round, which tells it again, and far longer.
const WAIT: Duration = Duration::from_mins(1);

/// The service manager, if there is one: without `NOTIFY_SOCKET` nobody is told anything.
pub(super) struct Supervisor {
    since: Instant,
    ready: bool,
    told: Option<String>,
    /// How often it wants to hear that the agent lives.
    watchdog: Option<Duration>,
    next: Instant,
}

impl Supervisor {
    pub(super) fn find() -> Self {
        let now = Instant::now();
        Self {
            since: now,
            ready: false,
            told: None,
            // Twice as often as it must be, as systemd advises.
            watchdog: sd_notify::watchdog_enabled().map(|limit| limit / 2),
            next: now,
        }
    }

    /// Waits until it has to hear that the agent lives.
    pub(super) async fn wants_to_hear(&self) {
        match self.watchdog {
            Some(_) => sleep_until(self.next).await,
            None => pending().await,
        }
    }

    /// Tells that the agent lives.
    pub(super) fn alive(&mut self) {
        if let Some(interval) = self.watchdog {
            tell(&[NotifyState::Watchdog]);
            self.next = Instant::now() + interval;
        }
    }

    /// Tells how the node is after a round.
    pub(super) fn round(&mut self, reconciler: &Reconciler) {
        let text = summary(reconciler);
        if self.told.as_ref() != Some(&text) {
            tell(&[NotifyState::Status(&text)]);
            self.told = Some(text);
        }
        if reconciler.waits_for().is_some() && !self.ready {
            let wait = u32::try_from(WAIT.as_micros()).unwrap_or(u32::MAX);
            tell(&[NotifyState::ExtendTimeoutUsec(wait)]);
            self.since = Instant::now();
            return;
        }
        let done = reconciler.is_well() && !reconciler.unfinished;
        if !self.ready && (done || self.since.elapsed() > PATIENCE) {
            self.ready = true;
            tell(&[NotifyState::Ready]);
        }
    }

    /// Tells that the configuration is read again; the next round is the end of it.
    pub(super) fn reloading(&mut self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => tell(&[NotifyState::Reloading, now]),
            Err(error) => debug!("read the monotonic clock: {error}"),
        }
        self.since = Instant::now();
        self.ready = false;
    }
}

/// Tells that the agent ends because it was asked to, and what that means for the node.
pub(super) fn stopping(meaning: &str) {
    tell(&[NotifyState::Stopping, NotifyState::Status(meaning)]);
}

fn summary(reconciler: &Reconciler) -> String {
    let model = &reconciler.model;
    let peers = model.peer_count();
    if let Some(what) = reconciler.waits_for() {
        return format!("waits: {what}");
    }
    let networks = count_of(model.networks.len(), "network");
    let (peers, endpoints) = (
        count_of(peers, "peer"),
        count_of(model.endpoints.len(), "container"),
    );
    match reconciler.troubles().as_slice() {
        [] => format!("healthy: {networks}, {peers}, {endpoints}"),
        [problem] => format!("degraded: {problem}"),
        [problem, more @ ..] => format!("degraded: {problem} (and {} more)", more.len()),
    }
}

pub(super) fn tell(what: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(what) {
        warn!("tell the service manager: {error}");
    }
}
