//! A ruleset: chains and sets, by table.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Place;

/// All tables of a node.
#[derive(Clone, Debug, Default)]
pub struct Ruleset {
    pub(super) chains: BTreeMap<Key, Chain>,
    /// Elements of sets and maps.
    pub(super) sets: BTreeMap<Key, Vec<Value>>,
}

/// A part of a table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The chain of this name.
    Chain(String),
    /// The set or map of this name.
    Set(String),
    /// All of it.
    All,
}

/// Family, table and name of a chain or a set.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) family: String,
    pub(super) table: String,
    pub(super) name: String,
}

impl Key {
    fn of(family: &str, table: &str, name: &str) -> Self {
        Self {
            family: family.to_owned(),
            table: table.to_owned(),
            name: name.to_owned(),
        }
    }
}

/// A chain with its rules.
#[derive(Clone, Debug, Default)]
pub(super) struct Chain {
    pub(super) base: Option<Base>,
    /// The statements of each rule.
    pub(super) rules: Vec<Vec<Value>>,
}

/// The hook and priority of a base chain.
#[derive(Clone, Debug)]
pub(super) struct Base {
    pub(super) hook: Hook,
    pub(super) priority: i64,
    /// Whether packets that no rule judges are dropped.
    pub(super) drops: bool,
    /// Whether it changes addresses instead of judging packets.
    pub(super) is_nat: bool,
    /// Of `ingress` and `egress`, the devices.
    pub(super) devices: Vec<String>,
}

/// Where chains see packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Of a device, before the protocol is known (`NF_NETDEV_INGRESS`).
    Ingress,
    /// Before the way is looked up (`NF_INET_PRE_ROUTING`).
    Prerouting,
    /// For this node (`NF_INET_LOCAL_IN`).
    Input,
    /// On their way through (`NF_INET_FORWARD`).
    Forward,
    /// From this node (`NF_INET_LOCAL_OUT`).
    Output,
    /// Once the way is known (`NF_INET_POST_ROUTING`).
    Postrouting,
    /// Of a device, on the way out (`NF_NETDEV_EGRESS`).
    Egress,
}

impl Hook {
    /// The hooks that routed packets pass, in this order.
    pub const ROUTED: [Self; 3] = [Self::Prerouting, Self::Forward, Self::Postrouting];
    /// The hooks of packets for the node itself.
    pub const TAKEN: [Self; 2] = [Self::Prerouting, Self::Input];
    /// The hooks of packets that arrive in a tunnel.
    pub const ARRIVES: [Self; 3] = [Self::Ingress, Self::Prerouting, Self::Input];
    /// The hooks of packets that are sent in a tunnel.
    pub const SENT: [Self; 3] = [Self::Output, Self::Postrouting, Self::Egress];
}

