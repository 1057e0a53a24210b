//! Which rules only hold when connection tracking sees every packet of a connection.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use super::{
    Connection, Packet,
    hooked::matches,
    matching::{Truth, is_true},
    ruleset::{Hook, Key, Ruleset},
    walk::{Fate, Place},
};

/// So many parts of a network that rules keep from connection tracking are looked at.
const FEW: usize = 64;

/// Where the packets of a network are forwarded.
#[derive(Clone, Copy, Debug)]
pub struct Between<'a> {
    /// The device of its containers.
    pub bridge: &'a str,
    /// The devices of its tunnels.
    pub tunnels: &'a [&'a str],
    /// All addresses of the network, and those of this node.
    pub ranges: &'a [(IpNet, IpNet)],
}

/// The hooks of chains that judge a packet, without those that translate.
const HOOKS: [Hook; 3] = [Hook::Prerouting, Hook::Forward, Hook::Postrouting];

/// How rules follow the connections of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Following {
    /// Which rules, in a sentence.
    pub(crate) why: String,
    /// Where they are.
    pub place: Place,
    /// They tell a connection's first packet from later ones: connection tracking has to see all of
    /// the network. Else they only drop what belongs to no connection that it has seen: it has to
    /// see both directions of a connection, or none.
    pub whole: bool,
}

impl Following {
    /// The consequence for the network, in a sentence.
    pub fn text(&self) -> String {
        let left = if self.whole {
            "left to the kernel"
        } else {
            "peers that send checksums are left to the kernel"
        };
        format!("{left}: {}", self.why)
    }

    /// The same for a network that programs send into and do not receive from: connection tracking
    /// would see one direction of its connections.
    #[must_use]
    pub fn of_one_direction(mut self) -> Self {
        if !self.whole {
            self.whole = true;
            self.why += ", and before Linux 6.3 programs send and cannot receive IPv6 through IPv4, or the reverse";
        }
        self
    }
}

impl Ruleset {
    /// Whether what rules drop of a network depends on the state of the connection.
    ///
    /// Where the first packet of every connection is dropped, there are none to follow.
    pub fn follows(&self, between: &Between<'_>) -> Option<Following> {
        let ranges = between.ranges.iter();
        let mut found: Vec<_> = ranges
            .filter_map(|range| self.stateful(between, range))
            .collect();
        found.sort_by_key(|following| !following.whole);
        found.into_iter().next()
    }

    /// A rule that drops or accepts by the state of connections between a node's containers and
    /// peers; the last address of the network stands for a peer's.
    fn stateful(
        &self,
        between: &Between<'_>,
        (cidr, subnet): &(IpNet, IpNet),
    ) -> Option<Following> {
        let mut ends = vec![(subnet.network(), cidr.broadcast())];
        ends.extend(self.ends_untracked(cidr, subnet));
        let mut known = None;
        let mut invalid = None;
        let mut alive = false;
        for tunnel in between.tunnels {
            let ways = ends.iter().flat_map(|&(here, there)| {
                [
                    (between.bridge, *tunnel, here, there),
                    (*tunnel, between.bridge, there, here),
                ]
            });
            for (input, output, source, destination) in ways {
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
                let passes = |fates: &[Fate; 3]| fates.iter().all(|fate| fate.dropped.is_none());
                alive |= passes(&new);
                let differs = |connection| {
                    let other = fates(connection);
                    let mut pairs = new.iter().zip(other);
                    pairs.find_map(|(one, other)| {
                        let places = |fate: &Fate| {
                            let mut places: Vec<_> = fate.dropped.iter().cloned().collect();
                            places.extend(fate.in_danger.iter().chain(&fate.in_doubt).cloned());
                            places
                        };
                        let (one, other) = (places(one), places(&other));
                        (one != other).then(|| one.into_iter().chain(other).next())?
                    })
                };
                known = known.or_else(|| differs(Connection::Established));
                invalid = invalid.or_else(|| differs(Connection::Invalid));
                if self.may_be_untracked(&packet) {
                    alive |= passes(&fates(Connection::Untracked));
                    known = known.or_else(|| differs(Connection::Untracked));
                }
            }
        }
        let whole = known.is_some();
        let place = known.or(invalid).filter(|_| alive)?;
        let why = format!(
            "what chain {} drops of it depends on the state of connections",
            place.chain
        );
        Some(Following { why, place, whole })
    }
}

