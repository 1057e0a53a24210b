//! A packet from an endpoint, or from the node itself, as its kernel sends it.

use std::net::IpAddr;

use overlay_control::explain::{Protocol, Question};
use overlay_core::{
    desired::{bridge_name, vxlan_name},
    model::{Endpoint, Family, IfName, Network, Range},
    objects::{Hook, LinkRef},
    surroundings::NextHop,
};

use super::{
    case::{Place, Refusal, Scene, Start},
    frames::{Frame, Macs, group_mac},
    names::device_of,
};

/// TTL with which Linux sends.
const TTL: u8 = 64;
/// Ports where none are given: a dynamic one, and that of `discard`.
const PORTS: (u16, u16) = (49152, 9);

pub(super) async fn start(known: &Scene<'_>, question: &Question) -> Result<Start, Refusal> {
    if is_node(known, &question.from) {
        return from_node(known, question).await;
    }
    from_endpoint(known, question)
}

/// Whether the node itself is meant. An endpoint may have the node's name, and none is called
/// `node`.
fn is_node(known: &Scene<'_>, name: &str) -> bool {
    let is_endpoint = |endpoint: &Endpoint| endpoint.name.as_str() == name;
    let is_free = || !known.model.endpoints.iter().any(is_endpoint);
    name == Endpoint::NODE || (name == known.model.node.name.as_str() && is_free())
}

fn from_endpoint(known: &Scene<'_>, question: &Question) -> Result<Start, Refusal> {
    let endpoint = sender(known, &question.from)?;
    let network = known.model.network(&endpoint.network);
    let network = network.ok_or_else(|| format!("endpoint {} has no network", endpoint.name))?;
    let destination = destination(known, network, question)?;
    let family = Family::of(destination);
    let own = address_of(known, endpoint, family);
    let source = question.source.or(own).ok_or_else(|| {
        format!(
            "send from endpoint {} to {destination}: it has no address of that family",
            endpoint.name
        )
    })?;
    let Some((device, ifindex)) = device_of(known, endpoint) else {
        let why = format!(
            "send from endpoint {}: it is not attached; see \"overlay-agent status\"",
            endpoint.name
        );
        return Err(why.into());
    };
    let entries = &known.observed.objects.entries;
    let port = entries.ports.get(&LinkRef::Name(device)).ok_or_else(|| {
        format!(
            "send from endpoint {}: its device is in no map; is fastpath = \"off\"?",
            endpoint.name
        )
    })?;
    let gateway = port.network.gateway_mac;
    let neighbour = |address: IpAddr| {
        let entry = entries.endpoints.get(&(network.vni, address));
        entry.map(|entry| entry.mac.octets())
    };
    let to = match network.range(family) {
        _ if question.protocol == Protocol::Arp => [0xff; 6],
        _ if group_mac(destination).is_some() => group_mac(destination).unwrap_or_default(),
        Some(range) if is_neighbour(range, destination) => match neighbour(destination) {
            Some(mac) => mac,
            None => return Ok(unanswered(endpoint, destination)),
        },
        _ => gateway,
    };
    let macs = Macs {
        source: port.mac,
        destination: to,
    };
    let place = Place {
        hook: Hook::FromEndpoint,
        device,
        ifindex,
    };
    sent_from(place, macs, frame(question, source, destination))
}

/// On the endpoint's own link, but for the gateway.
fn is_neighbour(range: &Range, destination: IpAddr) -> bool {
    range.subnet.contains(&destination) && destination != range.gateway()
}

fn unanswered(endpoint: &Endpoint, destination: IpAddr) -> Start {
    let sentences = vec![
        format!(
            "{destination} is on {}'s own link, and no endpoint of this node has it",
            endpoint.name
        ),
        "the container's kernel asks for its MAC, gets no answer, and sends nothing: destination host unreachable".to_owned(),
    ];
    Start::Nowhere(sentences, false)
}

async fn from_node(known: &Scene<'_>, question: &Question) -> Result<Start, Refusal> {
    if question.protocol == Protocol::Arp {
        let why = "ask for a MAC from the node: its bridges do that; choose an endpoint";
        return Err(why.to_owned().into());
    }
    let networks = &known.model.networks;
    let network = networks
        .first()
        .ok_or_else(|| "send from the node: it has no network".to_owned())?;
    let destination = destination(known, network, question)?;
    let way = known.netlink.route_to(destination).await;
    let Some(way) = way.map_err(|error| error.to_string())? else {
        let sentence = format!("the node has no route to {destination}: network is unreachable");
        return Ok(Start::Nowhere(vec![sentence], false));
    };
    let links = known.observed.around.links.iter();
    let device = links
        .filter(|(_, link)| link.index == way.oif)
        .map(|(name, link)| (*name, link))
        .next();
    let Some((device, link)) = device else {
        let why = format!("send to {destination}: the route's device is gone; ask again");
        return Err(why.into());
    };
    let tunnel = networks.iter().find(|network| {
        Family::ALL
            .into_iter()
            .any(|family| vxlan_name(network.vni, family) == Some(device))
    });
    let Some(tunnel) = tunnel else {
        return Ok(beside(known, destination, &way, device));
    };
    let entries = &known.observed.objects;
    let (mac, own) = (
        neighbour_of(known, device, &way, destination),
        entries.entries.ports.get(&LinkRef::Name(device)),
    );
    let (Some(to), Some(port)) = (mac, own) else {
        let why = format!(
            "send to {destination} by {device}: the way there is not complete; see \"overlay-agent status\""
        );
        return Err(why.into());
    };
    let source = question.source.or(way.source).ok_or_else(|| {
        format!(
            "send to {destination} of network {}: the node has no address to send from",
            tunnel.name
        )
    })?;
    let macs = Macs {
        source: port.mac,
        destination: to,
    };
    let place = Place {
        hook: Hook::FromHost,
        device,
        ifindex: link.index,
    };
    sent_from(place, macs, frame(question, source, destination))
}

