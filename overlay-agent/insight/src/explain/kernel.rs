//! What the kernel does with a packet that a program leaves to it, as far as the agent knows
//! the kernel's tables, which it has filled, and can ask for its routes.

use std::net::IpAddr;

use overlay_common::reasons::PassReason;
use overlay_control::explain::Header;
use overlay_core::{model::IfName, objects::Hook, surroundings::NextHop};

use super::{
    case::{Case, Local},
    headers, ours, underlay,
};

/// A packet that was left.
pub(super) struct Left<'a> {
    pub(super) hook: Hook,
    pub(super) reason: Option<PassReason>,
    pub(super) frame: &'a [u8],
}

/// The kernel's decisions in sentences, and whether the packet arrives.
pub(super) type Told = (Vec<String>, bool);

fn told(sentence: impl Into<String>, delivers: bool) -> Told {
    (vec![sentence.into()], delivers)
}

/// Says what the kernel does.
pub(super) async fn takes_over(case: &Case, left: &Left<'_>) -> Told {
    let headers = headers::with_ports(left.frame, &[case.port()]);
    match left.hook {
        Hook::FromEndpoint => from_endpoint(case, left.reason, &headers).await,
        Hook::FromHost => from_host(case, left.reason, &headers),
        _ => from_underlay(case, left.reason, &headers).await,
    }
}

async fn from_endpoint(case: &Case, reason: Option<PassReason>, headers: &[Header]) -> Told {
    let Some((_, destination)) = addresses(headers) else {
        return not_ip(case, headers);
    };
    let gateway = gateway_beside(case, headers);
    match reason {
        Some(PassReason::NotUnicast) => told(
            "the bridge floods it to the other endpoints of this node; it does not leave the node",
            true,
        ),
        Some(PassReason::TtlExpired) => told(
            format!(
                "the node, a router with address {gateway}, drops it and answers with ICMP time exceeded"
            ),
            false,
        ),
        Some(PassReason::TooBig) => {
            let v4 = headers.iter().any(|header| header.name == "IPv4");
            let may_not = headers
                .iter()
                .any(|header| header.field("flags") == Some("DF"));
            if v4 && !may_not {
                let (mut sentences, delivers) = routed(case, headers, destination).await;
                sentences.insert(0, "the node cuts it into fragments".to_owned());
                return (sentences, delivers);
            }
            let mtu = mtu(case, headers);
            let answer = if v4 {
                "fragmentation needed"
            } else {
                "packet too big"
            };
            told(
                format!("the node, {gateway}, drops it and answers with ICMP {answer}{mtu}"),
                false,
            )
        }
        Some(PassReason::Malformed) => told("the kernel finds it malformed and drops it", false),
        _ => routed(case, headers, destination).await,
    }
}

/// ARP, or what nobody here speaks.
fn not_ip(case: &Case, headers: &[Header]) -> Told {
    let arp = headers.iter().find(|header| header.name == "ARP");
    let target = arp.and_then(|arp| arp.field("target")?.parse().ok());
    let Some(target): Option<IpAddr> = target else {
        return told("the bridge forwards it by its MAC, within this node", true);
    };
    for local in &case.networks {
        if local.gateway == target {
            let bridge = shown(local.bridge);
            return told(
                format!("{target} is the bridge {bridge} itself, which answers"),
                true,
            );
        }
        if let Some((_, endpoint)) = local.endpoints.iter().find(|(it, _)| *it == target) {
            let sentence =
                format!("the bridge floods it to its ports, and endpoint {endpoint} answers");
            return told(sentence, true);
        }
    }
    told(
        format!("the bridge floods it to its ports, and nobody has {target}: no answer"),
        false,
    )
}

/// By the node's routes, what a device of a network has brought.
async fn routed(case: &Case, headers: &[Header], destination: IpAddr) -> Told {
    let way = match case.netlink.route_to(destination).await {
        Ok(way) => way,
        Err(error) => return told(error.to_string(), false),
    };
    let Some(way) = way else {
        return told(
            format!(
                "no route leads to {destination}: the node answers with ICMP destination unreachable"
            ),
            false,
        );
    };
    if let Some(dropped) = ours::speaks_to_tunnel(case, headers, destination, way.local) {
        return dropped;
    }
    if way.local {
        return told(
            format!("{destination} is the node's own address: its stack takes it"),
            true,
        );
    }
    let device = case.names.device(way.oif);
    let here = case
        .networks
        .iter()
        .find(|local| local.bridge == device && device.is_some());
    if let Some(local) = here {
        return bridged(local, destination);
    }
    if let Some(device) = device.filter(|device| is_tunnel(case, *device)) {
        return tunnelled(case, device, &way, destination).await;
    }
    let source = addresses(headers).map(|(source, _)| source);
    ours::leaves(case, &way, (source, destination)).await
}

