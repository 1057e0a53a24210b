//! Verdict maps: rules that judge a packet by what their keys say.

use std::{borrow::Cow, collections::BTreeMap};

use serde_json::{Value, json};

use crate::filter::ruleset::{Key, Ruleset};

impl Ruleset {
    /// A rule as several without verdict maps: one for each verdict, about the keys that have it, and
    /// one for what comes behind the map.
    pub(in crate::filter) fn spelled<'a>(
        &self,
        rule: &'a [Value],
        key: &Key,
    ) -> Vec<Cow<'a, [Value]>> {
        let place = rule
            .iter()
            .position(|statement| statement.get("vmap").is_some());
        let found = place.and_then(|place| {
            let map = &rule[place]["vmap"];
            Some((place, map, self.entries(map, key)?))
        });
        let Some((place, map, entries)) = found else {
            return vec![Cow::Borrowed(rule)];
        };
        let (before, behind) = (&rule[..place], &rule[place + 1..]);
        let mut verdicts: BTreeMap<String, (&Value, Vec<&Value>)> = BTreeMap::new();
        for (of, verdict) in entries {
            let known = verdicts.entry(verdict.to_string());
            let (_, keys) = known.or_insert_with(|| (verdict, Vec::new()));
            keys.push(of);
        }
        let each = verdicts.into_values().map(|(verdict, keys)| {
            let mut spelled = before.to_vec();
            spelled.extend(wanted(&map["key"], &keys));
            spelled.push(verdict.clone());
            spelled
        });
        let mut rules: Vec<_> = each.map(Cow::Owned).collect();
        if !behind.is_empty() {
            rules.push(Cow::Owned([before, behind].concat()));
        }
        rules
    }

    /// Keys and verdicts of a map; `None` where it is not known.
    pub(in crate::filter) fn entries<'a>(
        &'a self,
        map: &'a Value,
        chain: &Key,
    ) -> Option<Vec<(&'a Value, &'a Value)>> {
        let entries = match map["data"].as_str() {
            Some(name) => self.sets.get(&Key {
                name: name.trim_start_matches('@').to_owned(),
                ..chain.clone()
            })?,
            None => map["data"]["set"].as_array()?,
        };
        Some(entries.iter().map(|entry| (&entry[0], &entry[1])).collect())
    }
}

/// As matches of a rule, that what a map looks at has one of these keys; of keys of several parts, each
/// part one of those that stand there.
fn wanted(looked_at: &Value, keys: &[&Value]) -> Vec<Value> {
    let is_one_of = |left: &Value, right: Vec<Value>| json!({ "match": { "op": "==", "left": left, "right": { "set": right } } });
    let Some(parts) = looked_at["concat"].as_array() else {
        let keys = keys.iter().map(|key| (*key).clone());
        return vec![is_one_of(looked_at, keys.collect())];
    };
    let part = |(place, left)| {
        let keys = keys.iter().map(|key| {
            let key = key.get("elem").map_or(*key, |element| &element["val"]);
            key["concat"][place].clone()
        });
        is_one_of(left, keys.collect())
    };
    parts.iter().enumerate().map(part).collect()
}

/// Whether a rule has a map that looks at several things together: as spelled it is about more than
/// it is.
pub(in crate::filter) fn entries_have_parts(rule: &[Value]) -> bool {
    let mut maps = rule.iter().filter_map(|statement| statement.get("vmap"));
    maps.any(|map| map["key"].get("concat").is_some())
}
