//! Processor time as the cost of work.

use std::time::Duration;

use nix::sys::{
    resource::{UsageWho, getrusage},
    time::{TimeVal, TimeValLike as _},
};

/// Processor time of this process and of the children that it has waited for. Not the time of a clock: on a
/// busy machine work is slow, and resting longer for that would help nobody.
pub fn effort() -> Duration {
    let of = |time: TimeVal| Duration::from_micros(time.num_microseconds().unsigned_abs());
    // Listing rules takes a program, and of many rules its time.
    let whose = [UsageWho::RUSAGE_SELF, UsageWho::RUSAGE_CHILDREN];
    let usages = whose.into_iter().filter_map(|who| getrusage(who).ok());
    usages
        .map(|usage| of(usage.user_time()) + of(usage.system_time()))
        .sum()
}
