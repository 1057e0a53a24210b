//! Notifies the service manager of a start or an end that takes long: how much has been done of
//! how much, and that it is not stuck.

use std::time::{Duration, Instant};

use overlay_control::progress::Activity;
use sd_notify::NotifyState;

use super::supervisor;

/// How often: it shows a line, and nobody reads faster.
const PAUSE: Duration = Duration::from_secs(1);
/// How long one step, or a batch of them, takes at most on the slowest machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// Passes on what is done, behind a word for all of it.
pub(super) fn teller(whole: &'static str) -> impl FnMut(&Activity) {
    let mut last: Option<Instant> = None;
    move |activity| {
        if last.is_some_and(|last| last.elapsed() < PAUSE) {
            return;
        }
        last = Some(Instant::now());
        let text = format!("{whole}: {activity}");
        let patience = u32::try_from(PATIENCE.as_micros()).unwrap_or(u32::MAX);
        supervisor::tell(&[
            NotifyState::Status(&text),
            NotifyState::ExtendTimeoutUsec(patience),
        ]);
    }
}