fn bridged(local: &Local, destination: IpAddr) -> Told {
    let bridge = shown(local.bridge);
    match local.endpoints.iter().find(|(it, _)| *it == destination) {
        Some((_, endpoint)) => told(
            format!("the node routes it by its bridge {bridge} to endpoint {endpoint}"),
            true,
        ),
        None => told(
            format!(
                "the node looks for {destination} on its bridge {bridge}, where nobody has it, and answers with ICMP host unreachable"
            ),
            false,
        ),
    }
}

/// The three tables of the slow path, one after the other.
async fn tunnelled(case: &Case, device: IfName, way: &NextHop, destination: IpAddr) -> Told {
    let next = way.gateway.unwrap_or(destination);
    let mut sentences = vec![format!("route: {destination} via {next} dev {device}")];
    let Some(mac) = case.peers.neighbours.get(&(device, next)) else {
        sentences.push(format!(
            "neighbour: {next} has none on {device}: it is not sent"
        ));
        return (sentences, false);
    };
    sentences.push(format!("neighbour: {next} lladdr {mac} dev {device}"));
    let Some(outer) = case.peers.fdb.get(&(device, *mac)) else {
        sentences.push(format!(
            "forwarding entry: {mac} has none on {device}: it is not sent"
        ));
        return (sentences, false);
    };
    let vtep = outer.vtep;
    sentences.push(format!(
        "forwarding entry: {mac} dst {vtep}: the kernel's VXLAN device sends it there"
    ));
    if let Some(via) = outer.via {
        sentences.push(format!(
            "encryption: {via} sends it to the peer with that address"
        ));
    }
    let (sentence, delivers) = by_underlay(case, vtep).await;
    sentences.push(sentence);
    (sentences, delivers)
}

/// Whether what the VXLAN device sends leaves the node.
async fn by_underlay(case: &Case, vtep: IpAddr) -> (String, bool) {
    match underlay::by_routes(case, vtep).await {
        Ok(device) => (format!("underlay: {vtep} dev {device}"), true),
        Err(why) => (format!("underlay: {why}"), false),
    }
}

fn from_host(case: &Case, reason: Option<PassReason>, headers: &[Header]) -> Told {
    let device = "the kernel's VXLAN device";
    match reason {
        Some(PassReason::TooBig) => told(
            format!(
                "{device} sends it, and the underlay fragments it or answers that it is too big{}",
                mtu(case, headers)
            ),
            true,
        ),
        Some(PassReason::NoRoute) => told(
            format!("{device} looks for a forwarding entry of its MAC; without one it drops it"),
            false,
        ),
        Some(PassReason::Malformed) => told(format!("{device} drops it"), false),
        _ => told(format!("{device} sends it by its forwarding entries"), true),
    }
}

async fn from_underlay(case: &Case, reason: Option<PassReason>, headers: &[Header]) -> Told {
    let inside = headers.iter().skip_while(|header| header.name != "VXLAN");
    let inside: Vec<Header> = inside.cloned().collect();
    let destination = addresses(&inside).map(|(_, destination)| destination);
    let by_device = "the kernel's VXLAN device takes it out of the tunnel";
    match reason {
        Some(PassReason::NotOurs) => not_ours(case, headers),
        Some(PassReason::TtlExpired) => told(
            format!(
                "{by_device}, and the node answers with ICMP time exceeded, through the tunnel"
            ),
            false,
        ),
        Some(PassReason::TooBig) => told(
            format!(
                "{by_device}, and the node answers that it is too big{}",
                mtu(case, &inside)
            ),
            false,
        ),
        Some(PassReason::ForeignMac) => told(
            "the kernel's VXLAN device drops it: the inner frame is not addressed to its MAC",
            false,
        ),
        Some(PassReason::Malformed) => told("the kernel finds it malformed and drops it", false),
        _ => match destination {
            Some(destination) => {
                let (mut sentences, delivers) = inside_here(case, &inside, destination).await;
                sentences.insert(0, by_device.to_owned());
                (sentences, delivers)
            }
            None => told(format!("{by_device}, and the node's stack takes it"), true),
        },
    }
}

