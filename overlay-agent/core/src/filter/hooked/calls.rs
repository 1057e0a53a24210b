//! Which chains lead to which.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::filter::ruleset::{Key, Ruleset};

impl Ruleset {
    /// The chains that every packet can come to, and not only the first one of a connection.
    pub(super) fn asked_of_packets(&self) -> BTreeSet<Key> {
        let base = self.chains.iter().filter_map(|(key, chain)| {
            let base = chain.base.as_ref()?;
            let is_asked = !base.is_nat && matches!(key.family.as_str(), "ip" | "ip6" | "inet");
            is_asked.then(|| key.clone())
        });
        let mut left: Vec<Key> = base.collect();
        let mut asked = BTreeSet::new();
        while let Some(key) = left.pop() {
            let rules = self.chains.get(&key).map(|chain| &chain.rules);
            for rule in rules.into_iter().flatten() {
                for name in self.called_by(rule, &key) {
                    left.push(Key {
                        name,
                        ..key.clone()
                    });
                }
            }
            left.retain(|key| !asked.contains(key));
            asked.insert(key);
        }
        asked
    }

    /// The chains that a rule leads to.
    fn called_by(&self, rule: &[Value], key: &Key) -> Vec<String> {
        let target = |verdict: &Value| {
            let called = verdict.get("jump").or_else(|| verdict.get("goto"))?;
            called["target"].as_str().map(str::to_owned)
        };
        let maps = rule.iter().filter_map(|statement| statement.get("vmap"));
        let verdicts = maps.filter_map(|map| self.entries(map, key)).flatten();
        let verdicts = verdicts.map(|(_, verdict)| verdict);
        rule.iter().chain(verdicts).filter_map(target).collect()
    }
}
