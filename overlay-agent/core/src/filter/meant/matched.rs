//! A rule's conditions on a packet.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use serde_json::{Value, json};

use super::{About, Sofar, Walk, without};
use crate::filter::{
    Between,
    hooked::overlap,
    matching::{Truth, is_true},
    ruleset::Key,
    walk::is_beside_plain,
};

/// Matches of `iptables` that tell a packet from others of a network.
const TELLING: [&str; 27] = [
    "bpf",
    "connbytes",
    "connlimit",
    // Where it asks for more than states.
    "conntrack",
    "dscp",
    "ecn",
    "hashlimit",
    "helper",
    "hl",
    "icmp",
    "icmp6",
    "iprange",
    "length",
    "limit",
    "mac",
    "multiport",
    "quota",
    "recent",
    "set",
    "statistic",
    "string",
    "tcp",
    "time",
    "tos",
    "ttl",
    "u32",
    "udp",
];
/// Targets of `iptables` that somebody looks at further on, or that lead packets elsewhere.
const CHANGING: [&str; 7] = ["CLASSIFY", "DSCP", "HL", "MARK", "TEE", "TOS", "TTL"];

impl Walk<'_> {
    /// Takes in what a rule wants; whether it can still be about somebody.
    pub(super) fn matched(&mut self, body: &Value, key: &Key, is: &mut Sofar) -> bool {
        let (left, right) = (&body["left"], &body["right"]);
        let Some(parts) = left["concat"].as_array() else {
            return self.matched_one(body, key, is);
        };
        // Each part is one of those that stand there, whatever stands beside it.
        is.certain = false;
        let leaves = self.ruleset.leaves(right, key);
        for (place, part) in parts.iter().enumerate() {
            let values = leaves.iter().flatten();
            let values: Vec<Value> = values.map(|leaf| leaf["concat"][place].clone()).collect();
            if leaves.is_none() || body["op"] == "!=" {
                is.named |= self.names(part, right, key);
                self.tells_apart = true;
                continue;
            }
            let one = json!({ "op": "==", "left": part, "right": { "set": values } });
            if !self.matched_one(&one, key, is) {
                return false;
            }
        }
        true
    }

    fn matched_one(&mut self, body: &Value, key: &Key, is: &mut Sofar) -> bool {
        let (left, right) = (&body["left"], &body["right"]);
        let differs = body["op"] == "!=";
        if self.is_about_somebody(left) {
            is.named = true;
            return match (self.ruleset.nets_of(right, key), self.about) {
                (Some(nets), About::Outside(_)) => {
                    self.tells_apart = true;
                    let some = among(&is.who, &nets);
                    is.who = if differs {
                        without(&is.who, &some)
                    } else {
                        some.into()
                    };
                    true
                }
                (Some(nets), About::Within(between)) if !differs => {
                    // Of parts of a network others take care.
                    nets.iter().any(|net| covers(between, net)) && self.holds(body, key, is)
                }
                (Some(_), About::Within(_) | About::Part) => self.holds(body, key, is),
                (None, _) => {
                    self.tells_apart = true;
                    is.certain = false;
                    true
                }
            };
        }
        // What comes by any other device comes by everybody's.
        is.named |= self.names(left, if differs { &Value::Null } else { right }, key);
        self.holds(body, key, is)
    }

    /// Whether a match can be true of the packet.
    fn holds(&self, body: &Value, key: &Key, is: &mut Sofar) -> bool {
        let truth = is_true(body, &self.packet, self.ruleset, key);
        let leaves = self.ruleset.leaves(&body["right"], key);
        let has_rest = leaves.is_some_and(|leaves| leaves.iter().any(|leaf| *leaf == "*"));
        is.certain &= truth == Truth::Yes && !has_rest;
        // What is translated for what others have made of a connection is left to the kernel for that.
        let of_connection = self.is_nat && body["left"].get("ct").is_some();
        truth != Truth::No && !(of_connection && truth == Truth::Maybe)
    }

    /// Whether it is an address that a match looks at, of those that differ.
    fn is_about_somebody(&self, left: &Value) -> bool {
        let payload = &left["payload"];
        let own = if self.packet.destination.is_ipv6() {
            "ip6"
        } else {
            "ip"
        };
        payload["protocol"] == own
            && match self.about {
                About::Outside(differs) => payload["field"] == differs,
                About::Within(_) | About::Part => {
                    payload["field"] == "saddr" || payload["field"] == "daddr"
                }
            }
    }

    pub(super) fn by_iptables(&mut self, body: &Value, is: &mut Sofar) -> bool {
        let name = body["name"].as_str().unwrap_or_default();
        // What is in a set of its own is not known: to accuse nobody, it is nobody for translation.
        if is_beside_plain(body) || self.is_nat && matches!(name, "conntrack" | "set") {
            return false;
        }
        if body["type"] == "target" {
            if CHANGING.contains(&name) {
                self.note(is);
            }
        } else {
            is.certain = false;
            is.named |= TELLING.contains(&name);
        }
        true
    }

    /// Whether what a match looks at tells packets of ours from others.
    fn names(&self, left: &Value, right: &Value, key: &Key) -> bool {
        const OF_PACKETS: [&str; 7] = [
            "payload",
            "exthdr",
            "osf",
            "tcp option",
            "numgen",
            "jhash",
            "symhash",
        ];
        // A part of something is what it is a part of.
        let left = left.get("&").map_or(left, |parts| &parts[0]);
        match left["meta"]["key"].as_str() {
            Some("iifname" | "oifname" | "iif" | "oif") => self.names_a_device(right, key),
            Some(meta) => matches!(
                meta,
                "l4proto" | "length" | "random" | "time" | "day" | "hour"
            ),
            None if left.get("ct").is_some() => tells_connections_apart(&left["ct"]),
            None => OF_PACKETS.iter().any(|kind| left.get(kind).is_some()),
        }
    }

    /// A device of the network's, and not one that everybody's packets come by.
    fn names_a_device(&self, right: &Value, key: &Key) -> bool {
        let About::Within(between) = self.about else {
            return false;
        };
        let leaves = self.ruleset.leaves(right, key).into_iter().flatten();
        let mut names = leaves.filter_map(Value::as_str);
        let mut ours = between.tunnels.iter().chain([&between.bridge]);
        names.any(|name| match name.strip_suffix('*') {
            Some(start) => !start.is_empty() && ours.any(|device| device.starts_with(start)),
            None => ours.any(|device| *device == name),
        })
    }
}

/// Whether one connection has something else there than another, whatever rules say. What only rules
/// give it (marks, labels, zones) counts where they do, and states where they differ.
fn tells_connections_apart(ct: &Value) -> bool {
    const GIVEN: [&str; 6] = ["state", "status", "mark", "label", "zone", "eventmask"];
    ct["key"].as_str().is_some_and(|key| !GIVEN.contains(&key))
}

/// Whether a prefix is more than a part of a network: all that this node has, or all of it.
fn covers(between: &Between<'_>, net: &IpNet) -> bool {
    let mut ranges = between.ranges.iter();
    ranges
        .any(|(cidr, subnet)| overlap(*cidr, *net) && (net.contains(subnet) || net.contains(cidr)))
}

fn among(who: &BTreeSet<IpAddr>, nets: &[IpNet]) -> BTreeSet<IpAddr> {
    let within = |net: &IpNet| who.range(net.network()..=net.broadcast());
    nets.iter().flat_map(within).copied().collect()
}