/// Rules that keep packets from connection tracking.
impl Ruleset {
    /// Whether some of a packet's kind can be kept from it.
    fn may_be_untracked(&self, packet: &Packet<'_>) -> bool {
        self.untracking().any(|(key, rule)| {
            let mut matches = rule.iter().filter_map(|statement| statement.get("match"));
            matches.all(|body| is_true(body, packet, self, key) != Truth::No)
        })
    }

    /// Ends of packets, here and elsewhere, that such rules name as parts of a network.
    fn ends_untracked(&self, cidr: &IpNet, subnet: &IpNet) -> Vec<(IpAddr, IpAddr)> {
        let named = self.untracking().flat_map(|(key, rule)| {
            let nets = matches(rule).filter_map(|(_, right)| self.nets_of(right, key));
            nets.flatten().collect::<Vec<_>>()
        });
        let parts = named.filter(|net| cidr != net && cidr.contains(net));
        let mut ends: Vec<_> = parts
            .map(|net| {
                if subnet.contains(&net) {
                    (net.network(), cidr.broadcast())
                } else {
                    (subnet.network(), net.network())
                }
            })
            .collect();
        ends.sort_unstable();
        ends.dedup();
        // Each is led through all chains: of more, the others' packets are like these as a rule.
        ends.truncate(FEW);
        ends
    }

    fn untracking(&self) -> impl Iterator<Item = (&Key, &[Value])> {
        let chains = self.chains.iter();
        let chains = chains.filter(|(key, _)| matches!(key.family.as_str(), "ip" | "ip6" | "inet"));
        let rules = chains.flat_map(|(key, chain)| chain.rules.iter().map(move |rule| (key, rule)));
        rules
            .map(|(key, rule)| (key, rule.as_slice()))
            .filter(|(_, rule)| rule.iter().any(keeps_from_tracking))
    }
}

