//! Which rules only hold when connection tracking sees every packet of a connection.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use serde_json::Value;

use super::{
    Connection, Packet,
    ruleset::{Hook, Key, Ruleset},
};

/// Where the packets of a network are forwarded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Between<'a> {
    pub(crate) bridge: &'a str,
    pub(crate) tunnels: &'a [&'a str],
    /// All addresses of the network, and those of this node.
    pub(crate) ranges: &'a [(IpNet, IpNet)],
}

/// What a packet is asked for by chains that judge it, without those that translate.
const HOOKS: [Hook; 3] = [Hook::Prerouting, Hook::Forward, Hook::Postrouting];

impl Ruleset {
    /// What must see connections of a network as a whole, in a sentence about a rule: it
    /// translates a destination to one of its addresses, or what it drops depends on the state
    /// of the connection.
    ///
    /// Where the first packet of every connection is dropped, there are none to follow.
    pub(crate) fn follows(&self, between: &Between<'_>) -> Option<String> {
        let ranges = between.ranges.iter();
        ranges
            .clone()
            .find_map(|(cidr, _)| self.translation_into(cidr))
            .or_else(|| {
                ranges
                    .clone()
                    .find_map(|range| self.stateful(between, range))
            })
    }

    /// A rule that gives packets a destination in a network, or may do so.
    fn translation_into(&self, cidr: &IpNet) -> Option<String> {
        let hook = self.at(Hook::Prerouting, cidr.addr().is_ipv6());
        let mut bases = hook.into_iter().filter(|(_, _, base)| base.is_nat);
        bases.find_map(|(key, _, _)| {
            let mut seen = BTreeSet::new();
            self.translates(key, cidr, &mut seen).then(|| {
                format!(
                    "a rule of chain {} {} {} translates destinations to addresses in it",
                    key.family, key.table, key.name
                )
            })
        })
    }

    /// Whether a chain, or one that it calls, translates into a network.
    fn translates(&self, key: &Key, cidr: &IpNet, seen: &mut BTreeSet<Key>) -> bool {
        let Some(chain) = self.chains.get(key) else {
            return false;
        };
        if !seen.insert(key.clone()) {
            return false;
        }
        let statements = || {
            let rules = chain.rules.iter().flatten();
            rules.filter_map(|statement| statement.as_object()?.iter().next())
        };
        let into = |(kind, body): (&String, &Value)| match kind.as_str() {
            "dnat" => self.leads_into(&body["addr"], key, cidr),
            // Where to, is not printed.
            "xt" => body["type"] == "target" && body["name"] == "DNAT",
            _ => false,
        };
        if statements().any(into) {
            return true;
        }
        let mut called = BTreeSet::new();
        for (kind, body) in statements() {
            match kind.as_str() {
                "jump" | "goto" => called.extend(body["target"].as_str()),
                "vmap" => self.targets(&body["data"], key, &mut called),
                _ => {}
            }
        }
        called.into_iter().any(|name| {
            let called = Key {
                name: name.to_owned(),
                ..key.clone()
            };
            self.translates(&called, cidr, seen)
        })
    }

    /// The chains that a verdict map calls.
    fn targets<'a>(&'a self, data: &'a Value, key: &Key, called: &mut BTreeSet<&'a str>) {
        let entries = match data {
            Value::String(name) => self.sets.get(&named(name, key)),
            data => data["set"].as_array(),
        };
        for entry in entries.into_iter().flatten() {
            let verdict = entry[1].as_object().into_iter().flatten();
            called.extend(verdict.filter_map(|(_, body)| body["target"].as_str()));
        }
    }

    /// Whether the address of a translation may be in a network; where it is not known, it may.
    fn leads_into(&self, address: &Value, key: &Key, cidr: &IpNet) -> bool {
        match address {
            Value::Null | Value::Bool(_) | Value::Number(_) => false,
            Value::String(name) if name.starts_with('@') => {
                let elements = self.sets.get(&named(name, key));
                elements.is_none_or(|elements| {
                    let mut elements = elements.iter();
                    elements.any(|element| self.leads_into(element, key, cidr))
                })
            }
            // A name, or a number, is none of its addresses.
            Value::String(text) => text
                .parse()
                .is_ok_and(|address: IpAddr| cidr.contains(&address)),
            Value::Array(parts) => parts.iter().any(|part| self.leads_into(part, key, cidr)),
            Value::Object(parts) => {
                if let Some(prefix) = parts.get("prefix") {
                    let text = prefix["addr"].as_str().zip(prefix["len"].as_u64());
                    let net = text.and_then(|(addr, len)| format!("{addr}/{len}").parse().ok());
                    return net.is_none_or(|net: IpNet| {
                        net.contains(&cidr.network()) || cidr.contains(&net.network())
                    });
                }
                if let Some(range) = parts.get("range") {
                    let end = |end: usize| range[end].as_str()?.parse::<IpAddr>().ok();
                    return end(0).zip(end(1)).is_none_or(|(low, high)| {
                        low <= cidr.broadcast() && cidr.network() <= high
                    });
                }
                let data = parts.get("map").map(|map| &map["data"]);
                data.map_or_else(
                    || {
                        let mut parts = parts.values();
                        parts.any(|part| self.leads_into(part, key, cidr))
                    },
                    |data| self.leads_into(data, key, cidr),
                )
            }
        }
    }

    /// A rule that drops or accepts by the state of connections between a node's containers and
    /// peers; the last address of the network stands for a peer's.
    fn stateful(&self, between: &Between<'_>, (cidr, subnet): &(IpNet, IpNet)) -> Option<String> {
        let (here, there) = (subnet.network(), cidr.broadcast());
        let mut found = None;
        let mut alive = false;
        for tunnel in between.tunnels {
            for (input, output, source, destination) in [
                (between.bridge, *tunnel, here, there),
                (*tunnel, between.bridge, there, here),
            ] {
                let packet = Packet {
                    input: Some(input),
                    output: Some(output),
                    source,
                    destination,
                    udp_port: None,
                    connection: Connection::New,
                };
                let fates = |connection| {
                    let packet = Packet {
                        connection,
                        ..packet.clone()
                    };
                    HOOKS.map(|hook| self.fate(hook, &packet))
                };
                let new = fates(Connection::New);
                alive |= new.iter().all(|fate| fate.dropped.is_none());
                let differs = |connection| {
                    let other = fates(connection);
                    let mut pairs = new.iter().zip(other);
                    pairs.find_map(|(one, other)| {
                        let places = |fate: &super::walk::Fate| {
                            let mut places: Vec<_> = fate.dropped.iter().cloned().collect();
                            places.extend(fate.in_danger.iter().cloned());
                            places
                        };
                        let (one, other) = (places(one), places(&other));
                        (one != other).then(|| one.into_iter().chain(other).next())?
                    })
                };
                found = found
                    .or_else(|| differs(Connection::Established))
                    .or_else(|| differs(Connection::Invalid));
            }
        }
        let place = found.filter(|_| alive)?;
        Some(format!(
            "what chain {} drops of it depends on the state of connections",
            place.chain
        ))
    }
}

