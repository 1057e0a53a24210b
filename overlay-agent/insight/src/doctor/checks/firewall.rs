//! Rules of others that eat the tunnel, that the fast path bypasses, or that change addresses.

mod named;

use overlay_control::{Cure, Finding};
use overlay_core::{
    filter::{Between, Connection, Following, Hook, Packet, Place, Ruleset},
    model::{Family, FastPath, IfName},
    trouble::ids,
};

use super::{Check, Fault, Looked, advice, command, list, writers};
use crate::doctor::facts::{Facts, NetworkFacts, PeerFacts};

const TUNNEL: Fault = Fault::problem(
    "firewall-drops-tunnel",
    "What the kernel receives or sends in the tunnel is lost: packets of the nodes themselves, \
     fragments, everything while the fast path is off.",
);
const HEEDED: &str = "The programs leave to the kernel what the rule is about, so all that containers exchange with these \
                      peers is lost.";
const FORWARD: Fault = Fault::warning(
    "forward-rules-bypassed",
    "What the programs carry does not pass the node's packet filter, what they leave to the \
     kernel does: the rules hold for some packets and not for others.",
);
const BLOCKED: Fault = Fault::problem(
    "firewall-drops-forwarded",
    "The network is left to the kernel, and its packet filter drops what containers and peers \
     exchange.",
);
const NAT: Fault = Fault::warning(
    "nat-in-network",
    "Where the kernel carries a packet, its sender is hidden, and peers drop it as one that is not \
     behind this node.",
);
const FOLLOWED: Fault = Fault::note(
    "connections-followed",
    "The programs pass by connection tracking, and these rules need it to see all of a connection.",
);
const LEGACY: Fault = Fault::note(
    "legacy-iptables",
    "What these rules do to the tunnel and its packets, nobody here can tell.",
);

pub(super) const CHECKS: [Check; 7] = [
    TUNNEL.if_seen(tunnel),
    FORWARD.if_seen(forward),
    BLOCKED.if_seen(blocked),
    named::CHECK,
    NAT.if_seen(nat),
    FOLLOWED.if_seen(followed),
    LEGACY.always(legacy),
];

/// A UDP port that nobody lets pass by name: `discard`.
const ANY_PORT: u16 = 9;
/// How what arrives is told from what leaves.
const FROM: &str = "from";

fn tunnel(facts: &Facts) -> Looked {
    let ruleset = facts.ruleset.as_ref().map_err(Clone::clone)?;
    let mut found: Vec<Finding> = Vec::new();
    for peer in &facts.peers {
        for (place, direction) in tunnel_of(facts, ruleset, peer) {
            let what = format!(
                "{place} drops UDP port {} {direction} {}",
                peer.port, peer.vtep
            );
            // Nearly always the same rule for all peers.
            let known = found.iter().any(|known| known.object == place.chain);
            if !known {
                let own = peer.device.and_then(|device| {
                    let arriving = direction == FROM;
                    writers::let_tunnel_pass(facts, &place, device, peer.port, arriving)
                });
                let rule = format!("udp dport {} accept", peer.port);
                let cure = own.unwrap_or_else(|| accept(facts, &place, &rule));
                let mut finding = TUNNEL.at(&place.chain, what, cure);
                if place.is_heeded() && leaves_to_rules(facts, peer) {
                    HEEDED.clone_into(&mut finding.why);
                }
                found.push(finding);
            }
        }
    }
    Ok(found)
}

/// Whether the programs leave to the kernel what rules are about.
fn leaves_to_rules(facts: &Facts, peer: &PeerFacts) -> bool {
    let mut networks = facts.networks.iter();
    networks.any(|network| network.name == peer.network && network.fastpath == FastPath::Auto)
}

/// Whether this node's own filter drops the tunnel to a peer.
pub(super) fn is_eaten(facts: &Facts, peer: &PeerFacts) -> bool {
    let ruleset = facts.ruleset.as_ref();
    ruleset.is_ok_and(|ruleset| !tunnel_of(facts, ruleset, peer).is_empty())
}