/// `notrack`, or the target of iptables that can be one.
fn keeps_from_tracking(statement: &Value) -> bool {
    let xt = &statement["xt"];
    let is_target = xt["type"] == "target" && (xt["name"] == "CT" || xt["name"] == "NOTRACK");
    is_target || statement.get("notrack").is_some()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Between, Following, Ruleset};

    fn told(policy: &str, rules: &[Value]) -> Option<bool> {
        let mut objects = vec![
            json!({ "chain": { "family": "inet", "table": "fw", "name": "c",
            "type": "filter", "hook": "forward", "prio": 0, "policy": policy } }),
        ];
        objects.extend(rules.iter().map(|expr| {
            json!({ "rule": { "family": "inet", "table": "fw", "chain": "c", "expr": expr } })
        }));
        follows(&json!({ "nftables": objects }))
    }

    fn follows(listing: &Value) -> Option<bool> {
        following(listing).map(|following| following.whole)
    }

    fn following(listing: &Value) -> Option<Following> {
        let ruleset = Ruleset::read(listing, |_, _| false);
        let range = |text: &str| text.parse().unwrap();
        ruleset.follows(&Between {
            bridge: "ovlbr1",
            tunnels: &["ovl1"],
            ranges: &[
                (range("10.244.0.0/16"), range("10.244.1.0/24")),
                (range("fd00:244::/48"), range("fd00:244:0:1::/64")),
            ],
        })
    }

    #[test]
    fn connections_whose_packets_come_by_the_kernel_are_followed_as_a_whole() {
        let drops = state(&json!("invalid"), "drop");
        let chain = json!({ "chain": { "family": "inet", "table": "fw", "name": "c",
            "type": "filter", "hook": "forward", "prio": 0, "policy": "accept" } });
        let rule = json!({ "rule": { "family": "inet", "table": "fw", "chain": "c",
            "expr": drops } });
        let usual = following(&json!({ "nftables": [chain, rule] })).unwrap();
        assert!(!usual.whole, "{usual:?}");
        let one_way = usual.clone().of_one_direction();
        assert!(one_way.whole);
        assert!(one_way.text().starts_with("left to the kernel: "));
        // Those that are followed as a whole anyway are told as before.
        assert_eq!(one_way.clone().of_one_direction(), one_way);
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
    fn rules_by_the_state_of_connections_are_followed_where_there_can_be_some() {
        let known = state(&json!(["established", "related"]), "accept");
        let invalid = state(&json!("invalid"), "drop");
        assert_eq!(told("accept", std::slice::from_ref(&invalid)), Some(false));
        let of_bridge = from("ovlbr1", "accept");
        assert_eq!(
            told("drop", &[known.clone(), invalid.clone(), of_bridge.clone()]),
            Some(true)
        );
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

    /// Rules in `raw` that keep packets from connection tracking, and rules in `forward`.
    fn untracked(raw: &[Value], forward: &[Value]) -> Option<bool> {
        let mut objects = Vec::new();
        for (name, hook, rules) in [("raw", "prerouting", raw), ("fw", "forward", forward)] {
            objects.push(
                json!({ "chain": { "family": "inet", "table": "t", "name": name,
                "type": "filter", "hook": hook, "prio": -300, "policy": "accept" } }),
            );
            objects.extend(rules.iter().map(|expr| {
                json!({ "rule": { "family": "inet", "table": "t", "chain": name, "expr": expr } })
            }));
        }
        follows(&json!({ "nftables": objects }))
    }

    #[test]
    fn what_is_not_tracked_is_followed_where_rules_ask_for_it() {
        let of = |field: &str, who: Value| {
            json!([{ "match": { "op": "==", "right": who,
            "left": { "payload": { "protocol": "ip", "field": field } } } }, { "notrack": null }])
        };
        let part = of(
            "daddr",
            json!({ "prefix": { "addr": "10.244.2.0", "len": 24 } }),
        );
        let of_port = json!([{ "match": { "op": "==", "right": 53,
            "left": { "payload": { "protocol": "udp", "field": "dport" } } } }, { "notrack": null }]);
        let by_iptables = json!([{ "xt": { "type": "target", "name": "CT" } }]);
        let asked = state(&json!("untracked"), "drop");
        for raw in [
            of("saddr", json!("10.244.1.7")),
            part.clone(),
            of_port,
            by_iptables,
        ] {
            let told = untracked(std::slice::from_ref(&raw), std::slice::from_ref(&asked));
            assert_eq!(told, Some(true), "{raw}");
        }
        // Only what is kept from it passes.
        let only = [
            state(&json!("untracked"), "accept"),
            json!([{ "drop": null }]),
        ];
        assert_eq!(untracked(std::slice::from_ref(&part), &only), Some(true));
        // Nobody is kept from it, or others, and nobody asks.
        assert_eq!(untracked(&[], std::slice::from_ref(&asked)), None);
        assert_eq!(
            untracked(&[of("saddr", json!("192.0.2.7"))], &[asked]),
            None
        );
        assert_eq!(
            untracked(&[part], &[state(&json!("untracked"), "accept")]),
            None
        );
    }

    #[test]
    fn a_connection_s_direction_tells_packets_apart() {
        let answers = json!([{ "match": { "op": "==", "right": "reply",
            "left": { "ct": { "key": "direction" } } } }, { "accept": null }]);
        let rules = [answers, from("ovlbr1", "accept")];
        assert_eq!(told("drop", &rules), Some(true));
    }

    #[test]
    fn firewalls_that_accept_the_network_leave_it_fast() {
        let read = |text| serde_json::from_str(text).unwrap();
        let ufw = include_str!("rulesets/ufw-allowed.json");
        assert_eq!(follows(&read(ufw)), None);
        // Whom containers ask answers, and asks nobody: the kernel has to know who has asked.
        let way = r#""left":{"meta":{"key":"iifname"}},"right":"ovl1""#;
        let one_way = ufw.replace(way, &way.replace("ovl1", "other"));
        assert_ne!(ufw, one_way);
        assert_eq!(follows(&read(&one_way)), Some(true));
        // What is invalid it drops before it looks at zones.
        let firewalld = read(include_str!("rulesets/firewalld-allowed.json"));
        assert_eq!(follows(&firewalld), Some(false));
    }
}
