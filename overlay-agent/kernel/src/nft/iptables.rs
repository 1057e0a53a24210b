//! What `iptables` has written by matches and targets of its own, said as nftables would.
//!
//! In JSON `nft` only names such a match, and keeps what it asks for; the kernel tells.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use serde_json::{Value, json};

use super::dump::{BRIDGE, INET, Kind, OF_TABLE, attribute, attributes, dump_of, name, terminated};

/// `NFTA_RULE_…` of the kernel's headers.
const HANDLE: u16 = 3;
const EXPRESSIONS: u16 = 4;
/// `NFTA_EXPR_…`
const NAME: u16 = 1;
const DATA: u16 = 2;
/// `NFTA_MATCH_…`
const MATCH_NAME: u16 = 1;
const REVISION: u16 = 2;
const INFO: u16 = 3;

/// The match by what connection tracking says.
const CONNTRACK: &str = "conntrack";
/// The table's family and name, and the rule's handle in it.
type Rule = (String, String, u64);
/// Revision, and `struct xt_conntrack_mtinfo1` to `3`.
type Asked = (u32, Vec<u8>);

/// Puts what is understood of such matches and targets in their place, in listed rules.
pub(super) fn explain(objects: &mut [Value]) -> io::Result<()> {
    let of_connections = |rule: &Value| {
        let mut statements = rule["expr"].as_array().into_iter().flatten();
        statements.any(|statement| is_match(statement, CONNTRACK))
    };
    let tables: BTreeSet<(String, String)> = objects
        .iter()
        .map(|object| &object["rule"])
        .filter(|rule| of_connections(rule))
        .map(|rule| (text(rule, "family"), text(rule, "table")))
        .collect();
    let mut known = BTreeMap::new();
    for (family, table) in &tables {
        known.extend(matches_of(family, table)?);
    }
    for object in objects {
        let Some(rule) = object.get_mut("rule") else {
            continue;
        };
        let of = (text(rule, "family"), text(rule, "table"));
        let asked = rule["handle"].as_u64().and_then(|handle| {
            let key: Rule = (of.0, of.1, handle);
            known.remove(&key)
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

/// The statements of a rule; `asked` are its matches by connections, in their order.
fn said(statements: Vec<Value>, asked: Vec<Asked>) -> Vec<Value> {
    let by_connections = |statement: &&Value| is_match(statement, CONNTRACK);
    // Or the rule is another one by now.
    let is_whole = statements.iter().filter(by_connections).count() == asked.len();
    let mut asked = asked.into_iter().filter(|_| is_whole);
    let mut said = Vec::with_capacity(statements.len());
    for statement in statements {
        if is_match(&statement, "comment") {
            continue;
        }
        if is_match(&statement, CONNTRACK) {
            let known = asked.next();
            let (known, is_all) = known.map_or((Vec::new(), false), |asked| connections(&asked));
            said.extend(known);
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

/// What a match by connections asks for, and whether that is all of it.
fn connections((revision, info): &Asked) -> (Vec<Value>, bool) {
    // `XT_CONNTRACK_…`
    const STATE: u16 = 1 << 0;
    const STATUS: u16 = 1 << 6;
    /// The other name of the match, which changes nothing.
    const ALIAS: u16 = 1 << 13;
    /// Behind four addresses with their masks, times and ports.
    const FLAGS: usize = 146;
    /// By the number of the bit; those that no packet has that was not translated are there, too.
    const STATES: [(u16, &str); 7] = [
        (0, "invalid"),
        (1, "established"),
        (2, "related"),
        (3, "new"),
        (6, "snat"),
        (7, "dnat"),
        (8, "untracked"),
    ];
    const STATUSES: [(u16, &str); 7] = [
        (0, "expected"),
        (1, "seen-reply"),
        (2, "assured"),
        (3, "confirmed"),
        (4, "snat"),
        (5, "dnat"),
        (9, "dying"),
    ];
    let number = |place: usize| -> Option<u16> {
        let bytes = info.get(FLAGS + place..)?.first_chunk()?;
        Some(u16::from_ne_bytes(*bytes))
    };
    let narrow = |place: usize| info.get(FLAGS + place).copied().map(u16::from);
    let masks = match revision {
        1 => (narrow(4), narrow(5)),
        2 | 3 => (number(4), number(6)),
        _ => (None, None),
    };
    let (Some(flags), Some(inverted), (Some(states), Some(statuses))) =
        (number(0), number(2), masks)
    else {
        return (Vec::new(), false);
    };
    let one = |flag: u16, key: &str, mask: u16, names: &[(u16, &str)]| -> Option<Value> {
        let is_in = |(bit, name): &(u16, &str)| (mask & 1 << bit != 0).then(|| (*name).to_owned());
        let right: Vec<String> = names.iter().filter_map(is_in).collect();
        let op = if inverted & flag == 0 { "in" } else { "!=" };
        let left = json!({ "ct": { "key": key } });
        (flags & flag != 0).then(|| json!({ "match": { "op": op, "left": left, "right": right } }))
    };
    let known = [
        one(STATE, "state", states, &STATES),
        one(STATUS, "status", statuses, &STATUSES),
    ];
    let is_all = flags & !(STATE | STATUS | ALIAS) == 0;
    (known.into_iter().flatten().collect(), is_all)
}

/// The matches by connections of each rule of a table.
fn matches_of(family: &str, table: &str) -> io::Result<BTreeMap<Rule, Vec<Asked>>> {
    /// `NFPROTO_IPV4`, `NFPROTO_IPV6`
    const FAMILIES: [(&str, u8); 4] = [("ip", 2), ("ip6", 10), ("inet", INET), ("bridge", BRIDGE)];
    let Some((_, number)) = FAMILIES.iter().find(|(name, _)| *name == family) else {
        return Ok(BTreeMap::new());
    };
    let asked = terminated(table);
    let rules = dump_of(*number, Kind::Rules, &[(OF_TABLE, &asked)])?;
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
    if name(data, MATCH_NAME)? != CONNTRACK {
        return None;
    }
    let revision = attribute(data, REVISION)?.try_into().ok()?;
    Some((
        u32::from_be_bytes(revision),
        attribute(data, INFO)?.to_vec(),
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{connections, explain, said};

    /// As `iptables` has it for `--ctstate` and `--ctstatus`.
    fn info(flags: u16, inverted: u16, states: u16, statuses: u16) -> Vec<u8> {
        let mut info = vec![0; 146];
        for number in [flags, inverted, states, statuses, 0, 0, 0, 0] {
            info.extend(number.to_ne_bytes());
        }
        info
    }

    fn state(op: &str, names: &[&str]) -> Value {
        json!({ "match": { "op": op, "left": { "ct": { "key": "state" } }, "right": names } })
    }

    fn xt(kind: &str, name: &str) -> Value {
        json!({ "xt": { "type": kind, "name": name } })
    }

    #[test]
    fn what_a_match_by_connections_asks_for_is_said() {
        let invalid = (3, info(1, 0, 1, 0));
        assert_eq!(
            connections(&invalid),
            (vec![state("in", &["invalid"])], true)
        );
        let neither = (3, info(1 | 1 << 13, 1, 0x86, 0));
        let names = ["established", "related", "dnat"];
        assert_eq!(connections(&neither), (vec![state("!=", &names)], true));
        let more = (2, info(1 | 1 << 2, 0, 8, 0));
        assert_eq!(connections(&more), (vec![state("in", &["new"])], false));
        for cut in 0..153 {
            let short = info(1, 0, 1, 0)[..cut].to_vec();
            assert_eq!(connections(&(3, short)), (vec![], false), "{cut}");
        }
        assert_eq!(connections(&(9, info(1, 0, 1, 0))), (vec![], false));
    }

    #[test]
    fn a_rule_of_iptables_is_said_as_nftables_would() {
        let rule = vec![
            xt("match", "comment"),
            xt("match", "conntrack"),
            xt("match", "addrtype"),
            json!({ "counter": null }),
            xt("target", "REJECT"),
        ];
        let known = said(rule.clone(), vec![(3, info(1, 0, 1, 0))]);
        let rest = [
            xt("match", "addrtype"),
            json!({ "counter": null }),
            json!({ "reject": null }),
        ];
        let expected = [&[state("in", &["invalid"])][..], &rest].concat();
        assert_eq!(known, expected);
        // Of a rule that has changed meanwhile nothing is said.
        let expected = [&[xt("match", "conntrack")][..], &rest].concat();
        assert_eq!(said(rule, Vec::new()), expected);
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
