//! Changed rules that are still to be listed.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use overlay_core::filter::Part;

use super::pace::{List, Pace, TableName};

/// With more changed parts than this, the whole table is listed.
const FEW: usize = 8;

/// The part of the ruleset that has changed since it was last listed.
#[derive(Default)]
pub(super) enum Changed {
    #[default]
    All,
    Parts(BTreeMap<TableName, Parts>),
}

/// The changed parts of a table.
#[derive(Clone, Debug, Default)]
pub(super) struct Parts {
    all: BTreeSet<Part>,
    /// Those among them that may refuse packets.
    refusing: BTreeSet<Part>,
}

impl Parts {
    pub(super) fn add(&mut self, part: Part, may_refuse: bool) {
        if may_refuse {
            self.refusing.insert(part.clone());
        }
        self.all.insert(part);
    }

    pub(super) fn remove(&mut self, part: &Part) {
        if *part == Part::All {
            *self = Self::default();
        } else {
            self.all.remove(part);
            self.refusing.remove(part);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The parts of the next ordinary list.
    fn usual(&self) -> Vec<Part> {
        if self.all.len() > FEW || self.all.contains(&Part::All) {
            return vec![Part::All];
        }
        self.all.iter().cloned().collect()
    }

    /// The parts that need not wait for the ordinary list.
    fn hurried(&self) -> Vec<Part> {
        let single = self.refusing.iter().filter(|part| **part != Part::All);
        single.take(FEW).cloned().collect()
    }

    /// The lists of a table, each with its parts.
    fn lists(&self, table: &TableName) -> [(List, Vec<Part>); 2] {
        [
            (List::Table(table.clone()), self.usual()),
            (List::Refusing(table.clone()), self.hurried()),
        ]
    }
}

impl Changed {
    /// The earliest time of any list; `None` where nothing has changed.
    pub(super) fn due(&self, pace: &Pace, now: Instant) -> Option<Instant> {
        let Self::Parts(tables) = self else {
            return Some(pace.due(&List::All, now));
        };
        let lists = tables.iter().flat_map(|(table, parts)| parts.lists(table));
        let some = lists.filter(|(_, parts)| !parts.is_empty());
        some.map(|(list, _)| pace.due(&list, now)).min()
    }

    /// The lists that may be made now, one for each table at most.
    pub(super) fn rested(&self, pace: &Pace, now: Instant) -> Vec<(TableName, List, Vec<Part>)> {
        let Self::Parts(tables) = self else {
            return Vec::new();
        };
        let first = tables.iter().filter_map(|(table, parts)| {
            let mut lists = parts.lists(table).into_iter();
            let (list, parts) =
                lists.find(|(list, parts)| !parts.is_empty() && pace.due(list, now) <= now)?;
            Some((table.clone(), list, parts))
        });
        first.collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn table(name: &str) -> TableName {
        ("ip".to_owned(), name.to_owned())
    }

    fn chain(name: &str) -> Part {
        Part::Chain(name.to_owned())
    }

    fn changed(parts: &[(&str, Part, bool)]) -> Changed {
        let mut tables: BTreeMap<TableName, Parts> = BTreeMap::new();
        for (name, part, may_refuse) in parts {
            let parts = tables.entry(table(name)).or_default();
            parts.add(part.clone(), *may_refuse);
        }
        Changed::Parts(tables)
    }

    #[test]
    fn what_may_refuse_does_not_wait_for_a_table_that_changes_all_the_time() {
        let now = Instant::now() + Duration::from_mins(1);
        let mut pace = Pace::default();
        let many: Vec<String> = (0..=FEW).map(|number| format!("pod-{number}")).collect();
        let mut parts: Vec<_> = many
            .iter()
            .map(|name| ("nat", chain(name), false))
            .collect();
        let whole = (table("nat"), List::Table(table("nat")), vec![Part::All]);
        assert_eq!(changed(&parts).rested(&pace, now), [whole]);

        let took = Duration::from_secs(2);
        pace.made(List::Table(table("nat")), took, now);
        let rested = pace.due(&List::Table(table("nat")), now);
        assert!(rested > now);
        assert_eq!(changed(&parts).due(&pace, now), Some(rested));
        assert_eq!(changed(&parts).rested(&pace, now), []);

        parts.push(("nat", chain("pod-1"), true));
        parts.push(("filter", chain("forward"), false));
        let first = |name: &str, list: fn(TableName) -> List, part: &str| {
            (table(name), list(table(name)), vec![chain(part)])
        };
        let expected = [
            first("filter", List::Table, "forward"),
            first("nat", List::Refusing, "pod-1"),
        ];
        assert_eq!(changed(&parts).due(&pace, now), Some(now));
        assert_eq!(changed(&parts).rested(&pace, now), expected);
    }

    #[test]
    fn nothing_is_due_where_nothing_has_changed() {
        let (pace, now) = (Pace::default(), Instant::now());
        assert_eq!(changed(&[]).due(&pace, now), None);
        assert_eq!(Changed::All.due(&pace, now), Some(now));
        let mut parts = Parts::default();
        parts.add(chain("one"), true);
        parts.add(chain("two"), false);
        parts.remove(&chain("one"));
        assert!(!parts.is_empty() && parts.hurried().is_empty());
        parts.remove(&Part::All);
        assert!(parts.is_empty());
    }
}
