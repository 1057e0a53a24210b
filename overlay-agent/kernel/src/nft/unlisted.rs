//! Rules that `nft` does not list: it leaves out a rule with an expression that its library does not
//! know, without a word (1.0.6 of Debian 12 those that look inside of tunnels).

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use serde_json::{Value, json};

use super::{
    dump::{
        Attribute, BRIDGE, INET, Kind, NETDEV, OF_TABLE, attribute, attributes, dump_of, name,
        terminated,
    },
    limits::{CHAIN, EXPRESSIONS},
};

/// `NFTA_RULE_HANDLE`
const HANDLE: u16 = 3;
/// `NFTA_EXPR_NAME`
const NAME: u16 = 1;
/// `NFPROTO_…`, as `nft` calls them.
const FAMILIES: [(&str, u8); 5] = [
    ("ip", 2),
    ("ip6", 10),
    ("inet", INET),
    ("bridge", BRIDGE),
    ("netdev", NETDEV),
];
/// Expressions that the oldest `nft` that there is for us lists (libnftnl 1.2.4).
const LISTED: [&str; 39] = [
    "bitwise",
    "byteorder",
    "cmp",
    "connlimit",
    "counter",
    "ct",
    "dup",
    "dynset",
    "exthdr",
    "fib",
    "flow_offload",
    "fwd",
    "hash",
    "immediate",
    "last",
    "limit",
    "log",
    "lookup",
    "masq",
    "match",
    "meta",
    "nat",
    "notrack",
    "numgen",
    "objref",
    "osf",
    "payload",
    "queue",
    "quota",
    "range",
    "redir",
    "reject",
    "rt",
    "secmark",
    "socket",
    "synproxy",
    "target",
    "tproxy",
    "xfrm",
];

/// A rule, as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    chain: String,
    handle: u64,
    /// An expression that `nft` may not know.
    unknown: Option<String>,
}

/// Adds the rules that are missing in what `nft` has listed, each as one that may be about everything
/// and drops it: nobody knows better.
pub(super) fn add(objects: &mut Vec<Value>) -> io::Result<()> {
    let mut tables: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
    for chain in objects.iter().map(|object| &object["chain"]) {
        if let Some(name) = chain["name"].as_str() {
            let table = (text(chain, "family"), text(chain, "table"));
            tables.entry(table).or_default().insert(name.to_owned());
        }
    }
    for ((family, table), chains) in &tables {
        let rules = rules_of(family, table, chains)?;
        if rules.iter().any(|rule| rule.unknown.is_some()) {
            complete(objects, (family, table), &rules);
        }
    }
    Ok(())
}

fn text(object: &Value, field: &str) -> String {
    object[field].as_str().unwrap_or_default().to_owned()
}

/// The rules of some chains of a table, each chain's in their order.
fn rules_of(family: &str, table: &str, chains: &BTreeSet<String>) -> io::Result<Vec<Rule>> {
    let Some((_, number)) = FAMILIES.iter().find(|(name, _)| *name == family) else {
        return Ok(Vec::new());
    };
    let of_table = terminated(table);
    let only = match chains.first() {
        // A chain that is listed by itself.
        Some(chain) if chains.len() == 1 => Some(terminated(chain)),
        _ => None,
    };
    let chain = only.as_ref().map(|chain| (CHAIN, chain.as_slice()));
    let asked: Vec<Attribute<'_>> = chain.into_iter().chain([(OF_TABLE, &*of_table)]).collect();
    let rules = dump_of(*number, Kind::Rules, &asked)?;
    let of_table = rules
        .iter()
        .filter(|rule| name(rule, OF_TABLE) == Some(table));
    let rules = of_table.filter_map(|rule| read(rule));
    Ok(rules.filter(|rule| chains.contains(&rule.chain)).collect())
}

