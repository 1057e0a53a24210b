//! Who a container says that it is: its sources, and what it tells its neighbours.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use overlay_common::{
    programs::FROM_ENDPOINT,
    reasons::{DropReason, PassReason},
};

use super::{Case, case, family};
use crate::{
    counters::Outcome,
    frames::{ARP, BROADCAST, ICMPV6, IPV4, Ip, Mac, ethernet},
    traffic::{datagram, inner, routed, routed_with},
    world::{
        DATABASE, DATABASE_MAC, DATABASE6, GATEWAY, GATEWAY_MAC, GATEWAY6, PLACES, Places, WEB,
        WEB_MAC, WEB6,
    },
};

const ALL_NODES: IpAddr = IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1));
const LINK_LOCAL: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 1, 2, 3, 4));
const NOBODY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const NOBODY6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;
/// Options with the sender's or the target's MAC, and one for something else.
const SOURCE_MAC: u8 = 1;
const TARGET_MAC: u8 = 2;
const NONCE: u8 = 14;

const SPOOFED: Outcome = Outcome::Drop(DropReason::SpoofedSource, None);
const CLAIMED: Outcome = Outcome::Drop(DropReason::SpoofedNeighbour, None);
const TO_MANY: Outcome = Outcome::Pass(PassReason::NotUnicast);
const NO_ROUTE: Outcome = Outcome::Pass(PassReason::NoRoute);
const NOT_IP: Outcome = Outcome::Pass(PassReason::NotIp);

pub(super) fn all() -> Vec<Case> {
    let mut cases: Vec<_> = PLACES.iter().flat_map(sources).collect();
    cases.extend(arp());
    cases.extend(discovery());
    cases.extend(hidden_discovery());
    cases
}

fn sources(places: &Places) -> Vec<Case> {
    let from = |source, destination| routed(inner(source, destination));
    let packet = inner(places.web, places.remote);
    let others_mac = ethernet(
        GATEWAY_MAC,
        DATABASE_MAC,
        packet.ethertype(),
        &packet.around(&datagram()),
    );
    let piece = Ip {
        flags_and_offset: 185,
        protocol: if places.web.is_ipv4() { 17 } else { 44 },
        ..inner(places.database, places.remote)
    };
    [
        ("from another's MAC", others_mac, SPOOFED),
        (
            "from a neighbour's address",
            from(places.database, places.remote),
            SPOOFED,
        ),
        ("from the world", from(places.world, places.remote), SPOOFED),
        (
            "from its gateway",
            from(places.gateway, places.database),
            SPOOFED,
        ),
        (
            "from a peer's container",
            from(places.remote, places.database),
            SPOOFED,
        ),
        (
            "from behind a router",
            from(places.behind_router, places.remote),
            SPOOFED,
        ),
        ("from another's address, a fragment", routed(piece), SPOOFED),
        (
            "from another's address to many",
            from(places.database, places.multicast),
            SPOOFED,
        ),
        (
            "from no address",
            from(places.unspecified, places.remote),
            SPOOFED,
        ),
        (
            "from no address to many",
            from(places.unspecified, places.multicast),
            TO_MANY,
        ),
    ]
    .into_iter()
    .map(|(what, packet, outcome)| {
        let what = format!("{} {what}", family(places.web));
        case(what, FROM_ENDPOINT, packet, outcome)
    })
    .collect()
}

/// A message of ARP from the device's MAC to all.
pub(super) fn arp_from(mac: Mac, address: IpAddr) -> Vec<u8> {
    let IpAddr::V4(address) = address else {
        panic!("{address} is not an IPv4 address");
    };
    let message = [
        &[0, 1, 8, 0, 6, 4, 0, 1][..],
        &mac,
        &address.octets(),
        &[0; 6],
        &[10, 244, 1, 1],
    ]
    .concat();
    ethernet(BROADCAST, WEB_MAC, ARP, &message)
}

