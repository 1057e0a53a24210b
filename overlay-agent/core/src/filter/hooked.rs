//! Rules that stand where the programs would pass them by, and what they are about.
//!
//! A rule that is not understood may be about everything; one that certainly cannot be about a
//! network of ours is left out.

mod calls;
mod maps;

use std::{collections::BTreeMap, net::IpAddr, slice};

use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};
use serde_json::Value;

use super::ruleset::{Base, Chain, Hook, Key, Ruleset};

pub(super) use maps::entries_have_parts;

/// Chains that call each other; the kernel allows 16.
const DEEPEST: usize = 16;

/// Which devices and addresses are ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// Devices of the networks, by name, whose packets are those inside of tunnels.
    pub inside: Vec<String>,
    /// Those of them that are bridges.
    pub bridges: Vec<String>,
    /// Devices of the underlay.
    pub underlay: Vec<String>,
    /// The address ranges of the networks.
    pub cidrs: Vec<IpNet>,
    /// This node's part of them.
    pub subnets: Vec<IpNet>,
    /// The UDP ports of the tunnels.
    pub ports: Vec<u16>,
}

/// The subjects of rules, and the chains that they are in, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hooked {
    /// By device, and whether at its egress.
    pub devices: BTreeMap<(String, bool), String>,
    /// Parts of a network that a rule names.
    pub named: BTreeMap<IpNet, String>,
}

/// The layer at which a rule sees a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Inner,
    Outer,
}

/// The possible subjects of a rule.
enum About {
    Nothing,
    /// All, or these devices alone.
    Devices(Option<Vec<String>>),
    Named(Vec<IpNet>),
}

impl Ruleset {
    /// Rules about our packets at chains of devices and bridges, and rules that name addresses.
    pub fn hooked(&self, places: &Places) -> Hooked {
        let mut hooked = Hooked::default();
        let judged = self.asked_of_packets();
        for (key, chain) in &self.chains {
            let name = || format!("nft chain {} {} {}", key.family, key.table, key.name);
            match (key.family.as_str(), &chain.base) {
                ("netdev", Some(base)) => {
                    for device in &base.devices {
                        let seen = if places.inside.contains(device) {
                            Seen::Inner
                        } else if places.underlay.contains(device) {
                            Seen::Outer
                        } else {
                            continue;
                        };
                        let device = [device.clone()];
                        self.take(key, (chain, base), seen, places, &device, &mut hooked);
                    }
                }
                ("bridge", Some(base)) => {
                    let bridges = &places.bridges;
                    self.take(
                        key,
                        (chain, base),
                        Seen::Inner,
                        places,
                        bridges,
                        &mut hooked,
                    );
                }
                ("netdev" | "bridge" | "arp", _) => {}
                _ => {
                    let rules = chain.rules.iter().flat_map(|rule| self.spelled(rule, key));
                    let is_judged = judged.contains(key);
                    for rule in rules.filter(|rule| {
                        self.drops(rule, key, 0) || is_judged && self.marks(rule, key)
                    }) {
                        let nets = self.nets(&rule, key);
                        let nets = nets.into_iter().flatten();
                        let nets = nets.filter(|net| places.have_as_a_part(net));
                        hooked.named.extend(nets.map(|net| (net, name())));
                    }
                }
            }
        }
        hooked
    }

    /// Takes in what the rules of a base chain may be about, which sees packets of these devices.
    fn take(
        &self,
        key: &Key,
        (chain, base): (&Chain, &Base),
        seen: Seen,
        places: &Places,
        devices: &[String],
        hooked: &mut Hooked,
    ) {
        let name = format!("nft chain {} {} {}", key.family, key.table, key.name);
        let is_egress = base.hook == Hook::Egress;
        let mut at = |devices: &[String]| {
            let rows = devices.iter().map(|device| (device.clone(), is_egress));
            hooked.devices.extend(rows.map(|row| (row, name.clone())));
        };
        if base.drops {
            at(devices);
            return;
        }
        let mut named = Vec::new();
        let rules = chain.rules.iter();
        for rule in rules.flat_map(|rule| self.spelled(rule, key)) {
            match self.about(&rule, key, seen, places) {
                About::Nothing => {}
                About::Devices(None) => at(devices),
                About::Devices(Some(only)) => at(&only),
                About::Named(nets) => named.extend(nets),
            }
        }
        hooked
            .named
            .extend(named.into_iter().map(|net| (net, name.clone())));
    }

