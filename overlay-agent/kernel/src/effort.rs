//! What work costs.

use std::time::Duration;

use nix::sys::{
    resource::{UsageWho, getrusage},
    time::{TimeVal, TimeValLike as _},
};

/// The processor's time that this process and those that it has started and waited for have taken. Not the
/// clock's: on a busy machine work is slow, and to rest the longer for it would not help anybody.
pub fn effort() -> Duration {
    let of = |time: TimeVal| Duration::from_micros(time.num_microseconds().unsigned_abs());
    // Listing rules takes a program, and of many rules its time.
    let whose = [UsageWho::RUSAGE_SELF, UsageWho::RUSAGE_CHILDREN];
    let usages = whose.into_iter().filter_map(|who| getrusage(who).ok());
    usages
        .map(|usage| of(usage.user_time()) + of(usage.system_time()))
        .sum()
}