fn tunnel_of(facts: &Facts, ruleset: &Ruleset, peer: &PeerFacts) -> Vec<(Place, &'static str)> {
    let family = Family::of(peer.vtep);
    let own = facts.vteps.iter().find(|vtep| Family::of(**vtep) == family);
    let (Some(&own), Some(device)) = (own, peer.device) else {
        return Vec::new();
    };
    let arriving = Packet {
        input: Some(device.as_str()),
        output: None,
        source: peer.vtep,
        destination: own,
        udp_port: Some(peer.port),
        connection: Connection::New,
    };
    let leaving = Packet {
        input: None,
        output: Some(device.as_str()),
        source: own,
        destination: peer.vtep,
        udp_port: Some(peer.port),
        connection: Connection::New,
    };
    let first = |hooks: [Hook; 3], packet: &Packet<'_>| {
        let mut fates = hooks.into_iter().map(|hook| ruleset.fate(hook, packet));
        fates.find_map(|fate| fate.dropped)
    };
    let arriving = first(Hook::ARRIVES, &arriving).map(|place| (place, FROM));
    let leaving = first(Hook::SENT, &leaving).map(|place| (place, "to"));
    arriving.into_iter().chain(leaving).collect()
}

/// A rule before all others of the chain.
fn accept(facts: &Facts, place: &Place, rule: &str) -> Cure {
    let insert = format!("nft insert rule {} {rule}", place.chain);
    command(
        "accept it there, and where these rules are written",
        facts.commands.on_node(insert),
    )
}

/// What containers and peers exchange, as the forward hook would see it; the last address of
/// the network stands for a peer's.
fn through(network: &NetworkFacts) -> Vec<Packet<'_>> {
    let mut packets = Vec::new();
    for (subnet, cidr) in network.subnets.iter().zip(&network.cidrs) {
        let (here, there) = (subnet.network(), cidr.broadcast());
        for tunnel in &network.tunnels {
            let bridge = network.bridge.as_str();
            packets.push(Packet {
                input: Some(bridge),
                output: Some(tunnel.as_str()),
                source: here,
                destination: there,
                udp_port: None,
                connection: Connection::New,
            });
            packets.push(Packet {
                input: Some(tunnel.as_str()),
                output: Some(bridge),
                source: there,
                destination: here,
                udp_port: None,
                connection: Connection::New,
            });
        }
    }
    packets
}

fn is_fast(facts: &Facts, network: &NetworkFacts) -> bool {
    could_be_fast(facts, network) && !is_followed(facts, network) && !is_heeded(facts, network)
}

/// Whether the programs leave a network to the kernel because rules are meant for it.
fn is_heeded(facts: &Facts, network: &NetworkFacts) -> bool {
    let ruleset = facts.ruleset.as_ref();
    network.fastpath == FastPath::Auto
        && ruleset.is_ok_and(|ruleset| {
            let meant = between(network, |between| ruleset.meant_within(between));
            !meant.peers.is_empty()
        })
}

fn could_be_fast(facts: &Facts, network: &NetworkFacts) -> bool {
    network.fastpath != FastPath::Off
        && !facts.agent.fastpath_off
        && !facts.agent.says(ids::FASTPATH_UNAVAILABLE)
}

fn is_followed(facts: &Facts, network: &NetworkFacts) -> bool {
    following(facts, network).is_some()
}

/// How rules follow all connections of a network, if they do: then the programs leave it to the
/// kernel.
fn following(facts: &Facts, network: &NetworkFacts) -> Option<Following> {
    let ruleset = facts.ruleset.as_ref().ok()?;
    let following = between(network, |between| ruleset.follows(between));
    following.filter(|following| following.whole)
}

