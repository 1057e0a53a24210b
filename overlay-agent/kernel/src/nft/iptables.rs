//! What `iptables` has written by matches and targets of its own, said as nftables would.
//!
//! In JSON `nft` only names such a match, and keeps what it asks for; the kernel tells.

mod matches;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use serde_json::{Value, json};

use self::matches::{Asked, KNOWN};
use super::dump::{
    Attribute, BRIDGE, INET, Kind, OF_TABLE, attribute, attributes, dump_of, name, terminated,
};

/// `NFTA_RULE_…` of the kernel's headers.
const CHAIN: u16 = 2;
const HANDLE: u16 = 3;
const EXPRESSIONS: u16 = 4;
/// `NFTA_EXPR_…`
const NAME: u16 = 1;
const DATA: u16 = 2;
/// `NFTA_MATCH_…`
const MATCH_NAME: u16 = 1;
const REVISION: u16 = 2;
const INFO: u16 = 3;

/// The table's family and name, and the rule's handle in it.
type Rule = (String, String, u64);

/// Puts what is understood of such matches and targets in their place, in listed rules.
pub(super) fn explain(objects: &mut [Value]) -> io::Result<()> {
    let is_understood = |rule: &Value| {
        let mut statements = rule["expr"].as_array().into_iter().flatten();
        statements.any(|statement| known(statement).is_some())
    };
    let mut tables: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
    let rules = objects.iter().map(|object| &object["rule"]);
    for rule in rules.filter(|rule| is_understood(rule)) {
        let table = (text(rule, "family"), text(rule, "table"));
        tables.entry(table).or_default().insert(text(rule, "chain"));
    }
    let mut asked_by_rules = BTreeMap::new();
    for ((family, table), chains) in &tables {
        let mut chains = chains.iter();
        // A chain that is listed by itself.
        let only = chains.next().filter(|_| chains.next().is_none());
        asked_by_rules.extend(matches_of(family, table, only)?);
    }
    for object in objects {
        let Some(rule) = object.get_mut("rule") else {
            continue;
        };
        let of = (text(rule, "family"), text(rule, "table"));
        let asked = rule["handle"].as_u64().and_then(|handle| {
            let key: Rule = (of.0, of.1, handle);
            asked_by_rules.remove(&key)
        });
        if let Some(statements) = rule["expr"].as_array_mut() {
            *statements = said(std::mem::take(statements), asked.unwrap_or_default());
        }
    }
    Ok(())
}

fn text(object: &Value, field: &str) -> String {
    object[field].as_str().unwrap_or_default().to_owned()
}

fn is_match(statement: &Value, name: &str) -> bool {
    let xt = &statement["xt"];
    xt["type"] == "match" && xt["name"] == name
}

/// Which of the matches that are understood a statement is.
fn known(statement: &Value) -> Option<&'static str> {
    KNOWN.into_iter().find(|name| is_match(statement, name))
}

/// The statements of a rule; `asked` are its matches that are understood, in their order.
fn said(statements: Vec<Value>, asked: Vec<Asked>) -> Vec<Value> {
    // Or the rule is another one by now.
    let is_whole = statements
        .iter()
        .filter_map(known)
        .eq(asked.iter().map(|one| one.name));
    let mut asked = asked.into_iter().filter(|_| is_whole);
    let mut said = Vec::with_capacity(statements.len());
    for statement in statements {
        if is_match(&statement, "comment") {
            continue;
        }
        if known(&statement).is_some() {
            let next = asked.next();
            let (matches, is_all) = next.map_or((Vec::new(), false), |asked| asked.said());
            said.extend(matches);
            if !is_all {
                said.push(statement);
            }
        } else {
            said.push(target(&statement).unwrap_or(statement));
        }
    }
    said
}

