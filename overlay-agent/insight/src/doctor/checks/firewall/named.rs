//! Rules that drop what some addresses of a network send or get, and are heeded.

use ipnet::IpNet;
use overlay_control::Finding;
use overlay_core::filter::{Hook, Packet, Place, Places, Ruleset};

use super::{super::Fault, super::Looked, super::command, Facts, NetworkFacts, through};

const DROPPED: Fault = Fault::note(
    "rule-drops-containers",
    "The rule has its turn: what it is about is left to the kernel, and lost there. If that is what it is \
     for, nothing is wrong.",
);

pub(in super::super) const CHECK: super::Check = DROPPED.if_seen(dropped);

fn dropped(facts: &Facts) -> Looked {
    let ruleset = facts.ruleset.as_ref().map_err(Clone::clone)?;
    let mut found: Vec<Finding> = Vec::new();
    for network in &facts.networks {
        let places = Places {
            cidrs: network.cidrs.clone(),
            subnets: network.subnets.clone(),
            ..Places::default()
        };
        for part in ruleset.hooked(&places).named.into_keys() {
            for (place, direction, what) in of_part(ruleset, network, part) {
                let what = format!("{place} drops {what} in network {}", network.name);
                if !found.iter().any(|known| known.what == what) {
                    let family = if part.addr().is_ipv4() { "ip" } else { "ip6" };
                    let rule = format!("{family} {direction} {part} accept");
                    let insert = format!("nft insert rule {} {rule}", place.chain);
                    let cure = command(
                        "if it is not meant, accept it there, and where these rules are written",
                        facts.commands.on_node(insert),
                    );
                    found.push(DROPPED.at(&place.chain, what, cure));
                }
            }
        }
    }
    Ok(found)
}

/// What certainly becomes of packets to and from a part of a network that others pass.
fn of_part(
    ruleset: &Ruleset,
    network: &NetworkFacts,
    part: IpNet,
) -> Vec<(Place, &'static str, String)> {
    let dropped = |packet: &Packet<'_>| ruleset.end(&Hook::ROUTED, packet);
    let is_here = network.subnets.iter().any(|subnet| subnet.contains(&part));
    let mut found = Vec::new();
    for packet in through(network) {
        if packet.source.is_ipv6() != part.addr().is_ipv6() || dropped(&packet).is_some() {
            continue;
        }
        let is_leaving = packet.input == Some(network.bridge.as_str());
        let (packet, direction, what) = if is_leaving == is_here {
            let from = Packet {
                source: part.addr(),
                ..packet
            };
            (from, "saddr", format!("what {part} sends"))
        } else {
            let to = Packet {
                destination: part.addr(),
                ..packet
            };
            (to, "daddr", format!("what is sent to {part}"))
        };
        found.extend(dropped(&packet).map(|place| (place, direction, what)));
    }
    found
}