    fn about(&self, rule: &[Value], key: &Key, seen: Seen, places: &Places) -> About {
        if !self.acts(rule, key, 0) {
            return About::Nothing;
        }
        let mut only: Option<Vec<String>> = None;
        for (left, right) in matches(rule) {
            match tells(left) {
                Tells::Device if key.family == "bridge" => {
                    let Some(names) = self.texts(right, key) else {
                        continue;
                    };
                    let inside = places.inside.iter().cloned();
                    let among: Vec<String> = inside.filter(|one| is_one(one, &names)).collect();
                    if among.is_empty() {
                        return About::Nothing;
                    }
                    only = Some(among);
                }
                Tells::Protocol => {
                    let Some(names) = self.texts(right, key) else {
                        continue;
                    };
                    let is = |name: &&str| names.iter().any(|one| one == name);
                    let can_be_ip = ["ip", "ip6", "vlan", "8021q"].iter().any(is);
                    let is_ether = names.iter().any(|name| name == "arp") && !can_be_ip;
                    if is_ether {
                        return About::Nothing;
                    }
                }
                Tells::Arp => return About::Nothing,
                Tells::OtherTransport if seen == Seen::Outer => return About::Nothing,
                Tells::Transport if seen == Seen::Outer => {
                    let texts = self.texts(right, key);
                    if texts.is_some_and(|texts| !is_one("udp", &texts)) {
                        return About::Nothing;
                    }
                }
                Tells::UdpPort if seen == Seen::Outer => {
                    let is_ours = right.as_u64().is_none_or(|port| {
                        places.ports.iter().any(|ours| u64::from(*ours) == port)
                    });
                    if !is_ours {
                        return About::Nothing;
                    }
                }
                _ => {}
            }
        }
        let Some(nets) = self.nets(rule, key) else {
            return About::Devices(only);
        };
        if seen == Seen::Outer {
            // VTEPs are not looked at one by one.
            return About::Devices(only);
        }
        let nets: Vec<IpNet> = nets
            .into_iter()
            .filter(|net| places.cidrs.iter().any(|cidr| overlap(*cidr, *net)))
            .collect();
        if nets.iter().all(|net| places.is_of_a_node(net)) {
            return if nets.is_empty() {
                About::Nothing
            } else {
                About::Named(nets)
            };
        }
        About::Devices(only)
    }

    /// Whether a rule does more than to count, to write a log and to let pass.
    fn acts(&self, rule: &[Value], key: &Key, depth: usize) -> bool {
        self.any(rule, key, depth, |kind| {
            !matches!(
                kind,
                "match"
                    | "counter"
                    | "log"
                    | "accept"
                    | "return"
                    | "continue"
                    | "jump"
                    | "goto"
                    | "vmap"
            )
        })
    }

    /// Whether a rule drops what it is about.
    fn drops(&self, rule: &[Value], key: &Key, depth: usize) -> bool {
        self.any(rule, key, depth, |kind| matches!(kind, "drop" | "reject"))
    }

    /// Whether a rule marks what it is about, notes it, or hands it to somebody.
    fn marks(&self, rule: &[Value], key: &Key) -> bool {
        self.any(rule, key, 0, |kind| {
            matches!(
                kind,
                "dup" | "fwd" | "mangle" | "map" | "queue" | "set" | "synproxy" | "tproxy"
            )
        })
    }

    /// Whether a statement of the rule, or of a chain that it calls, is of such a kind.
    pub(super) fn any(
        &self,
        rule: &[Value],
        key: &Key,
        depth: usize,
        is: fn(&str) -> bool,
    ) -> bool {
        rule.iter().any(|statement| {
            let Some((kind, body)) = statement.as_object().and_then(|one| one.iter().next()) else {
                return false;
            };
            if is(kind) {
                return true;
            }
            if kind == "vmap" {
                let entries = self.entries(body, key).into_iter().flatten();
                let mut verdicts = entries.map(|(_, verdict)| slice::from_ref(verdict));
                return verdicts.any(|verdict| self.any(verdict, key, depth, is));
            }
            if !matches!(kind.as_str(), "jump" | "goto") || depth == DEEPEST {
                return false;
            }
            let called = Key {
                name: body["target"].as_str().unwrap_or_default().to_owned(),
                ..key.clone()
            };
            let chain = self.chains.get(&called);
            let mut rules = chain.into_iter().flat_map(|chain| &chain.rules);
            rules.any(|rule| self.any(rule, &called, depth + 1, is))
        })
    }

    /// The addresses that a rule is about; `None` where it names none, or in a way that is not
    /// understood. Of a source and a destination the one that is the smaller part of a network.
    fn nets(&self, rule: &[Value], key: &Key) -> Option<Vec<IpNet>> {
        let named = matches(rule)
            .filter(|(left, _)| matches!(tells(left), Tells::Address))
            .filter_map(|(_, right)| self.nets_of(right, key));
        let longest = |nets: &Vec<IpNet>| nets.iter().map(IpNet::prefix_len).min();
        named.max_by_key(longest)
    }