fn read(rule: &[u8]) -> Option<Rule> {
    let handle = attribute(rule, HANDLE)?.try_into().ok()?;
    let expressions = attributes(attribute(rule, EXPRESSIONS).unwrap_or_default());
    let mut names = expressions.filter_map(|(_, expression)| name(expression, NAME));
    Some(Rule {
        chain: name(rule, CHAIN)?.to_owned(),
        handle: u64::from_be_bytes(handle),
        unknown: names.find(|name| !LISTED.contains(name)).map(str::to_owned),
    })
}

/// Puts those that are missing where they stand in their chains.
fn complete(objects: &mut Vec<Value>, (family, table): (&str, &str), rules: &[Rule]) {
    let place = |objects: &[Value], rule: &Rule, handle: Option<u64>| {
        objects.iter().position(|object| {
            let listed = &object["rule"];
            listed["family"] == family
                && listed["table"] == table
                && listed["chain"] == *rule.chain
                && handle.is_none_or(|handle| listed["handle"] == handle)
        })
    };
    let mut before: Option<&Rule> = None;
    for rule in rules {
        let of_chain = before.filter(|before| before.chain == rule.chain);
        if let Some(unknown) = &rule.unknown
            && place(objects, rule, Some(rule.handle)).is_none()
        {
            let at = match of_chain {
                Some(before) => place(objects, rule, Some(before.handle)).map(|place| place + 1),
                None => place(objects, rule, None),
            };
            let is =
                json!({ "op": "==", "left": { "payload": { "unknown": unknown } }, "right": 0 });
            let rule = json!({ "rule": { "family": family, "table": table, "chain": rule.chain,
                "handle": rule.handle, "expr": [{ "match": is }, { "drop": null }] } });
            objects.insert(at.unwrap_or(objects.len()), rule);
        }
        before = Some(rule);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Rule, complete};

    fn rule(chain: &str, handle: u64, unknown: Option<&str>) -> Rule {
        Rule {
            chain: chain.to_owned(),
            handle,
            unknown: unknown.map(str::to_owned),
        }
    }

    fn listed(chain: &str, handle: u64) -> Value {
        json!({ "rule": { "family": "inet", "table": "t", "chain": chain, "handle": handle,
            "expr": [{ "accept": null }] } })
    }

    /// The handles of a chain's rules in their order, and those that drop.
    fn completed(mut objects: Vec<Value>, rules: &[Rule], chain: &str) -> (Vec<u64>, Vec<u64>) {
        complete(&mut objects, ("inet", "t"), rules);
        let of_chain = |object: &&Value| object["rule"]["chain"] == chain;
        let rules: Vec<&Value> = objects.iter().filter(of_chain).collect();
        let handle = |object: &&Value| object["rule"]["handle"].as_u64();
        let drops = |object: &&&Value| object["rule"]["expr"][1].get("drop").is_some();
        (
            rules.iter().filter_map(handle).collect(),
            rules
                .iter()
                .filter(drops)
                .copied()
                .filter_map(|object| handle(&object))
                .collect(),
        )
    }

    #[test]
    fn a_rule_that_is_not_listed_stands_where_the_kernel_has_it() {
        let inner = Some("inner");
        let rules = [
            rule("a", 4, inner),
            rule("a", 5, None),
            rule("a", 6, inner),
            rule("a", 7, inner),
            rule("a", 8, None),
            rule("b", 9, inner),
        ];
        let objects = || {
            vec![
                json!({ "chain": { "family": "inet", "table": "t", "name": "a" } }),
                listed("a", 5),
                listed("a", 8),
                json!({ "chain": { "family": "inet", "table": "t", "name": "b" } }),
            ]
        };
        let (order, drops) = completed(objects(), &rules, "a");
        assert_eq!((order, drops), (vec![4, 5, 6, 7, 8], vec![4, 6, 7]));
        assert_eq!(completed(objects(), &rules, "b"), (vec![9], vec![9]));
    }

    #[test]
    fn what_is_listed_or_has_just_gone_is_not_added() {
        // By a newer nft, and one that came or went between the two looks.
        let rules = [rule("a", 4, Some("inner")), rule("a", 5, None)];
        let (order, drops) = completed(vec![listed("a", 4)], &rules, "a");
        assert_eq!((order, drops), (vec![4], vec![]));
    }
}