fn arp() -> Vec<Case> {
    let own = arp_from(WEB_MAC, WEB);
    let mut strange = arp_from(DATABASE_MAC, DATABASE);
    strange[15] = 6;
    let others_frame = [&BROADCAST[..], &DATABASE_MAC, &own[12..]].concat();
    let dhcp = Ip {
        source: NOBODY,
        destination: IpAddr::V4(Ipv4Addr::BROADCAST),
        ..inner(WEB, WEB)
    };
    let dhcp = ethernet(BROADCAST, WEB_MAC, IPV4, &dhcp.around(&datagram()));
    [
        ("ARP", own.clone(), NOT_IP),
        ("ARP probe", arp_from(WEB_MAC, NOBODY), NOT_IP),
        ("ARP for a neighbour", arp_from(WEB_MAC, DATABASE), CLAIMED),
        ("ARP for the gateway", arp_from(WEB_MAC, GATEWAY), CLAIMED),
        (
            "ARP for a neighbour's MAC",
            arp_from(DATABASE_MAC, WEB),
            CLAIMED,
        ),
        ("ARP from a neighbour's MAC", others_frame, SPOOFED),
        ("ARP of another hardware", strange, NOT_IP),
        (
            "ARP cut off",
            own[..41].to_vec(),
            Outcome::Drop(DropReason::Malformed, None),
        ),
        ("DHCP", dhcp, TO_MANY),
    ]
    .into_iter()
    .map(|(what, packet, outcome)| case(what, FROM_ENDPOINT, packet, outcome))
    .collect()
}

/// A message of neighbour discovery, its checksum left out: nobody here looks at it.
pub(super) fn message(
    source: IpAddr,
    destination: IpAddr,
    kind: u8,
    target: IpAddr,
    options: &[(u8, Mac)],
) -> Vec<u8> {
    let header = Ip {
        ttl: 255,
        protocol: ICMPV6,
        ..inner(source, destination)
    };
    routed_with(header, &body(kind, target, options))
}

fn body(kind: u8, target: IpAddr, options: &[(u8, Mac)]) -> Vec<u8> {
    let IpAddr::V6(target) = target else {
        panic!("{target} is not an IPv6 address");
    };
    let mut body = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    if kind != ROUTER_SOLICITATION {
        body.extend(target.octets());
    }
    for (kind, mac) in options {
        body.extend([*kind, 1]);
        body.extend(mac);
    }
    body
}