/// Asks something of where a network's packets are forwarded.
fn between<T>(network: &NetworkFacts, ask: impl FnOnce(&Between<'_>) -> T) -> T {
    let cidrs = network.cidrs.iter().copied();
    let ranges: Vec<_> = cidrs.zip(network.subnets.iter().copied()).collect();
    let tunnels: Vec<&str> = network.tunnels.iter().map(IfName::as_str).collect();
    ask(&Between {
        bridge: network.bridge.as_str(),
        tunnels: &tunnels,
        ranges: &ranges,
    })
}

fn followed(facts: &Facts) -> Looked {
    facts.ruleset.as_ref().map_err(Clone::clone)?;
    let could_be_fast = facts
        .networks
        .iter()
        .filter(|network| could_be_fast(facts, network));
    let found = could_be_fast.filter_map(|network| {
        let following = following(facts, network)?;
        let text = "that is as right as it is slower; where the rules need not know who has begun, \
                    accept the network's packets before them, and where they are written";
        let cure = exempt(facts, network, &following.place, text.to_owned());
        Some(FOLLOWED.at(&network.name, following.text(), cure))
    });
    Ok(found.collect())
}

fn forward(facts: &Facts) -> Looked {
    let ruleset = facts.ruleset.as_ref().map_err(Clone::clone)?;
    let mut found: Vec<Finding> = Vec::new();
    for network in facts
        .networks
        .iter()
        .filter(|network| is_fast(facts, network))
    {
        for packet in through(network) {
            let fate = ruleset.fate(Hook::Forward, &packet);
            let certain = fate.dropped.iter().map(|place| (place, "drops"));
            let possible = fate.in_danger.iter().map(|place| (place, "drops some of"));
            for (place, does) in certain.chain(possible) {
                if found.iter().any(|known| known.object == place.chain) {
                    continue;
                }
                let what = format!(
                    "{place} {does} what containers of network {} and its peers exchange",
                    network.name
                );
                let text = format!(
                    "set fastpath = \"off\" for network {} if they must hold for all; if for none, \
                     accept its packets there",
                    network.name
                );
                found.push(FORWARD.at(&place.chain, what, exempt(facts, network, place, text)));
            }
        }
    }
    Ok(found)
}

fn blocked(facts: &Facts) -> Looked {
    let ruleset = facts.ruleset.as_ref().map_err(Clone::clone)?;
    let mut found: Vec<Finding> = Vec::new();
    for network in facts
        .networks
        .iter()
        .filter(|network| !is_fast(facts, network))
    {
        for packet in through(network) {
            // Not ICMP, which most let through.
            let packet = Packet {
                udp_port: Some(ANY_PORT),
                connection: Connection::New,
                ..packet
            };
            let Some(place) = ruleset.fate(Hook::Forward, &packet).dropped else {
                continue;
            };
            if !found.iter().any(|known| known.object == place.chain) {
                let what = format!(
                    "{place} drops what containers of network {} and its peers exchange",
                    network.name
                );
                let own = writers::let_network_pass(facts, &place, network);
                let cure = own.unwrap_or_else(|| {
                    let text = "accept its packets there, and where these rules are written";
                    exempt(facts, network, &place, text.to_owned())
                });
                found.push(BLOCKED.at(&place.chain, what, cure));
            }
        }
    }
    Ok(found)
}

/// Accepts what is forwarded between the network's own devices.
fn exempt(facts: &Facts, network: &NetworkFacts, place: &Place, text: String) -> Cure {
    let bridge = network.bridge;
    let pairs = network
        .tunnels
        .iter()
        .flat_map(|&tunnel| [(bridge, tunnel), (tunnel, bridge)]);
    let rules = pairs.map(|(from, to)| {
        let insert = format!(
            "nft insert rule {} iifname {from} oifname {to} accept",
            place.chain
        );
        facts.commands.on_node(insert)
    });
    Cure {
        text,
        commands: rules.collect(),
    }
}

fn nat(facts: &Facts) -> Looked {
    let ruleset = facts.ruleset.as_ref().map_err(Clone::clone)?;
    let mut found: Vec<Finding> = Vec::new();
    for network in &facts.networks {
        for packet in through(network) {
            let is_leaving = packet.input == Some(network.bridge.as_str());
            let fate = ruleset.fate(Hook::Postrouting, &packet);
            let Some(place) = fate.renamed.filter(|_| is_leaving) else {
                continue;
            };
            if found.iter().any(|known| known.object == place.chain) {
                continue;
            }
            let what = format!(
                "{place} changes the source of what containers of network {} send to peers",
                network.name
            );
            let cidr = network
                .cidrs
                .iter()
                .find(|cidr| cidr.contains(&packet.source));
            let cure = match cidr {
                Some(cidr) => {
                    let family = if cidr.addr().is_ipv4() { "ip" } else { "ip6" };
                    let rule = format!("{family} saddr {cidr} {family} daddr {cidr} accept");
                    accept(facts, &place, &rule)
                }
                None => advice("leave the network out of that rule"),
            };
            found.push(NAT.at(&place.chain, what, cure));
        }
    }
    Ok(found)
}

fn legacy(facts: &Facts) -> Vec<Finding> {
    if facts.legacy_tables.is_empty() {
        return Vec::new();
    }
    let what = format!(
        "there are tables of iptables-legacy, which nftables does not show: {}",
        list(&facts.legacy_tables)
    );
    let cure =
        advice("see \"iptables-legacy-save\", and whether iptables-nft can take their place");
    vec![LEGACY.at("iptables", what, cure)]
}

#[cfg(test)]
mod tests;
