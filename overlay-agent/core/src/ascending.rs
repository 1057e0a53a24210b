//! Looking many keys up in a large map, in order.

use std::{collections::btree_map, iter::Peekable};

/// A map that is walked once while keys are looked up in ascending order: for very many keys a
/// multiple faster than a search for each.
pub(crate) struct Ascending<'a, K, V>(Peekable<btree_map::Iter<'a, K, V>>);

impl<'a, K: Ord, V> Ascending<'a, K, V> {
    /// Starts at the map's first key.
    pub(crate) fn of(map: &'a btree_map::BTreeMap<K, V>) -> Self {
        Self(map.iter().peekable())
    }

    /// The value of a key, which is not less than the one before.
    pub(crate) fn get(&mut self, key: &K) -> Option<&'a V> {
        while self.0.next_if(|(other, _)| *other < key).is_some() {}
        let (_, value) = self.0.peek().filter(|(other, _)| *other == key)?;
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::Ascending;

    #[test]
    fn keys_are_found_and_missed_also_twice() {
        let map = BTreeMap::from([(2, "two"), (5, "five"), (7, "seven")]);
        let mut ascending = Ascending::of(&map);
        let found = [1, 2, 2, 3, 7, 7, 8].map(|key| ascending.get(&key).copied());
        let two = Some("two");
        let seven = Some("seven");
        assert_eq!(found, [None, two, two, None, seven, seven, None]);
    }
}