fn discovery() -> Vec<Case> {
    let own = [(SOURCE_MAC, WEB_MAC)];
    let others = [(SOURCE_MAC, DATABASE_MAC)];
    let second = [(NONCE, [9; 6]), (SOURCE_MAC, DATABASE_MAC)];
    let too_many = [(NONCE, [9; 6]); 7];
    let own_target = [(TARGET_MAC, WEB_MAC)];
    let others_target = [(TARGET_MAC, DATABASE_MAC)];
    let ask = |source, options: &[_]| message(source, ALL_NODES, SOLICITATION, DATABASE6, options);
    let tell = |target, options: &[_]| message(WEB6, ALL_NODES, ADVERTISEMENT, target, options);
    let other = |kind, options: &[_]| message(LINK_LOCAL, ALL_NODES, kind, WEB6, options);
    let mut nothing = ask(WEB6, &others);
    // An option of length 0, after which nobody reads on.
    nothing[14 + 40 + 24 + 1] = 0;
    nothing[14 + 40 + 24] = NONCE;
    [
        ("a question", ask(WEB6, &own), TO_MANY),
        ("a question from the link", ask(LINK_LOCAL, &own), TO_MANY),
        (
            "a question before it has an address",
            ask(NOBODY6, &[]),
            TO_MANY,
        ),
        (
            "a question with a nonce",
            ask(NOBODY6, &[(NONCE, [9; 6])]),
            TO_MANY,
        ),
        ("a question from a neighbour", ask(DATABASE6, &own), SPOOFED),
        (
            "a question from a neighbour's MAC",
            ask(WEB6, &others),
            CLAIMED,
        ),
        ("the same in a second option", ask(WEB6, &second), CLAIMED),
        ("an option without a length", nothing, TO_MANY),
        ("options without an end", ask(WEB6, &too_many), CLAIMED),
        ("an answer", tell(WEB6, &own_target), TO_MANY),
        (
            "an answer for the link",
            tell(LINK_LOCAL, &own_target),
            TO_MANY,
        ),
        (
            "an answer for a neighbour",
            tell(DATABASE6, &own_target),
            CLAIMED,
        ),
        ("an answer for the gateway", tell(GATEWAY6, &[]), CLAIMED),
        (
            "an answer with a neighbour's MAC",
            tell(WEB6, &others_target),
            CLAIMED,
        ),
        (
            "a search for routers",
            other(ROUTER_SOLICITATION, &own),
            TO_MANY,
        ),
        (
            "one for a neighbour's MAC",
            other(ROUTER_SOLICITATION, &others),
            CLAIMED,
        ),
        (
            "a router's advertisement",
            other(ROUTER_ADVERTISEMENT, &own),
            CLAIMED,
        ),
        ("a redirect", other(REDIRECT, &own_target), CLAIMED),
        (
            "a question to one",
            message(LINK_LOCAL, WEB6, SOLICITATION, WEB6, &own),
            NO_ROUTE,
        ),
        (
            "an answer to a neighbour for another",
            message(WEB6, DATABASE6, ADVERTISEMENT, GATEWAY6, &own_target),
            CLAIMED,
        ),
        (
            "a packet from the link",
            routed(inner(LINK_LOCAL, DATABASE6)),
            NO_ROUTE,
        ),
    ]
    .into_iter()
    .map(|(what, packet, outcome)| case(what, FROM_ENDPOINT, packet, outcome))
    .collect()
}

/// Extension headers of eight bytes, then a message.
fn behind(headers: &[u8], kind: u8) -> Vec<u8> {
    within(255, headers, kind)
}

/// The same with another hop limit.
fn within(ttl: u8, headers: &[u8], kind: u8) -> Vec<u8> {
    let mut payload = Vec::new();
    for next in headers[1..].iter().chain([&ICMPV6]) {
        payload.extend([*next, 0, 1, 4, 0, 0, 0, 0]);
    }
    payload.extend(body(kind, DATABASE6, &[(TARGET_MAC, WEB_MAC)]));
    let header = Ip {
        ttl,
        protocol: headers[0],
        ..inner(WEB6, ALL_NODES)
    };
    routed_with(header, &payload)
}

fn hidden_discovery() -> Vec<Case> {
    const MULTICAST_REPORT: u8 = 143;
    const HOP_BY_HOP: u8 = 0;
    const OPTIONS: u8 = 60;
    const FRAGMENT: u8 = 44;
    [
        (
            "hop-by-hop options",
            behind(&[HOP_BY_HOP], ADVERTISEMENT),
            CLAIMED,
        ),
        (
            "five headers",
            behind(&[OPTIONS; 5], ADVERTISEMENT),
            CLAIMED,
        ),
        (
            "more headers than a program reads, for the guard's table",
            behind(&[OPTIONS; 9], MULTICAST_REPORT),
            TO_MANY,
        ),
        (
            "as many, by a router perhaps, whom nobody believes",
            within(64, &[OPTIONS; 9], ADVERTISEMENT),
            TO_MANY,
        ),
        (
            "a report of groups",
            behind(&[HOP_BY_HOP], MULTICAST_REPORT),
            TO_MANY,
        ),
        (
            "a fragment, to which nobody listens",
            behind(&[FRAGMENT], ADVERTISEMENT),
            TO_MANY,
        ),
    ]
    .into_iter()
    .map(|(what, packet, outcome)| {
        case(
            format!("discovery behind {what}"),
            FROM_ENDPOINT,
            packet,
            outcome,
        )
    })
    .collect()
}
