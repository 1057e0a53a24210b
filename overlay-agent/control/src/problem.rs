//! Problems, as the API tells them.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use overlay_core::trouble::sentence;
use serde::{Deserialize, Serialize};

/// One thing that is not as it should be; `doctor` finds it under the same id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Stable, in kebab case; `docs/doctor.md` explains each.
    pub id: String,
    /// Its subject: a peer, an endpoint, a device, a network.
    pub subject: String,
    /// The operation with its object; empty where there was none.
    pub operation: String,
    /// The fault.
    pub what: String,
    /// The cure.
    pub cure: String,
    /// When it was first seen, as RFC 3339 writes it, in UTC.
    pub since: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        sentence(f, &self.operation, &self.what, &self.cure)
    }
}

/// A time in UTC, with milliseconds.
pub fn rfc3339(time: SystemTime) -> String {
    const DAY: u64 = 24 * 60 * 60;
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (days, second) = (since.as_secs() / DAY, since.as_secs() % DAY);
    let (year, month, day) = date(days);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        second / 3600,
        second / 60 % 60,
        second % 60,
        since.subsec_millis()
    )
}

/// The Gregorian date so many days after 1970-01-01.
fn date(mut days: u64) -> (u64, u64, u64) {
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let mut year = 1970;
    loop {
        let length = if is_leap(year) { 366 } else { 365 };
        if days < length {
            break;
        }
        days -= length;
        year += 1;
    }
    let february = if is_leap(year) { 29 } else { 28 };
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::rfc3339;

    #[test]
    fn a_time_is_written_as_rfc_3339_wants_it() {
        let of = |milliseconds| rfc3339(UNIX_EPOCH + Duration::from_millis(milliseconds));
        assert_eq!(of(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(of(951_782_399_999), "2000-02-28T23:59:59.999Z");
        assert_eq!(of(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(of(1_796_083_199_000), "2026-11-30T23:59:59.000Z");
    }
}