/// The verdict that a target is, as nftables has it.
fn target(statement: &Value) -> Option<Value> {
    let xt = &statement["xt"];
    if xt["type"] != "target" {
        return None;
    }
    let verdict = match xt["name"].as_str()? {
        "REJECT" => "reject",
        "MASQUERADE" => "masquerade",
        "SNAT" => "snat",
        "DNAT" => "dnat",
        "REDIRECT" => "redirect",
        "NFQUEUE" => "queue",
        "TPROXY" => "tproxy",
        _ => return None,
    };
    Some(json!({ verdict: null }))
}

/// The matches that are understood, of each rule of a table, or of one chain of it.
fn matches_of(
    family: &str,
    table: &str,
    chain: Option<&String>,
) -> io::Result<BTreeMap<Rule, Vec<Asked>>> {
    /// `NFPROTO_IPV4`, `NFPROTO_IPV6`
    const FAMILIES: [(&str, u8); 4] = [("ip", 2), ("ip6", 10), ("inet", INET), ("bridge", BRIDGE)];
    let Some((_, number)) = FAMILIES.iter().find(|(name, _)| *name == family) else {
        return Ok(BTreeMap::new());
    };
    let (table_name, chain) = (terminated(table), chain.map(|chain| terminated(chain)));
    let chain = chain.as_ref().map(|chain| (CHAIN, chain.as_slice()));
    let asked: Vec<Attribute<'_>> = chain
        .into_iter()
        .chain([(OF_TABLE, &*table_name)])
        .collect();
    let rules = dump_of(*number, Kind::Rules, &asked)?;
    let of_table = rules
        .iter()
        .filter(|rule| name(rule, OF_TABLE) == Some(table));
    let rows = of_table.filter_map(|rule| {
        let handle = attribute(rule, HANDLE)?.try_into().ok()?;
        let key = (
            family.to_owned(),
            table.to_owned(),
            u64::from_be_bytes(handle),
        );
        let expressions = attributes(attribute(rule, EXPRESSIONS)?);
        Some((
            key,
            expressions.filter_map(|(_, one)| asked_by(one)).collect(),
        ))
    });
    Ok(rows.collect())
}

fn asked_by(expression: &[u8]) -> Option<Asked> {
    if name(expression, NAME)? != "match" {
        return None;
    }
    let data = attribute(expression, DATA)?;
    let asked = name(data, MATCH_NAME)?;
    let revision = attribute(data, REVISION)?.try_into().ok()?;
    Some(Asked {
        name: KNOWN.into_iter().find(|known| *known == asked)?,
        revision: u32::from_be_bytes(revision),
        info: attribute(data, INFO)?.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{
        Asked, explain,
        matches::tests::{info, state},
        said,
    };

    fn xt(kind: &str, name: &str) -> Value {
        json!({ "xt": { "type": kind, "name": name } })
    }

    #[test]
    fn a_rule_of_iptables_is_said_as_nftables_would() {
        let rule = vec![
            xt("match", "comment"),
            xt("match", "conntrack"),
            xt("match", "multiport"),
            json!({ "counter": null }),
            xt("target", "REJECT"),
        ];
        let asked = |name| Asked {
            name,
            revision: 3,
            info: info(1, 0, 1, 0),
        };
        let known = said(rule.clone(), vec![asked("conntrack")]);
        let rest = [
            xt("match", "multiport"),
            json!({ "counter": null }),
            json!({ "reject": null }),
        ];
        let expected = [&[state("in", &["invalid"])][..], &rest].concat();
        assert_eq!(known, expected);
        // Of a rule that has changed meanwhile nothing is said.
        let expected = [&[xt("match", "conntrack")][..], &rest].concat();
        assert_eq!(said(rule.clone(), Vec::new()), expected);
        assert_eq!(said(rule, vec![asked("mark")]), expected);
    }

    #[test]
    fn what_is_no_rule_of_iptables_stays_as_it_is() {
        let mut objects = [
            json!({ "set": { "family": "ip", "table": "t", "name": "s", "elem": [1] } }),
            json!({ "rule": { "family": "ip", "table": "t", "handle": 3, "expr": [
                { "counter": null }, { "drop": null }] } }),
        ];
        let before = objects.clone();
        explain(&mut objects).unwrap();
        assert_eq!(objects, before);
    }
}
