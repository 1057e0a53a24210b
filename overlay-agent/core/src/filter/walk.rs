//! A packet's way through chains.

use std::{collections::BTreeSet, fmt};

use serde_json::Value;

use super::{
    Packet,
    matching::{Truth, has_key, is_true},
    ruleset::{Base, Chain, Hook, Key, Ruleset},
};

/// Chains that call each other; the kernel allows 16.
pub(super) const DEEPEST: usize = 16;

/// The fate of a packet at a hook.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fate {
    /// Where it certainly ends.
    pub dropped: Option<Place>,
    /// Where it certainly gets another address.
    pub renamed: Option<Place>,
    /// Rules that drop some packets of its kind.
    pub in_danger: Vec<Place>,
    /// Policies that drop what no rule accepts, of which one may accept it.
    pub(crate) in_doubt: Vec<Place>,
}

/// A rule, or a policy, of a base chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Family, table and name of the base chain.
    pub chain: String,
    /// Whether it is the chain's policy; else it is a rule, there or in a chain that it calls.
    pub(crate) is_policy: bool,
    /// Whether it is at `ingress` or `egress`.
    pub(crate) at_device: bool,
}

impl Place {
    /// Whether packets that it is about are left to the kernel for its sake, where the fast path is
    /// not required: policies are not, and what is at a device has its turn without.
    pub const fn is_heeded(&self) -> bool {
        !self.is_policy && !self.at_device
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.is_policy {
            "the policy"
        } else {
            "a rule"
        };
        write!(f, "{what} of chain {}", self.chain)
    }
}

/// How a walk through a chain can end. Where it is not known of each rule whether it is about the
/// packet, there are several ways, and only what all of them have in common is certain.
type Ends = BTreeSet<End>;

/// One way.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    /// No more rules of this base chain are asked.
    Accepted,
    Dropped,
    Renamed,
    /// The chain that called goes on.
    Returned,
    /// A chain that was called has returned: the next rule is asked.
    GoesOn,
    /// Nobody can tell.
    Unknown,
}

impl Ruleset {
    /// The fate of a packet in all base chains of a hook.
    pub fn fate(&self, hook: Hook, packet: &Packet<'_>) -> Fate {
        let mut fate = Fate::default();
        for (key, chain, base) in self.at(hook, packet.destination.is_ipv6()) {
            if !is_asked(base, packet) {
                continue;
            }
            let walk = Walk {
                ruleset: self,
                packet,
            };
            let ends = walk.through(key, chain, 0);
            let place = |is_policy| Place {
                chain: format!("{} {} {}", key.family, key.table, key.name),
                is_policy,
                at_device: matches!(hook, Hook::Ingress | Hook::Egress),
            };
            let drops = |end: &End| match end {
                End::Dropped => true,
                End::Returned => base.drops,
                _ => false,
            };
            if ends.iter().all(drops) {
                fate.dropped = Some(place(ends.contains(&End::Returned)));
                return fate;
            }
            if ends.contains(&End::Dropped) {
                fate.in_danger.push(place(false));
            } else if base.drops && ends.contains(&End::Returned) {
                fate.in_doubt.push(place(true));
            }
            if base.is_nat && ends == Ends::from([End::Renamed]) {
                fate.renamed = Some(place(false));
            }
        }
        fate
    }
}

impl Ruleset {
    /// Where a packet certainly ends that passes these hooks one after the other. Once it gets another
    /// address, the rest is not known.
    pub fn end(&self, hooks: &[Hook], packet: &Packet<'_>) -> Option<Place> {
        for &hook in hooks {
            let fate = self.fate(hook, packet);
            if fate.renamed.is_some() {
                return None;
            }
            if fate.dropped.is_some() {
                return fate.dropped;
            }
        }
        None
    }
}

fn is_asked(base: &Base, packet: &Packet<'_>) -> bool {
    let device = match base.hook {
        Hook::Ingress => packet.input,
        Hook::Egress => packet.output,
        _ => return true,
    };
    base.devices
        .iter()
        .any(|name| Some(name.as_str()) == device)
}

/// Whether a match of iptables asks for a header that no plain packet has.
pub(super) fn is_beside_plain(xt: &Value) -> bool {
    const HEADERS: [&str; 5] = ["ah", "dst", "frag", "hbh", "rt"];
    let name = xt["name"].as_str();
    xt["type"] == "match" && name.is_some_and(|name| HEADERS.contains(&name))
}

/// Whether a rule goes on behind a statement only for some of the packets: by how many came before,
/// altogether or of those that a set or a meter tells apart.
pub(super) fn counts(kind: &str) -> bool {
    const COUNTING: [&str; 7] = [
        "limit",
        "quota",
        "connlimit",
        "ct count",
        "set",
        "map",
        "meter",
    ];
    COUNTING.contains(&kind)
}

