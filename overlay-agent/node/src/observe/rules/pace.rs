//! When rules that have changed are listed again.
//!
//! Listing many rules takes long, and some programs change rules all the time. So each table has a budget
//! of its own: one whose lists are costly waits for the next, and the others do not wait for it.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// A table, by family and name.
pub(super) type TableName = (String, String);

/// A list is followed by a rest of 14 times its cost, which leaves listing a fifteenth of a processor.
const SHARE: u32 = 14;
/// Rest that may be taken later, so that a change once in a while need not wait.
const CREDIT: Duration = Duration::from_secs(10);
/// The pause after a list that failed: at least this, and at least [`RETRY_SHARE`] times its cost.
const RETRY: Duration = Duration::from_millis(500);
const RETRY_SHARE: u32 = 200;

/// A kind of list, each with a budget of its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum List {
    /// All tables.
    All,
    /// A table, or parts of it that change.
    Table(TableName),
    /// Parts of it with rules that may refuse packets.
    Refusing(TableName),
}

/// The earliest time of each list.
#[derive(Default)]
pub(super) struct Pace {
    rested: BTreeMap<List, Instant>,
}

impl Pace {
    /// The earliest time for this list: now, unless it was made lately.
    pub(super) fn due(&self, list: &List, now: Instant) -> Instant {
        self.rested.get(list).map_or(now, |then| (*then).max(now))
    }

    /// Charges the cost of a list.
    pub(super) fn made(&mut self, list: List, took: Duration, now: Instant) {
        let earliest = now.checked_sub(CREDIT).unwrap_or(now);
        self.rested.retain(|_, then| *then > earliest);
        let resting = self.rested.iter();
        let others = resting.filter(|(one, then)| **one != list && **then > now);
        let sharing = u32::try_from(others.count()).unwrap_or(u32::MAX);
        let rested = self.rested.entry(list).or_insert(earliest);
        *rested += took * SHARE.saturating_mul(sharing.saturating_add(1));
    }

    /// Notes a list that failed.
    pub(super) fn failed(&mut self, list: List, took: Duration, now: Instant) {
        let then = now + RETRY.max(took * RETRY_SHARE);
        self.rested.insert(list, then);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(table: &str) -> List {
        List::Table(("ip".to_owned(), table.to_owned()))
    }

    const LONG: Duration = Duration::from_secs(1);

    #[test]
    fn who_lists_seldom_does_not_wait_and_who_lists_often_waits_alone() {
        let now = Instant::now() + 2 * CREDIT;
        let mut pace = Pace::default();
        pace.made(of("nat"), LONG / 2, now);
        assert_eq!(pace.due(&of("nat"), now), now);
        pace.made(of("nat"), LONG / 2, now);
        let rested = now + (SHARE * LONG).saturating_sub(CREDIT);
        assert_eq!(pace.due(&of("nat"), now), rested);
        for other in [
            of("filter"),
            List::Refusing(("ip".to_owned(), "nat".to_owned())),
            List::All,
        ] {
            assert_eq!(pace.due(&other, now), now, "{other:?}");
        }
        // Its credit comes back.
        let later = rested + CREDIT;
        assert_eq!(pace.due(&of("nat"), later), later);
        pace.made(of("nat"), LONG / 2, later);
        assert_eq!(pace.due(&of("nat"), later), later);
    }

    #[test]
    fn those_who_list_all_the_time_share_what_there_is() {
        let now = Instant::now() + 2 * CREDIT;
        let mut pace = Pace::default();
        pace.made(of("nat"), LONG, now);
        let first = pace.due(&of("nat"), now);
        pace.made(of("filter"), LONG, now);
        assert_eq!(
            pace.due(&of("filter"), now) - now,
            (2 * SHARE * LONG).saturating_sub(CREDIT)
        );
        assert_eq!(pace.due(&of("nat"), now), first);
    }

    #[test]
    fn what_fails_is_tried_again_in_a_while() {
        let now = Instant::now() + 2 * CREDIT;
        let mut pace = Pace::default();
        pace.failed(List::All, Duration::ZERO, now);
        assert_eq!(pace.due(&List::All, now), now + RETRY);
        pace.failed(List::All, LONG, now);
        assert_eq!(pace.due(&List::All, now), now + RETRY_SHARE * LONG);
    }
}
