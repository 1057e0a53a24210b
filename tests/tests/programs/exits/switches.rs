//! What becomes of packets that a rule drops when the network switches that rule off.

use overlay_common::{
    maps::network_flags,
    programs::{FROM_ENDPOINT, FROM_HOST, FROM_UNDERLAY},
    reasons::{DropReason, PassReason},
};

use super::{Case, arriving::from_vtep, case, claims, family};
use crate::{
    counters::Outcome,
    frames::ethernet,
    traffic::{datagram, from_node, from_remote, inner, inside, routed, to_remote},
    world::{
        DATABASE, DATABASE_MAC, DATABASE6, GATEWAY_MAC, PEER_INDEX, PLACES, ROADS, ROUTER_MAC,
        WEB_MAC, roads,
    },
};

pub(super) fn all() -> Vec<(u32, Vec<Case>)> {
    vec![
        (network_flags::ANY_ENDPOINT_SOURCE, any_endpoint_source()),
        (network_flags::OTHER_NETWORKS, other_networks()),
        (network_flags::MALFORMED, malformed()),
        (network_flags::HOOKED, hooked()),
        (network_flags::ENCRYPTED, encrypted()),
        (network_flags::ANY_VTEP, any_vtep(false)),
        (
            network_flags::ANY_VTEP | network_flags::ANY_INNER_SOURCE,
            any_vtep(true),
        ),
        (network_flags::ANY_INNER_SOURCE, any_inner_source()),
        (network_flags::TRACKED, tracked()),
        (network_flags::MARTIANS, martians(false)),
        (
            network_flags::MARTIANS | network_flags::ANY_INNER_SOURCE,
            martians(true),
        ),
    ]
}

/// What comes by a device that is not the network's, whoever's it is.
fn encrypted() -> Vec<Case> {
    let by_peer = ROADS.iter().map(|road| {
        let dropped = Outcome::Drop(DropReason::Unencrypted, Some(road.tunnel.index));
        case("in the clear", FROM_UNDERLAY, from_remote(road), dropped)
    });
    let by_stranger = roads().into_iter().map(|road| {
        let header = inner(road.there, road.here);
        let packet = from_vtep(&road, road.tunnel.stranger, header);
        let dropped = Outcome::Drop(DropReason::Unencrypted, None);
        case("in the clear, by nobody", FROM_UNDERLAY, packet, dropped)
    });
    by_peer.chain(by_stranger).collect()
}

/// What is refused stays refused.
fn hooked() -> Vec<Case> {
    let passed = Outcome::Pass(PassReason::Hooked);
    let mut cases = Vec::new();
    for road in &ROADS {
        let packets = [
            ("to a peer", FROM_ENDPOINT, to_remote(road), passed),
            ("from the node", FROM_HOST, from_node(road), passed),
            ("from a peer", FROM_UNDERLAY, from_remote(road), passed),
        ];
        let packets = packets.into_iter();
        cases.extend(packets.map(|(what, program, packet, out)| case(what, program, packet, out)));
    }
    for places in &PLACES {
        let packet = routed(inner(places.remote, places.web));
        let dropped = Outcome::Drop(DropReason::SpoofedSource, None);
        cases.push(case("not its own", FROM_ENDPOINT, packet, dropped));
    }
    cases
}

fn any_endpoint_source() -> Vec<Case> {
    let sent = Outcome::To(PEER_INDEX);
    let mut cases = vec![
        case(
            "ARP for a neighbour",
            FROM_ENDPOINT,
            claims::arp_from(DATABASE_MAC, DATABASE),
            Outcome::Pass(PassReason::NotIp),
        ),
        case(
            "a redirect",
            FROM_ENDPOINT,
            claims::message(DATABASE6, PLACES[1].multicast, 137, DATABASE6, &[]),
            Outcome::Pass(PassReason::NotUnicast),
        ),
    ];
    for places in &PLACES {
        let header = inner(places.world, places.remote);
        let others_mac = ethernet(
            GATEWAY_MAC,
            DATABASE_MAC,
            header.ethertype(),
            &header.around(&datagram()),
        );
        cases.push(case("any address", FROM_ENDPOINT, routed(header), sent));
        cases.push(case("any MAC", FROM_ENDPOINT, others_mac, sent));
    }
    cases
}

fn other_networks() -> Vec<Case> {
    PLACES
        .iter()
        .map(|places| {
            let packet = routed(inner(places.web, places.other_network));
            let outcome = Outcome::Pass(PassReason::NoRoute);
            case("to another network", FROM_ENDPOINT, packet, outcome)
        })
        .collect()
}

