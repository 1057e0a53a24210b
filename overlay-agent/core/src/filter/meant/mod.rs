//! Rules that are meant for packets of ours: on the kernel's way they would certainly or possibly be
//! dropped, marked or handed to somebody, by what tells them from others.
//!
//! That is an address, a port, a protocol, a rate, a device of a network. What refuses all that
//! nobody has accepted is not meant for anybody: every firewall has such a policy, and `doctor` tells
//! what it does to the network.

mod matched;
mod parts;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    rc::Rc,
};

use ipnet::IpNet;
use serde_json::Value;

use super::{
    Between, Connection, Packet,
    hooked::entries_have_parts,
    matching::Truth,
    ruleset::{Chain, Hook, Key, Ruleset},
    walk::{DEEPEST, counts, is_mapped, translates},
};

/// Where a tunnel's packets pass, and between whom.
#[derive(Clone, Copy, Debug)]
pub struct Outside<'a> {
    /// The device of the underlay.
    pub device: &'a str,
    /// The VTEP of this node.
    pub own: IpAddr,
    /// Those of the peers that are reached from there.
    pub peers: &'a BTreeSet<IpAddr>,
    /// The tunnel's UDP port.
    pub port: u16,
}

/// Rules that are meant for a tunnel's packets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MeantOutside {
    /// The peers, each with the chain that has the rule.
    pub peers: BTreeMap<IpAddr, String>,
    /// Whether rules tell peers apart: another peer can be another case.
    pub tells_apart: bool,
}

/// Some of the peers; often all, so that it is shared.
type Who = Rc<BTreeSet<IpAddr>>;

/// Rules that are meant for a network, by their chains.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MeantWithin {
    /// For what its containers and peers exchange.
    pub peers: BTreeSet<String>,
    /// For what containers of this node exchange.
    pub neighbours: BTreeSet<String>,
    /// Parts of it whose packets get other addresses.
    pub parts: BTreeMap<IpNet, String>,
}

impl Ruleset {
    /// The chains with rules that are meant for what is exchanged in a network. Those that drop or
    /// mark parts of it are [`named`](super::Hooked::named).
    pub fn meant_within(&self, between: &Between<'_>) -> MeantWithin {
        let mut meant = MeantWithin {
            parts: self.translated_parts(between),
            ..MeantWithin::default()
        };
        for (cidr, subnet) in between.ranges {
            let (here, there) = (subnet.network(), cidr.broadcast());
            for tunnel in between.tunnels {
                for way in [
                    (between.bridge, *tunnel, here, there),
                    (*tunnel, between.bridge, there, here),
                ] {
                    self.meant_on(way, between, &mut meant.peers);
                }
            }
            let way = (between.bridge, between.bridge, here, subnet.broadcast());
            self.meant_on(way, between, &mut meant.neighbours);
        }
        meant
    }

    fn meant_on(&self, way: Way<'_>, between: &Between<'_>, chains: &mut BTreeSet<String>) {
        let anybody = Rc::new(BTreeSet::from([way.3]));
        for (hook, packet) in packets(way) {
            // Whom a rule names by nothing gets another address, too, where that is certain.
            let certainly = self.fate(hook, &packet).renamed;
            chains.extend(certainly.map(|place| format!("nft chain {}", place.chain)));
            let mut walk = Walk::new(self, packet, About::Within(between));
            walk.at(hook, &anybody);
            chains.extend(walk.found.into_values());
        }
    }

