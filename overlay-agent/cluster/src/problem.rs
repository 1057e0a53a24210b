//! Problems in the store or on the way to it, as the agent tells people.

use std::fmt;

use serde::{Deserialize, Serialize};

/// So many are told; a store that is wrong throughout is described by its first faults.
pub const MOST: usize = 16;
/// No part of one is longer, in characters: some are the words of others.
const LONGEST: usize = 500;

/// One thing that is wrong, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Problem {
    /// Its subject, such as a key: a problem is the same as long as this is.
    pub subject: String,
    /// The fault.
    pub what: String,
    /// The cure.
    pub cure: String,
}

impl Problem {
    /// With the beginning of texts that are too long.
    pub fn new(
        subject: impl fmt::Display,
        what: impl fmt::Display,
        cure: impl fmt::Display,
    ) -> Self {
        let text = |part: &dyn fmt::Display| part.to_string().chars().take(LONGEST).collect();
        Self {
            subject: text(&subject),
            what: text(&what),
            cure: text(&cure),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.cure)
    }
}

/// The first [`MOST`], and behind them how many more there are.
pub fn bounded(mut problems: Vec<Problem>) -> Vec<Problem> {
    let more = problems.len().saturating_sub(MOST);
    if more > 0 {
        problems.truncate(MOST);
        problems.push(Problem::new(
            "more",
            format_args!("and {more} more entries are left out"),
            "correct the first ones, which then make room for others here",
        ));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::{MOST, Problem, bounded};

    #[test]
    fn of_many_the_first_are_told_and_how_many_more_there_are() {
        let of = |count: usize| -> Vec<Problem> {
            let numbers = 0..count;
            numbers
                .map(|number| Problem::new(number, "w".repeat(9_999), "c"))
                .collect()
        };
        assert_eq!(bounded(of(MOST)), of(MOST));
        let told = bounded(of(MOST + 3));
        assert_eq!(told[..MOST], of(MOST)[..]);
        assert_eq!(told[MOST].what, "and 3 more entries are left out");
        assert!(told.iter().all(|problem| problem.what.len() <= 500));
    }
}