/// A packet that is not for a tunnel of this node, though it may look so.
fn not_ours(case: &Case, headers: &[Header]) -> Told {
    let vni = headers.iter().find(|header| header.name == "VXLAN");
    let vni: Option<u32> = vni.and_then(|header| header.field("vni")?.parse().ok());
    let outer = addresses(headers);
    let for_us = outer.is_some_and(|(_, destination)| case.vteps.contains(&destination));
    let known = |vni| case.networks.iter().any(|local| local.vni.get() == vni);
    match vni.filter(|&vni| for_us && !known(vni)) {
        Some(vni) => {
            let mut networks: Vec<String> = case
                .networks
                .iter()
                .map(|local| format!("{} has {}", local.network, local.vni))
                .collect();
            networks.dedup();
            told(
                format!(
                    "it is for VNI {vni}, which no network of this node has ({}): no VXLAN device takes it",
                    networks.join(", ")
                ),
                false,
            )
        }
        None => told(
            "it is not a packet for a tunnel of this node: its stack takes it, as whatever it is",
            false,
        ),
    }
}

async fn inside_here(case: &Case, inside: &[Header], destination: IpAddr) -> Told {
    let local = case
        .networks
        .iter()
        .find(|local| local.subnet.contains(&destination));
    let Some(local) = local else {
        return routed(case, inside, destination).await;
    };
    if local.gateway == destination {
        return told(format!("{destination} is the node's own address"), true);
    }
    match local.endpoints.iter().find(|(it, _)| *it == destination) {
        Some((_, endpoint)) => told(
            format!("the node routes it by its bridge to endpoint {endpoint}"),
            true,
        ),
        None => told(
            format!(
                "nobody in network {} has {destination} here: the node answers with ICMP host unreachable",
                local.network
            ),
            false,
        ),
    }
}

/// Source and destination of the first IP header.
pub(super) fn addresses(headers: &[Header]) -> Option<(IpAddr, IpAddr)> {
    let ip = headers
        .iter()
        .find(|header| matches!(&*header.name, "IPv4" | "IPv6"))?;
    let address = |name| ip.field(name)?.parse().ok();
    Some((address("source")?, address("destination")?))
}

/// The gateway of the sender's link.
fn gateway_beside(case: &Case, headers: &[Header]) -> String {
    let source = addresses(headers).map(|(source, _)| source);
    let local = case
        .networks
        .iter()
        .find(|local| source.is_some_and(|source| local.subnet.contains(&source)));
    local.map_or_else(
        || "its gateway".to_owned(),
        |local| local.gateway.to_string(),
    )
}

fn mtu(case: &Case, headers: &[Header]) -> String {
    let Some((source, destination)) = addresses(headers) else {
        return String::new();
    };
    let entries = &case.peers.entries.subnets;
    let path = entries
        .iter()
        .filter(|((_, subnet), _)| subnet.contains(&destination))
        .map(|(_, peer)| peer.mtu)
        .min();
    let own = case
        .networks
        .iter()
        .find(|local| local.subnet.contains(&source) || local.subnet.contains(&destination))
        .and_then(|local| local.mtu);
    path.or(own)
        .map(|mtu| format!(", MTU {mtu}"))
        .unwrap_or_default()
}

/// Where the forwarding entries lead what goes this way by a VXLAN device.
pub(super) fn vtep_of(
    case: &Case,
    device: IfName,
    way: &NextHop,
    destination: IpAddr,
) -> Option<IpAddr> {
    let next = way.gateway.unwrap_or(destination);
    let mac = case.peers.neighbours.get(&(device, next))?;
    Some(case.peers.fdb.get(&(device, *mac))?.vtep)
}

fn is_tunnel(case: &Case, device: IfName) -> bool {
    let mut neighbours = case.peers.neighbours.keys();
    neighbours.any(|(tunnel, _)| *tunnel == device)
}

fn shown(device: Option<IfName>) -> String {
    device.map_or_else(|| "a device".to_owned(), |device| device.to_string())
}