    /// Whose packets rules about the tunnel's own addresses and ports are meant for.
    pub fn meant_outside(&self, outside: &Outside<'_>) -> MeantOutside {
        let mut meant = MeantOutside::default();
        let of_family = outside.peers.iter().copied();
        let who: BTreeSet<IpAddr> = of_family
            .filter(|peer| peer.is_ipv4() == outside.own.is_ipv4())
            .collect();
        let Some(&any) = who.first() else {
            return meant;
        };
        let who = Rc::new(who);
        let device = Some(outside.device);
        for (hook, is_arriving) in [
            (Hook::Prerouting, true),
            (Hook::Input, true),
            (Hook::Output, false),
            (Hook::Postrouting, false),
        ] {
            let (source, destination) = if is_arriving {
                (any, outside.own)
            } else {
                (outside.own, any)
            };
            let packet = Packet {
                input: device.filter(|_| is_arriving),
                output: device.filter(|_| !is_arriving),
                source,
                destination,
                udp_port: Some(outside.port),
                connection: Connection::New,
            };
            let field = if is_arriving { "saddr" } else { "daddr" };
            let mut walk = Walk::new(self, packet, About::Outside(field));
            walk.at(hook, &who);
            meant.peers.extend(walk.found);
            meant.tells_apart |= walk.tells_apart;
        }
        meant
    }
}

#[derive(Clone, Copy)]
enum About<'a> {
    /// Packets inside of tunnels.
    Within(&'a Between<'a>),
    /// The same, between certain addresses.
    Part,
    /// Tunnels' packets, and the field that has the peer's address.
    Outside(&'static str),
}

/// Devices and addresses, each from and to.
type Way<'a> = (&'a str, &'a str, IpAddr, IpAddr);

/// A packet that is forwarded on a path, as the hooks see it one after the other.
fn packets((input, output, source, destination): Way<'_>) -> [(Hook, Packet<'_>); 3] {
    [
        (Hook::Prerouting, Some(input), None),
        (Hook::Forward, Some(input), Some(output)),
        (Hook::Postrouting, None, Some(output)),
    ]
    .map(|(hook, input, output)| {
        let packet = Packet {
            input,
            output,
            source,
            destination,
            udp_port: None,
            connection: Connection::New,
        };
        (hook, packet)
    })
}

struct Walk<'a> {
    ruleset: &'a Ruleset,
    packet: Packet<'a>,
    about: About<'a>,
    /// The base chain that is asked,
    chain: String,
    /// and whether it translates addresses instead of judging packets.
    is_nat: bool,
    found: BTreeMap<IpAddr, String>,
    tells_apart: bool,
}

/// The packets that are left of those that came to a rule.
struct Left {
    goes_on: Who,
    /// They have left the chain, to the one that called it.
    returned: Who,
}

/// The state in a rule before its verdict.
struct Sofar {
    who: Who,
    /// Whether it is true of all of them.
    certain: bool,
    /// Whether something tells them from others.
    named: bool,
}

impl<'a> Walk<'a> {
    fn new(ruleset: &'a Ruleset, packet: Packet<'a>, about: About<'a>) -> Self {
        Self {
            ruleset,
            packet,
            about,
            chain: String::new(),
            is_nat: false,
            found: BTreeMap::new(),
            tells_apart: false,
        }
    }

    fn at(&mut self, hook: Hook, who: &Who) {
        for (key, chain, base) in self.ruleset.at(hook, self.packet.destination.is_ipv6()) {
            let is_asked = match self.about {
                About::Within(_) => true,
                // Addresses of tunnels are nobody's to translate.
                About::Outside(_) => !base.is_nat,
                About::Part => base.is_nat,
            };
            if !is_asked {
                continue;
            }
            self.chain = format!("nft chain {} {} {}", key.family, key.table, key.name);
            self.is_nat = base.is_nat;
            self.through(key, chain, who, false, 0);
        }
    }

    /// Those that come back to who called the chain.
    fn through(&mut self, key: &Key, chain: &Chain, who: &Who, named: bool, depth: usize) -> Who {
        let mut who = Rc::clone(who);
        let mut returned = Who::default();
        for rule in &chain.rules {
            let certain = !entries_have_parts(rule);
            for rule in self.ruleset.spelled(rule, key) {
                if who.is_empty() {
                    return returned;
                }
                let sofar = Sofar {
                    who: Rc::clone(&who),
                    certain,
                    named,
                };
                let left = self.rule(&rule, key, &who, sofar, depth);
                who = left.goes_on;
                returned = with(returned, &left.returned);
            }
        }
        with(returned, &who)
    }

