//! Parts of a network whose packets get other addresses.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    rc::Rc,
};

use ipnet::IpNet;
use serde_json::Value;

use super::{About, Walk, Way, packets};
use crate::filter::{
    Between,
    hooked::{matches, overlap},
    ruleset::{Key, Ruleset},
    walk::translates,
};

/// So many rules about parts are led through all chains; of more, each counts as it stands.
const FEW: usize = 64;

/// Whom a rule is about: sources and destinations, where it names some.
type Ends = [Option<Vec<IpNet>>; 2];

impl Ruleset {
    /// Parts of a network that rules translate, with the chain that has the rule. Of a source and a
    /// destination the smaller one.
    pub(super) fn translated_parts(&self, between: &Between<'_>) -> BTreeMap<IpNet, String> {
        let mut found = Vec::new();
        for (key, chain) in &self.chains {
            if !matches!(key.family.as_str(), "ip" | "ip6" | "inet") {
                continue;
            }
            let rules = chain.rules.iter().flat_map(|rule| self.spelled(rule, key));
            for rule in rules.filter(|rule| self.any(rule, key, 0, translates)) {
                let name = format!("nft chain {} {} {}", key.family, key.table, key.name);
                let pairs = self.pairs(&rule, key);
                found.extend(pairs.into_iter().map(|ends| (ends, name.clone())));
            }
        }
        found.retain(|(ends, _)| part_of(ends, between).is_some());
        let few = found.len() <= FEW;
        let found = found.into_iter().filter(|(ends, _)| {
            let mut ways = ways(ends, between).into_iter();
            !few || ways.any(|way| self.is_translated(way))
        });
        let parts = found.filter_map(|(ends, name)| Some((part_of(&ends, between)?, name)));
        let parts =
            parts.flat_map(|(nets, name)| nets.into_iter().map(move |net| (net, name.clone())));
        parts.collect()
    }

    /// Whom a rule is about; of one that looks up what to translate to, whom it finds there, too.
    fn pairs(&self, rule: &[Value], key: &Key) -> Vec<Ends> {
        let mut ends: Ends = [None, None];
        for (left, right) in matches(rule) {
            self.name_end(&mut ends, left, right, key);
        }
        let mut statements = rule.iter().filter_map(Value::as_object).flatten();
        let map = statements.find_map(|(kind, body)| {
            let map = body["addr"].get("map")?;
            translates(kind).then_some(map)
        });
        let entries = map.and_then(|map| Some((map, self.entries(map, key)?)));
        let Some((map, entries)) = entries else {
            return vec![ends];
        };
        let of_entry = |(found, _): (&Value, &Value)| {
            let mut ends = ends.clone();
            let found = found.get("elem").map_or(found, |element| &element["val"]);
            match map["key"]["concat"].as_array() {
                None => self.name_end(&mut ends, &map["key"], found, key),
                Some(parts) => {
                    for (place, part) in parts.iter().enumerate() {
                        self.name_end(&mut ends, part, &found["concat"][place], key);
                    }
                }
            }
            ends
        };
        entries.into_iter().map(of_entry).collect()
    }

    fn name_end(&self, ends: &mut Ends, left: &Value, right: &Value, key: &Key) {
        if let Some(end) = end(left)
            && let Some(nets) = self.nets_of(right, key)
        {
            ends[end] = Some(nets);
        }
    }

    fn is_translated(&self, way: Way<'_>) -> bool {
        packets(way).into_iter().any(|(hook, packet)| {
            let mut walk = Walk::new(self, packet, About::Part);
            walk.at(hook, &Rc::new(BTreeSet::from([way.3])));
            !walk.found.is_empty()
        })
    }
}

/// The parts of a network that a rule is about: of both ends, that of which it names the smaller
/// part. `None` where it is not about packets between addresses of the network, or about more than a
/// part.
fn part_of(ends: &Ends, between: &Between<'_>) -> Option<Vec<IpNet>> {
    let within = |nets: &Vec<IpNet>| -> Vec<IpNet> {
        let among = |net: &&IpNet| {
            let mut ranges = between.ranges.iter();
            ranges.any(|(cidr, _)| overlap(*cidr, **net))
        };
        nets.iter().filter(among).copied().collect()
    };
    let named: Vec<Vec<IpNet>> = ends.iter().flatten().map(within).collect();
    if named.iter().any(Vec::is_empty) {
        return None;
    }
    let is_part = |net: &IpNet| {
        let mut ranges = between.ranges.iter();
        ranges.any(|(cidr, subnet)| {
            cidr != net && cidr.contains(net) && subnet != net && !net.contains(subnet)
        })
    };
    let named = named.into_iter().filter(|nets| nets.iter().all(is_part));
    named.max_by_key(|nets| nets.iter().map(IpNet::prefix_len).min())
}

/// The ways on which packets of a rule's ends would come by.
fn ways<'a>(ends: &Ends, between: &Between<'a>) -> Vec<Way<'a>> {
    let mut ways = Vec::new();
    for (cidr, subnet) in between.ranges {
        // One address of each net that is named; else one that stands for many.
        let of = |end: &Option<Vec<IpNet>>, else_: [IpAddr; 2]| -> Vec<IpAddr> {
            match end {
                None => else_.to_vec(),
                Some(nets) => nets
                    .iter()
                    .filter(|net| overlap(*cidr, **net))
                    .map(|net| {
                        if net.contains(cidr) {
                            cidr.broadcast()
                        } else {
                            net.network()
                        }
                    })
                    .take(FEW)
                    .collect(),
            }
        };
        let sources = of(&ends[0], [cidr.broadcast(), subnet.network()]);
        let destinations = of(&ends[1], [cidr.broadcast(), subnet.broadcast()]);
        for (&source, &destination) in sources
            .iter()
            .flat_map(|source| destinations.iter().map(move |to| (source, to)))
        {
            let here = [source, destination].map(|end| subnet.contains(&end));
            for tunnel in between.tunnels {
                match here {
                    [true, false] => ways.push((between.bridge, *tunnel, source, destination)),
                    [false, true] => ways.push((*tunnel, between.bridge, source, destination)),
                    [true, true] | [false, false] => {}
                }
            }
            if here == [true, true] {
                ways.push((between.bridge, between.bridge, source, destination));
            }
        }
    }
    ways
}

/// Which end a match looks at.
fn end(left: &Value) -> Option<usize> {
    let payload = &left["payload"];
    if !matches!(payload["protocol"].as_str(), Some("ip" | "ip6")) {
        return None;
    }
    match payload["field"].as_str() {
        Some("saddr") => Some(0),
        Some("daddr") => Some(1),
        _ => None,
    }
}