impl Ruleset {
    /// What a value may be: what is in sets, by name or as they stand; `None` where that is not
    /// known.
    pub(super) fn leaves<'a>(&'a self, value: &'a Value, chain: &Key) -> Option<Vec<&'a Value>> {
        let all = |values: &'a [Value]| {
            let leaves = values.iter().map(|one| self.leaves(one, chain));
            leaves
                .collect::<Option<Vec<_>>>()
                .map(|leaves| leaves.concat())
        };
        match value {
            Value::String(text) => match text.strip_prefix('@') {
                Some(name) => all(self.sets.get(&Key {
                    name: name.to_owned(),
                    ..chain.clone()
                })?),
                None => Some(vec![value]),
            },
            Value::Array(values) => all(values),
            Value::Object(object) => match (object.get("set"), object.get("elem")) {
                (Some(set), _) => all(set.as_array()?),
                (_, Some(element)) => self.leaves(&element["val"], chain),
                _ => Some(vec![value]),
            },
            _ => Some(vec![value]),
        }
    }

    /// Whether rules of a table look into a set or a map (`@name`) that others of it fill.
    pub(super) fn is_asked_for(&self, name: &Value, table: &Key) -> bool {
        fn looks(value: &Value, name: &Value) -> bool {
            match value {
                Value::Object(parts) => parts.iter().any(|(field, part)| {
                    matches!(field.as_str(), "right" | "data") && part == name || looks(part, name)
                }),
                Value::Array(parts) => parts.iter().any(|part| looks(part, name)),
                _ => false,
            }
        }
        let chains = self.chains.iter();
        let mut of_table =
            chains.filter(|(key, _)| key.family == table.family && key.table == table.table);
        name.is_string()
            && of_table.any(|(_, chain)| {
                let mut statements = chain.rules.iter().flatten();
                statements.any(|statement| looks(statement, name))
            })
    }

    /// Whether it has chains that see packets of single devices, or of ports of bridges.
    pub fn is_at_devices(&self) -> bool {
        let mut chains = self.chains.iter();
        chains.any(|(key, chain)| {
            chain.base.is_some() && matches!(key.family.as_str(), "netdev" | "bridge")
        })
    }

    /// From what `nft --json list ruleset` prints, without the tables that `is_ours`.
    pub fn read(listing: &Value, is_ours: impl Fn(&str, &str) -> bool) -> Self {
        let mut ruleset = Self::default();
        let objects = listing["nftables"].as_array().into_iter().flatten();
        for object in objects {
            let Some((kind, body)) = object.as_object().and_then(|object| object.iter().next())
            else {
                continue;
            };
            let named = |field: &str| body[field].as_str().unwrap_or_default().to_owned();
            let key = |name: &str| Key {
                family: named("family"),
                table: named("table"),
                name: named(name),
            };
            if is_ours(&named("family"), &named("table")) {
                continue;
            }
            match kind.as_str() {
                "chain" => ruleset.chains.entry(key("name")).or_default().base = Base::read(body),
                "rule" => {
                    let mut statements = body["expr"].as_array().cloned().unwrap_or_default();
                    statements.iter_mut().for_each(hide_inside);
                    let chain = ruleset.chains.entry(key("chain")).or_default();
                    chain.rules.push(statements);
                }
                "set" | "map" => {
                    let elements = body["elem"].as_array().cloned().unwrap_or_default();
                    ruleset.sets.insert(key("name"), elements);
                }
                _ => {}
            }
        }
        ruleset
    }

    /// Takes in what a part of it is now, as `nft --json list` prints it; nothing, if it has gone.
    pub fn replace(&mut self, family: &str, table: &str, part: &Part, listing: &Value) {
        let is_it = |key: &Key| {
            let name = match part {
                Part::Chain(name) | Part::Set(name) => Some(name),
                Part::All => None,
            };
            let is_named = name.is_none_or(|name| key.name == *name);
            key.family == family && key.table == table && is_named
        };
        let Self { chains, sets } = Self::read(listing, |_, _| false);
        if !matches!(part, Part::Set(_)) {
            self.chains.retain(|key, _| !is_it(key));
            let found = chains.into_iter();
            self.chains.extend(found.filter(|(key, _)| is_it(key)));
        }
        if !matches!(part, Part::Chain(_)) {
            self.sets.retain(|key, _| !is_it(key));
            self.sets
                .extend(sets.into_iter().filter(|(key, _)| is_it(key)));
        }
    }

    /// Whether packets come by themselves to the chain of this name, as far as it is known.
    pub fn is_base(&self, family: &str, table: &str, name: &str) -> bool {
        let chain = self.chains.get(&Key::of(family, table, name));
        chain.is_some_and(|chain| chain.base.is_some())
    }

    /// Whether the chain of this name, or one that it calls, drops or queues packets.
    pub fn refuses(&self, family: &str, table: &str, name: &str) -> bool {
        let is = |kind: &str| matches!(kind, "drop" | "reject" | "queue" | "synproxy" | "tproxy");
        let key = Key::of(family, table, name);
        let mut rules = self.chains.get(&key).into_iter().flat_map(|one| &one.rules);
        rules.any(|rule| self.any(rule, &key, 0, is))
    }

    /// Whether any of its chains translates addresses.
    pub fn translates(&self) -> bool {
        let mut bases = self.chains.values().filter_map(|chain| chain.base.as_ref());
        bases.any(|base| base.is_nat)
    }

    /// Whose program writes the rules of a base chain, where names that only it uses say so.
    pub fn writer_of(&self, place: &Place) -> Option<Writer> {
        let mut words = place.chain.split(' ');
        let (family, table) = (words.next()?, words.next()?);
        if table == "firewalld" {
            return Some(Writer::Firewalld);
        }
        let beside = |is: fn(&str) -> bool| {
            let mut chains = self.chains.keys();
            chains.any(|key| key.family == family && key.table == table && is(&key.name))
        };
        if beside(|name| name.starts_with("ufw-") || name.starts_with("ufw6-")) {
            Some(Writer::Ufw)
        } else {
            beside(|name| name == "DOCKER-USER").then_some(Writer::Docker)
        }
    }

    /// The base chains of a hook that see packets of a family, in their order.
    pub(super) fn at(&self, hook: Hook, ipv6: bool) -> Vec<(&Key, &Chain, &Base)> {
        let own = if ipv6 { "ip6" } else { "ip" };
        let mut chains: Vec<_> = self
            .chains
            .iter()
            .filter(|(key, _)| [own, "inet", "netdev"].contains(&key.family.as_str()))
            .filter_map(|(key, chain)| Some((key, chain, chain.base.as_ref()?)))
            .filter(|(_, _, base)| base.hook == hook)
            .collect();
        chains.sort_by_key(|(_, _, base)| base.priority);
        chains
    }
}

/// Hides what an expression looks at inside of a tunnel (`vxlan ip saddr`, nft from 1.0.8 on): it is not
/// the field of that name of the packet that is judged.
fn hide_inside(expression: &mut Value) {
    match expression {
        Value::Object(parts) => {
            for (kind, part) in parts {
                match part.get("tunnel") {
                    Some(tunnel) if kind == "payload" => *part = json!({ "tunnel": tunnel }),
                    _ => hide_inside(part),
                }
            }
        }
        Value::Array(parts) => parts.iter_mut().for_each(hide_inside),
        _ => {}
    }
}

/// A program that writes rules, and makes them anew when it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    /// It has a table of its own.
    Firewalld,
    /// It has chains of its own in the tables that iptables made.
    Ufw,
    /// The same, one of which is for others to fill.
    Docker,
}

impl Base {
    fn read(chain: &Value) -> Option<Self> {
        let hook = match chain["hook"].as_str()? {
            "ingress" => Hook::Ingress,
            "prerouting" => Hook::Prerouting,
            "input" => Hook::Input,
            "forward" => Hook::Forward,
            "output" => Hook::Output,
            "postrouting" => Hook::Postrouting,
            "egress" => Hook::Egress,
            _ => return None,
        };
        let devices = match &chain["dev"] {
            Value::String(device) => vec![device.clone()],
            Value::Array(devices) => devices
                .iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect(),
            _ => Vec::new(),
        };
        Some(Self {
            hook,
            priority: chain["prio"].as_i64().unwrap_or_default(),
            drops: chain["policy"].as_str() == Some("drop"),
            is_nat: chain["type"].as_str() == Some("nat"),
            devices,
        })
    }
}