fn named(name: &str, beside: &Key) -> Key {
    Key {
        name: name.trim_start_matches('@').to_owned(),
        ..beside.clone()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Between, Ruleset};

    fn told(kind: &str, hook: &str, policy: &str, rules: &[Value]) -> Option<String> {
        let mut objects = vec![
            json!({ "chain": { "family": "inet", "table": "fw", "name": "c",
            "type": kind, "hook": hook, "prio": 0, "policy": policy } }),
        ];
        objects.extend(rules.iter().map(|expr| {
            json!({ "rule": { "family": "inet", "table": "fw", "chain": "c", "expr": expr } })
        }));
        let ruleset = Ruleset::read(&json!({ "nftables": objects }), |_, _| false);
        let range = |text: &str| text.parse().unwrap();
        ruleset.follows(&Between {
            bridge: "ovlbr1",
            tunnels: &["ovl1"],
            ranges: &[(range("10.244.0.0/16"), range("10.244.1.0/24"))],
        })
    }

    fn state(names: &Value, verdict: &str) -> Value {
        json!([{ "match": { "op": "in", "left": { "ct": { "key": "state" } }, "right": names } },
            { verdict: null }])
    }

    fn from(device: &str, verdict: &str) -> Value {
        json!([{ "match": { "op": "==", "left": { "meta": { "key": "iifname" } },
            "right": device } }, { verdict: null }])
    }

    #[test]
    fn a_translation_into_the_network_is_followed_and_no_other() {
        let to = |address: Value| {
            told(
                "nat",
                "prerouting",
                "accept",
                &[json!([{ "dnat": { "addr": address, "port": 80 } }])],
            )
        };
        assert_eq!(
            to(json!("10.244.2.10")).as_deref(),
            Some("a rule of chain inet fw c translates destinations to addresses in it")
        );
        assert_eq!(to(json!("172.17.0.2")), None);
        assert!(to(json!({ "range": ["10.243.0.1", "10.244.0.9"] })).is_some());
        assert_eq!(
            to(json!({ "prefix": { "addr": "10.1.0.0", "len": 16 } })),
            None
        );
        let map = |address: &str| {
            json!({ "map": { "key": { "numgen": { "mode": "random", "mod": 2 } },
                "data": { "set": [[0, address], [1, "10.9.9.9"]] } } })
        };
        assert!(to(map("10.244.1.10")).is_some());
        assert_eq!(to(map("10.9.9.8")), None);
    }

    #[test]
    fn rules_by_the_state_of_connections_are_followed_where_there_can_be_some() {
        let known = state(&json!(["established", "related"]), "accept");
        let invalid = state(&json!("invalid"), "drop");
        let told = |policy, rules: &[Value]| told("filter", "forward", policy, rules);
        assert!(told("accept", std::slice::from_ref(&invalid)).is_some());
        let of_bridge = from("ovlbr1", "accept");
        assert!(told("drop", &[known.clone(), of_bridge.clone()]).is_some());
        // Nothing depends on it.
        assert_eq!(told("accept", std::slice::from_ref(&known)), None);
        assert_eq!(told("drop", std::slice::from_ref(&of_bridge)), None);
        // No connection can begin.
        assert_eq!(told("drop", &[known]), None);
        // They are accepted before.
        assert_eq!(
            told("accept", &[of_bridge, from("ovl1", "accept"), invalid]),
            None
        );
    }
}
