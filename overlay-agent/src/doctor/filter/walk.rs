//! A packet's way through chains.

use std::fmt;

use serde_json::Value;

use super::{
    Packet,
    matching::{Truth, has_key, is_true},
    ruleset::{Base, Chain, Hook, Key, Ruleset},
};

/// Chains that call each other; the kernel allows 16.
const DEEPEST: usize = 16;

/// What becomes of a packet at a hook.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::doctor) struct Fate {
    /// Where it certainly ends.
    pub(in crate::doctor) dropped: Option<Place>,
    /// Where it certainly gets another address.
    pub(in crate::doctor) renamed: Option<Place>,
    /// Rules that drop some packets of its kind.
    pub(in crate::doctor) in_danger: Vec<Place>,
}

/// A rule, or a policy, of a base chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::doctor) struct Place {
    /// Family, table and name of the base chain.
    pub(in crate::doctor) chain: String,
    /// Whether it is the chain's policy; else it is a rule, there or in a chain that it calls.
    pub(in crate::doctor) is_policy: bool,
    /// Whether it is at `ingress` or `egress`.
    pub(in crate::doctor) at_device: bool,
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

/// How a walk through a chain ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// No more rules of this base chain are asked.
    Accepted,
    Dropped,
    Renamed,
    /// The chain that called goes on.
    Returned,
    /// Nobody can tell.
    Unknown,
}

impl Ruleset {
    /// What becomes of a packet in all base chains of a hook.
    pub(in crate::doctor) fn fate(&self, hook: Hook, packet: &Packet<'_>) -> Fate {
        let mut fate = Fate::default();
        for (key, chain, base) in self.at(hook, packet.destination.is_ipv6()) {
            if !is_asked(base, packet) {
                continue;
            }
            let mut walk = Walk {
                ruleset: self,
                packet,
                in_danger: false,
            };
            let end = walk.through(key, chain, 0);
            let place = |is_policy| Place {
                chain: format!("{} {} {}", key.family, key.table, key.name),
                is_policy,
                at_device: matches!(hook, Hook::Ingress | Hook::Egress),
            };
            if walk.in_danger {
                fate.in_danger.push(place(false));
            }
            match end {
                End::Dropped => {
                    fate.dropped = Some(place(false));
                    return fate;
                }
                End::Returned if base.drops => {
                    fate.dropped = Some(place(true));
                    return fate;
                }
                End::Renamed if base.is_nat => fate.renamed = Some(place(false)),
                _ => {}
            }
        }
        fate
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

struct Walk<'a> {
    ruleset: &'a Ruleset,
    packet: &'a Packet<'a>,
    in_danger: bool,
}

impl Walk<'_> {
    fn through(&mut self, key: &Key, chain: &Chain, depth: usize) -> End {
        let mut doubt = false;
        for rule in &chain.rules {
            match self.rule(rule, key, depth) {
                (Truth::Yes, Some(End::Unknown)) => return End::Unknown,
                // What comes later may not be asked any more.
                (Truth::Maybe, Some(End::Dropped)) => self.in_danger = true,
                (Truth::Maybe, Some(_)) => doubt = true,
                (Truth::Yes, Some(end)) if doubt => {
                    self.in_danger |= end == End::Dropped;
                    return End::Unknown;
                }
                (Truth::Yes, Some(End::Returned)) => break,
                (Truth::Yes, Some(end)) => return end,
                _ => {}
            }
        }
        if doubt { End::Unknown } else { End::Returned }
    }

    /// Whether a rule is about the packet, and where that leads.
    fn rule(&mut self, statements: &[Value], key: &Key, depth: usize) -> (Truth, Option<End>) {
        let mut truth = Truth::Yes;
        for statement in statements {
            let Some((kind, body)) = statement.as_object().and_then(|one| one.iter().next()) else {
                continue;
            };
            match kind.as_str() {
                "match" => truth = truth.and(is_true(body, self.packet, self.ruleset, key)),
                "limit" | "quota" | "xt" | "connlimit" | "ct count" => {
                    truth = truth.and(Truth::Maybe);
                }
                _ => {}
            }
            if truth == Truth::No {
                return (truth, None);
            }
            if let Some(end) = self.verdict(kind, body, key, depth) {
                return match end {
                    // The called chain had nothing to say.
                    End::Returned if matches!(kind.as_str(), "jump" | "vmap") => (truth, None),
                    end => (truth, Some(end)),
                };
            }
        }
        (truth, None)
    }

    fn verdict(&mut self, kind: &str, body: &Value, key: &Key, depth: usize) -> Option<End> {
        match kind {
            "accept" => Some(End::Accepted),
            "drop" | "reject" => Some(End::Dropped),
            "return" => Some(End::Returned),
            "masquerade" | "snat" | "dnat" | "redirect" => Some(End::Renamed),
            "queue" | "tproxy" => Some(End::Unknown),
            "jump" | "goto" => {
                let called = Key {
                    name: body["target"].as_str()?.to_owned(),
                    ..key.clone()
                };
                let chain = self.ruleset.chains.get(&called);
                match chain.filter(|_| depth < DEEPEST) {
                    Some(chain) => Some(self.through(&called, chain, depth + 1)),
                    None => Some(End::Unknown),
                }
            }
            "vmap" => self.mapped(body, key, depth),
            _ => None,
        }
    }

    /// The verdict of the entry that the packet has the key of.
    fn mapped(&mut self, body: &Value, key: &Key, depth: usize) -> Option<End> {
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
            return Some(End::Unknown);
        };
        for entry in entries {
            match has_key(&body["key"], &entry[0], self.packet, self.ruleset, key) {
                Truth::Yes => {
                    let verdict = entry[1].as_object().and_then(|one| one.iter().next());
                    let (kind, body) = verdict?;
                    return self.verdict(kind, body, key, depth);
                }
                Truth::Maybe => return Some(End::Unknown),
                Truth::No => {}
            }
        }
        None
    }
}