fn malformed() -> Vec<Case> {
    let outcome = Outcome::Pass(PassReason::Malformed);
    roads()
        .iter()
        .flat_map(|road| {
            let mut leaving = routed(inner(road.here, road.there));
            leaving.pop();
            let mut arriving = from_remote(road);
            arriving.pop();
            [
                case("cut off", FROM_ENDPOINT, leaving, outcome),
                case(road.name(), FROM_UNDERLAY, arriving, outcome),
            ]
        })
        .collect()
}

/// A stranger's own packets are received, by the kernel; those for others if that rule is
/// off, too.
fn any_vtep(for_others: bool) -> Vec<Case> {
    let left = Outcome::Pass(PassReason::AnyVtep);
    let dropped = Outcome::Drop(DropReason::SourceNotBehindVtep, None);
    roads()
        .iter()
        .flat_map(|road| {
            let stranger = road.tunnel.stranger;
            let own = stranger.is_ipv4() == road.here.is_ipv4();
            let own = own.then(|| {
                let packet = from_vtep(road, stranger, inner(stranger, road.here));
                case(format!("{}, own", road.name()), FROM_UNDERLAY, packet, left)
            });
            let others = from_vtep(road, stranger, inner(road.there, road.here));
            let outcome = if for_others { left } else { dropped };
            own.into_iter().chain([case(
                format!("{}, for others", road.name()),
                FROM_UNDERLAY,
                others,
                outcome,
            )])
        })
        .collect()
}

/// What would be forwarded is the kernel's; what is forbidden is dropped all the same.
fn tracked() -> Vec<Case> {
    let left = Outcome::Pass(PassReason::Tracked);
    roads()
        .iter()
        .flat_map(|road| {
            let index = Some(road.tunnel.index);
            let forbidden = inside(road, inner(road.places().world, road.here));
            let neighbour = routed(inner(road.here, road.places().database));
            [
                case(
                    "to a peer",
                    FROM_ENDPOINT,
                    routed(inner(road.here, road.there)),
                    left,
                ),
                case("to a neighbour", FROM_ENDPOINT, neighbour, left),
                case(road.name(), FROM_UNDERLAY, from_remote(road), left),
                case(
                    "from nobody's address",
                    FROM_UNDERLAY,
                    forbidden,
                    Outcome::Drop(DropReason::SourceNotBehindVtep, index),
                ),
            ]
        })
        .collect()
}

fn any_inner_source() -> Vec<Case> {
    roads()
        .iter()
        .map(|road| {
            let packet = inside(road, inner(road.places().world, road.here));
            case(
                road.name(),
                FROM_UNDERLAY,
                packet,
                Outcome::From(road.tunnel.index),
            )
        })
        .collect()
}

fn martians(any_source: bool) -> Vec<Case> {
    roads()
        .iter()
        .flat_map(|road| {
            let index = road.tunnel.index;
            let outcome = if any_source {
                Outcome::From(index)
            } else {
                Outcome::Drop(DropReason::SourceNotBehindVtep, Some(index))
            };
            road.places().martians.map(|martian| {
                let packet = inside(road, inner(martian, road.here));
                let what = format!("{} from {martian}", road.name());
                case(what, FROM_UNDERLAY, packet, outcome)
            })
        })
        .collect()
}

/// What the endpoint that forwards may send.
pub(super) fn router() -> Vec<Case> {
    let from = |mac, source, destination| {
        let header = inner(source, destination);
        ethernet(
            GATEWAY_MAC,
            mac,
            header.ethertype(),
            &header.around(&datagram()),
        )
    };
    let sent = Outcome::To(PEER_INDEX);
    let spoofed = Outcome::Drop(DropReason::SpoofedSource, None);
    PLACES
        .iter()
        .flat_map(|places| {
            let to_peer = |mac, source| from(mac, source, places.remote);
            [
                ("from itself", to_peer(ROUTER_MAC, places.router), sent),
                (
                    "from behind it",
                    to_peer(ROUTER_MAC, places.behind_router),
                    sent,
                ),
                ("from the world", to_peer(ROUTER_MAC, places.world), spoofed),
                ("from a neighbour", to_peer(ROUTER_MAC, places.web), spoofed),
                (
                    "from another's MAC",
                    to_peer(WEB_MAC, places.behind_router),
                    spoofed,
                ),
                (
                    "from behind it to a neighbour",
                    from(ROUTER_MAC, places.behind_router, places.web),
                    Outcome::Local,
                ),
            ]
            .map(|(what, packet, outcome)| {
                let what = format!("{} {what}", family(places.web));
                case(what, FROM_ENDPOINT, packet, outcome)
            })
        })
        .collect()
}