/// Whether a statement gives a packet another address.
pub(super) fn translates(kind: &str) -> bool {
    matches!(kind, "masquerade" | "snat" | "dnat" | "redirect")
}

/// Whether a translation finds something for the packet where it looks up what to translate to.
pub(super) fn is_mapped(
    body: &Value,
    packet: &Packet<'_>,
    ruleset: &Ruleset,
    chain: &Key,
) -> Truth {
    let Some(map) = body["addr"].get("map") else {
        return Truth::Yes;
    };
    // What is counted or drawn by lot always has an entry.
    if ["numgen", "jhash", "symhash"]
        .iter()
        .any(|kind| map["key"].get(kind).is_some())
    {
        return Truth::Yes;
    }
    let Some(entries) = ruleset.entries(map, chain) else {
        return Truth::Maybe;
    };
    let keys = entries.into_iter().map(|(entry, _)| {
        let entry = entry.get("elem").map_or(entry, |element| &element["val"]);
        has_key(&map["key"], entry, packet, ruleset, chain)
    });
    keys.fold(Truth::No, Truth::or)
}

struct Walk<'a> {
    ruleset: &'a Ruleset,
    packet: &'a Packet<'a>,
}

impl Walk<'_> {
    fn through(&self, key: &Key, chain: &Chain, depth: usize) -> Ends {
        let mut ends = Ends::new();
        for rule in &chain.rules {
            let (truth, mut led) = self.rule(rule, key, depth);
            let goes_on = led.remove(&End::GoesOn);
            ends.extend(led);
            if truth == Truth::Yes && !goes_on {
                return ends;
            }
        }
        ends.insert(End::Returned);
        ends
    }

    /// Whether a rule is about the packet, and where that can lead.
    fn rule(&self, statements: &[Value], key: &Key, depth: usize) -> (Truth, Ends) {
        let mut truth = Truth::Yes;
        for statement in statements {
            let Some((kind, body)) = statement.as_object().and_then(|one| one.iter().next()) else {
                continue;
            };
            match kind.as_str() {
                "match" => truth = truth.and(is_true(body, self.packet, self.ruleset, key)),
                "xt" if is_beside_plain(body) => truth = Truth::No,
                // Those that decide are said as nftables would.
                "xt" if body["type"] == "target" => {}
                "xt" => truth = truth.and(Truth::Maybe),
                kind if counts(kind) => truth = truth.and(Truth::Maybe),
                _ => {}
            }
            if truth == Truth::No {
                break;
            }
            if let Some(mut ends) = self.verdict(kind, body, key, depth) {
                // The called chain had nothing to say.
                if matches!(kind.as_str(), "jump" | "vmap") && ends.remove(&End::Returned) {
                    ends.insert(End::GoesOn);
                }
                return (truth, ends);
            }
        }
        (truth, Ends::from([End::GoesOn]))
    }

    fn verdict(&self, kind: &str, body: &Value, key: &Key, depth: usize) -> Option<Ends> {
        let end = match kind {
            "accept" => End::Accepted,
            "drop" | "reject" => End::Dropped,
            "return" => End::Returned,
            kind if translates(kind) => match is_mapped(body, self.packet, self.ruleset, key) {
                Truth::Yes => End::Renamed,
                Truth::Maybe => return Some(Ends::from([End::Renamed, End::GoesOn])),
                Truth::No => return None,
            },
            "queue" | "tproxy" | "synproxy" => End::Unknown,
            "jump" | "goto" => {
                let called = Key {
                    name: body["target"].as_str()?.to_owned(),
                    ..key.clone()
                };
                let chain = self.ruleset.chains.get(&called);
                match chain.filter(|_| depth < DEEPEST) {
                    Some(chain) => return Some(self.through(&called, chain, depth + 1)),
                    None => End::Unknown,
                }
            }
            "vmap" => return self.mapped(body, key, depth),
            _ => return None,
        };
        Some(Ends::from([end]))
    }

    /// The verdict of the entry that the packet has the key of.
    fn mapped(&self, body: &Value, key: &Key, depth: usize) -> Option<Ends> {
        let entries = match &body["data"] {
            Value::String(name) => {
                let map = Key {
                    name: name.trim_start_matches('@').to_owned(),
                    ..key.clone()
                };
                self.ruleset.sets.get(&map)
            }
            data => data["set"].as_array(),
        };
        let Some(entries) = entries else {
            return Some(Ends::from([End::Unknown]));
        };
        for entry in entries {
            match has_key(&body["key"], &entry[0], self.packet, self.ruleset, key) {
                Truth::Yes => {
                    let verdict = entry[1].as_object().and_then(|one| one.iter().next());
                    let (kind, body) = verdict?;
                    return self.verdict(kind, body, key, depth);
                }
                Truth::Maybe => return Some(Ends::from([End::Unknown])),
                Truth::No => {}
            }
        }
        None
    }
}
