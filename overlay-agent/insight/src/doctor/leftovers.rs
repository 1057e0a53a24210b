//! Rules that plugins chained behind ours have made for a container that is not there any more.
//!
//! A runtime that sends no DEL (`ctr run --detach` never does) has nobody remove them. The agent
//! does not either: they are not its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use serde_json::Value;

/// What is left for one address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Leftover {
    /// Family, table and name of each chain with such a rule.
    pub(super) chains: BTreeSet<String>,
    /// Commands of nftables that remove them.
    pub(super) removal: Vec<String>,
}

/// Chains of a plugin that belong to one container, and are jumped to.
const OF_ONE: &str = "CNI-DN-";

/// By address; what `nft --json list ruleset` prints is the listing.
pub(super) fn find(
    listing: &Value,
    is_vacant: impl Fn(&IpAddr) -> bool,
) -> BTreeMap<IpAddr, Leftover> {
    let objects = listing["nftables"].as_array().into_iter().flatten();
    let rules: Vec<&Value> = objects.filter_map(|object| object.get("rule")).collect();
    let mut found: BTreeMap<IpAddr, Leftover> = BTreeMap::new();
    for rule in rules.iter().filter(|rule| is_of_a_plugin(rule)) {
        let mut addresses = BTreeSet::new();
        collect(&rule["expr"], &mut addresses);
        for address in addresses.into_iter().filter(&is_vacant) {
            let left = found.entry(address).or_default();
            let chain = place(rule);
            let is_of_one = text(rule, "chain").starts_with(OF_ONE);
            if is_of_one && left.chains.insert(chain.clone()) {
                left.removal.extend(remove_chain(&rules, rule, &chain));
            } else if !is_of_one {
                left.removal.extend(remove_rule(rule));
                left.chains.insert(chain);
            }
        }
    }
    found
}

/// Chains of portmap and firewall by iptables begin with this, and portmap has a table by nftables.
fn is_of_a_plugin(rule: &Value) -> bool {
    text(rule, "chain").starts_with("CNI-") || text(rule, "table") == "cni_hostport"
}

fn text<'a>(rule: &'a Value, field: &str) -> &'a str {
    rule[field].as_str().unwrap_or_default()
}

fn place(rule: &Value) -> String {
    let [family, table, chain] = ["family", "table", "chain"].map(|field| text(rule, field));
    format!("{family} {table} {chain}")
}

fn remove_rule(rule: &Value) -> Option<String> {
    let handle = rule["handle"].as_u64()?;
    Some(format!("nft delete rule {} handle {handle}", place(rule)))
}

/// Those that jump to it first, else the kernel lets it not go.
fn remove_chain(rules: &[&Value], of: &Value, chain: &str) -> Vec<String> {
    let jumps = rules.iter().filter(|rule| {
        let same = ["family", "table"].map(|field| text(rule, field) == text(of, field));
        let statements = rule["expr"].as_array().into_iter().flatten();
        let mut targets = statements.map(|statement| &statement["jump"]["target"]);
        same == [true; 2] && targets.any(|target| target.as_str() == Some(text(of, "chain")))
    });
    let mut commands: Vec<String> = jumps.filter_map(|rule| remove_rule(rule)).collect();
    commands.push(format!("nft flush chain {chain}"));
    commands.push(format!("nft delete chain {chain}"));
    commands
}

/// The single addresses that a rule names; ranges are not one container's.
fn collect(value: &Value, addresses: &mut BTreeSet<IpAddr>) {
    match value {
        Value::String(word) => addresses.extend(word.parse::<IpAddr>().ok()),
        Value::Array(values) => values.iter().for_each(|value| collect(value, addresses)),
        Value::Object(fields) if fields.contains_key("prefix") => {
            let prefix = &fields["prefix"];
            let address = prefix["addr"].as_str().and_then(|it| it.parse().ok());
            let whole = |address: &IpAddr| match address {
                IpAddr::V4(_) => 32,
                IpAddr::V6(_) => 128,
            };
            addresses.extend(address.filter(|it| prefix["len"].as_u64() == Some(whole(it))));
        }
        Value::Object(fields) => fields.values().for_each(|value| collect(value, addresses)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use serde_json::{Value, json};

    use super::find;

    fn rule(table: &str, chain: &str, handle: u64, expr: &Value) -> Value {
        json!({ "rule": { "family": "ip", "table": table, "chain": chain, "handle": handle,
            "expr": expr } })
    }

    fn source(address: &Value) -> Value {
        json!({ "match": { "op": "==", "right": address,
            "left": { "payload": { "protocol": "ip", "field": "saddr" } } } })
    }

    #[test]
    fn a_chain_of_one_container_goes_with_the_jump_to_it() {
        let listing = json!({ "nftables": [
            rule("nat", "CNI-HOSTPORT-DNAT", 7, &json!([{ "jump": { "target": "CNI-DN-1" } }])),
            rule("nat", "CNI-DN-1", 9, &json!([source(&json!("10.244.1.7"))])),
            rule("nat", "CNI-DN-1", 10, &json!([source(&json!("10.244.1.7"))])),
            rule("filter", "CNI-FORWARD", 3, &json!([source(&json!("10.244.1.7"))])),
            // Neither a plugin's, nor of one address.
            rule("filter", "FORWARD", 4, &json!([source(&json!("10.244.1.7"))])),
            rule("nat", "CNI-1", 5,
                &json!([source(&json!({ "prefix": { "addr": "10.244.1.7", "len": 24 } }))])),
        ] });
        let at: IpAddr = "10.244.1.7".parse().unwrap();
        let found = find(&listing, |address| *address == at);
        assert_eq!(found.len(), 1);
        assert_eq!(
            found[&at].removal,
            [
                "nft delete rule ip nat CNI-HOSTPORT-DNAT handle 7",
                "nft flush chain ip nat CNI-DN-1",
                "nft delete chain ip nat CNI-DN-1",
                "nft delete rule ip filter CNI-FORWARD handle 3",
            ]
        );
        assert!(find(&listing, |_| false).is_empty());
    }
}