    pub(super) fn nets_of(&self, right: &Value, key: &Key) -> Option<Vec<IpNet>> {
        let nets = self.leaves(right, key)?.into_iter().map(nets_of_one);
        nets.collect::<Option<Vec<_>>>().map(|nets| nets.concat())
    }

    /// Names that a value may be; `None` where it is not understood.
    fn texts(&self, right: &Value, key: &Key) -> Option<Vec<String>> {
        let texts = self.leaves(right, key)?.into_iter();
        texts.map(|text| text.as_str().map(str::to_owned)).collect()
    }
}

/// An address, a prefix, or the prefixes of a range.
fn nets_of_one(value: &Value) -> Option<Vec<IpNet>> {
    if let Some(text) = value.as_str() {
        return Some(vec![IpNet::from(text.parse::<IpAddr>().ok()?)]);
    }
    if let Some(prefix) = value.get("prefix") {
        let address = prefix["addr"].as_str()?.parse().ok()?;
        let length = u8::try_from(prefix["len"].as_u64()?).ok()?;
        return Some(vec![IpNet::new(address, length).ok()?.trunc()]);
    }
    let range = value.get("range")?;
    let end = |place: usize| range[place].as_str()?.parse().ok();
    match (end(0)?, end(1)?) {
        (IpAddr::V4(low), IpAddr::V4(high)) => {
            Some(Ipv4Subnets::new(low, high, 0).map(IpNet::from).collect())
        }
        (IpAddr::V6(low), IpAddr::V6(high)) => {
            Some(Ipv6Subnets::new(low, high, 0).map(IpNet::from).collect())
        }
        _ => None,
    }
}

impl Places {
    /// Whether it is a part of a network, and not all that this node has of it.
    fn have_as_a_part(&self, net: &IpNet) -> bool {
        let mut cidrs = self.cidrs.iter();
        let mut subnets = self.subnets.iter();
        cidrs.any(|cidr| cidr != net && cidr.contains(net))
            && !subnets.any(|subnet| net.contains(subnet))
    }

    /// Whether it is one address, or a part of what this node has.
    fn is_of_a_node(&self, net: &IpNet) -> bool {
        let mut subnets = self.subnets.iter();
        net.prefix_len() == net.max_prefix_len()
            || subnets.any(|subnet| subnet != net && subnet.contains(net))
    }
}

/// The subject of a `match`.
enum Tells {
    Address,
    Device,
    /// The protocol behind the Ethernet header.
    Protocol,
    Arp,
    Transport,
    UdpPort,
    OtherTransport,
    Else,
}

fn tells(left: &Value) -> Tells {
    if let Some(key) = left["meta"]["key"].as_str() {
        return match key {
            "iifname" | "oifname" | "iif" | "oif" | "ibrname" | "obrname" => Tells::Device,
            "protocol" => Tells::Protocol,
            "l4proto" => Tells::Transport,
            _ => Tells::Else,
        };
    }
    let payload = &left["payload"];
    match (payload["protocol"].as_str(), payload["field"].as_str()) {
        _ if super::matching::is_connections_address(left) => Tells::Address,
        (Some("ip" | "ip6"), Some("saddr" | "daddr")) => Tells::Address,
        (Some("ip" | "ip6"), Some("protocol" | "nexthdr")) => Tells::Transport,
        (Some("ether"), Some("type")) => Tells::Protocol,
        (Some("arp"), _) => Tells::Arp,
        (Some("udp" | "th"), Some("dport")) => Tells::UdpPort,
        (Some("tcp" | "icmp" | "icmpv6" | "sctp" | "igmp" | "esp"), _) => Tells::OtherTransport,
        _ => Tells::Else,
    }
}

/// The sides of what a rule wants to be equal.
pub(super) fn matches(rule: &[Value]) -> impl Iterator<Item = (&Value, &Value)> {
    rule.iter().filter_map(|statement| {
        let body = statement.get("match")?;
        let is_equal = matches!(body["op"].as_str(), Some("==" | "in"));
        is_equal.then_some((&body["left"], &body["right"]))
    })
}

fn is_one(name: &str, names: &[String]) -> bool {
    names.iter().any(|wanted| match wanted.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == wanted,
    })
}

pub(super) fn overlap(one: IpNet, other: IpNet) -> bool {
    one.contains(&other) || other.contains(&one)
}

#[cfg(test)]
mod tests;