/// The MAC that the kernel writes before what it sends by a VXLAN device.
fn neighbour_of(
    known: &Scene<'_>,
    device: IfName,
    way: &NextHop,
    destination: IpAddr,
) -> Option<[u8; 6]> {
    let next = way.gateway.unwrap_or(destination);
    let neighbours = &known.observed.objects.peers.neighbours;
    neighbours.get(&(device, next)).map(|mac| mac.octets())
}

/// Not by a tunnel.
fn beside(known: &Scene<'_>, destination: IpAddr, way: &NextHop, device: IfName) -> Start {
    if way.local {
        let sentence = format!("{destination} is the node's own address");
        return Start::Nowhere(vec![sentence], true);
    }
    let bridge = known
        .model
        .networks
        .iter()
        .any(|network| bridge_name(network.vni) == Some(device));
    let mut entries = known.observed.objects.entries.endpoints.keys();
    let known_here = entries.any(|(_, address)| *address == destination);
    let via = way.gateway.map(|via| format!(" via {via}"));
    let via = via.unwrap_or_default();
    let sentence = match (bridge, known_here) {
        (true, true) => format!("the node's bridge {device} leads to the endpoint itself"),
        (true, false) => format!(
            "{destination} is on the bridge {device}, and no endpoint has it: destination host unreachable"
        ),
        _ => format!("the node's routes lead there by {device}{via}, beside the overlay"),
    };
    Start::Nowhere(vec![sentence], !bridge || known_here)
}

fn frame(question: &Question, source: IpAddr, destination: IpAddr) -> Frame {
    Frame {
        macs: Macs::default(),
        source,
        destination,
        protocol: question.protocol,
        ports: (
            question.source_port.unwrap_or(PORTS.0),
            question.destination_port.unwrap_or(PORTS.1),
        ),
        size: question.size,
        ttl: question.ttl.unwrap_or(TTL),
        dont_fragment: question.dont_fragment,
    }
}

/// A frame with these MACs, as the one program of its device sees it.
fn sent_from(place: Place, macs: Macs, frame: Frame) -> Result<Start, Refusal> {
    let bytes = Frame { macs, ..frame }.bytes()?;
    Ok(Start::Programs(vec![place], bytes))
}

/// The endpoint with a name or an address.
fn sender<'a>(known: &Scene<'a>, from: &str) -> Result<&'a Endpoint, Refusal> {
    let address: Option<IpAddr> = from.parse().ok();
    let is = |endpoint: &&Endpoint| match address {
        Some(address) => address_of(known, endpoint, Family::of(address)) == Some(address),
        None => endpoint.name.as_str() == from,
    };
    known.model.endpoints.iter().find(is).ok_or_else(|| {
        Refusal::Nobody(format!(
            "send from {from}: no endpoint of node {} has this name or address; see \"overlay-agent endpoint list\", or ask the node that it is on",
            known.model.node.name
        ))
    })
}

/// The address that is meant.
fn destination(
    known: &Scene<'_>,
    network: &Network,
    question: &Question,
) -> Result<IpAddr, Refusal> {
    let to = question.to.as_str();
    if let Ok(address) = to.parse() {
        return Ok(address);
    }
    let wanted = question.source.map(Family::of);
    let families = || {
        Family::ALL
            .into_iter()
            .filter(|family| wanted.is_none_or(|wanted| wanted == *family))
    };
    let found = if is_node(known, to) {
        families().find_map(|family| network.range(family).map(Range::gateway))
    } else {
        let mut endpoints = known.model.endpoints.iter();
        let endpoint = endpoints.find(|endpoint| endpoint.name.as_str() == to);
        endpoint
            .and_then(|endpoint| families().find_map(|family| address_of(known, endpoint, family)))
    };
    found.ok_or_else(|| {
        Refusal::Nobody(format!(
            "send to {to}: it is neither an endpoint of this node nor an address; give its address"
        ))
    })
}

fn address_of(known: &Scene<'_>, endpoint: &Endpoint, family: Family) -> Option<IpAddr> {
    let given = known.store.allocations.get(&endpoint.name)?;
    given.address(family)
}
