//! Since when something is not as it should be.

use std::{collections::BTreeMap, time::SystemTime};

use overlay_control::{Problem, rfc3339};
use overlay_core::trouble::Trouble;

/// When each problem was first seen.
#[derive(Debug, Default)]
pub(super) struct Since(BTreeMap<(&'static str, String), SystemTime>);

impl Since {
    /// Stamps what there is now, and forgets what is over.
    pub(super) fn stamp(&mut self, troubles: Vec<Trouble>) -> Vec<Problem> {
        let before = std::mem::take(&mut self.0);
        let stamped = troubles.into_iter().map(|trouble| {
            let key = (trouble.id, trouble.subject.clone());
            let first = before.get(&key).copied();
            let since = first.unwrap_or_else(SystemTime::now);
            self.0.insert(key, since);
            Problem {
                id: trouble.id.to_owned(),
                subject: trouble.subject,
                operation: trouble.operation,
                what: trouble.what,
                cure: trouble.cure.into_owned(),
                since: rfc3339(since),
            }
        });
        stamped.collect()
    }
}

#[cfg(test)]
mod tests {
    use overlay_core::trouble::Trouble;

    use super::Since;

    #[test]
    fn a_problem_keeps_its_time_until_it_is_over() {
        let mut since = Since::default();
        let of = |what| vec![Trouble::new("peer-silent", "n2", what, "look")];
        let first = since.stamp(of("silent"));
        std::thread::sleep(std::time::Duration::from_millis(5));
        let second = since.stamp(of("silent still"));
        assert_eq!(first[0].since, second[0].since);
        assert!(since.stamp(Vec::new()).is_empty());
        let third = since.stamp(of("silent"));
        assert!(third[0].since > first[0].since, "{third:?}");
    }
}