    fn rule(&mut self, rule: &[Value], key: &Key, all: &Who, mut is: Sofar, depth: usize) -> Left {
        let unchanged = || Left {
            goes_on: Rc::clone(all),
            returned: Who::default(),
        };
        for statement in rule {
            let Some((kind, body)) = statement.as_object().and_then(|one| one.iter().next()) else {
                continue;
            };
            let is_still = match kind.as_str() {
                "match" => self.matched(body, key, &mut is),
                "xt" => self.by_iptables(body, &mut is),
                kind if counts(kind) => {
                    if self.ruleset.is_asked_for(&body[kind], key) {
                        self.note(&is);
                    }
                    (is.certain, is.named) = (false, true);
                    true
                }
                "vmap" => {
                    is.certain = false;
                    true
                }
                "mangle" => {
                    // A smaller segment size would be that of the way without the programs, too.
                    if body["key"].get("tcp option").is_none() {
                        self.note(&is);
                    }
                    true
                }
                // Whoever gets a copy is to get one of everything.
                "dup" | "fwd" => {
                    is.named = true;
                    self.note(&is);
                    true
                }
                _ => true,
            };
            if !is_still || is.who.is_empty() {
                return unchanged();
            }
            let gone = |is: &Sofar| {
                if is.certain {
                    without(all, &is.who)
                } else {
                    Rc::clone(all)
                }
            };
            let (goes_on, returned) = match kind.as_str() {
                kind if translates(kind) => {
                    match is_mapped(body, &self.packet, self.ruleset, key) {
                        Truth::Yes => {}
                        Truth::Maybe => is.certain = false,
                        Truth::No => return unchanged(),
                    }
                    self.note_translated(&is);
                    (gone(&is), Who::default())
                }
                "accept" => (gone(&is), Who::default()),
                "drop" | "reject" => {
                    self.note(&is);
                    (gone(&is), Who::default())
                }
                // Whoever is behind such a queue is to see everything that passes.
                "queue" | "tproxy" | "synproxy" => {
                    is.named = true;
                    self.note(&is);
                    (gone(&is), Who::default())
                }
                "return" => (gone(&is), Rc::clone(&is.who)),
                "jump" | "goto" => {
                    let back = self.called(body, key, &is, depth);
                    if kind == "goto" {
                        (gone(&is), back)
                    } else {
                        (with(gone(&is), &back), Who::default())
                    }
                }
                _ => continue,
            };
            return Left { goes_on, returned };
        }
        unchanged()
    }

    fn called(&mut self, body: &Value, key: &Key, is: &Sofar, depth: usize) -> Who {
        let called = Key {
            name: body["target"].as_str().unwrap_or_default().to_owned(),
            ..key.clone()
        };
        let ruleset = self.ruleset;
        match ruleset.chains.get(&called).filter(|_| depth < DEEPEST) {
            Some(chain) => self.through(&called, chain, &is.who, is.named, depth + 1),
            None => Rc::clone(&is.who),
        }
    }

    fn note(&mut self, is: &Sofar) {
        // Where only the first packets of connections come by, nothing else is done to them.
        if !self.is_nat {
            self.find(is);
        }
    }

    fn note_translated(&mut self, is: &Sofar) {
        if self.is_nat {
            self.find(is);
        }
    }

    fn find(&mut self, is: &Sofar) {
        if is.named || matches!(self.about, About::Part) {
            let rows = is.who.iter().map(|peer| (*peer, self.chain.clone()));
            self.found.extend(rows);
        }
    }
}

fn with(some: Who, more: &Who) -> Who {
    if some.is_empty() {
        return Rc::clone(more);
    }
    if more.is_empty() || Rc::ptr_eq(&some, more) {
        return some;
    }
    Rc::new(some.union(more).copied().collect())
}

fn without(all: &Who, some: &BTreeSet<IpAddr>) -> Who {
    if some.len() == all.len() {
        return Who::default();
    }
    if some.is_empty() {
        return Rc::clone(all);
    }
    Rc::new(all.difference(some).copied().collect())
}

#[cfg(test)]
mod tests;
