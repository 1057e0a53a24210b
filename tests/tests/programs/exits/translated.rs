//! What becomes of answers to what the kernel has translated: it came to the VXLAN device with
//! addresses with which no container has sent it.

use overlay_common::{
    programs::{FROM_ENDPOINT, FROM_HOST, FROM_UNDERLAY},
    reasons::PassReason,
};

use super::{Case, case};
use crate::{
    counters::Outcome,
    frames::{Ip, ethernet, udp},
    traffic::{arriving, datagram, inner, outer, to_remote, tunnelled_with},
    world::{Road, roads},
};

const ICMP: u8 = 1;
const ICMP6: u8 = 58;

pub(super) fn all() -> Vec<Case> {
    let left = Outcome::Pass(PassReason::Translated);
    roads()
        .iter()
        .flat_map(|road| {
            let index = road.tunnel.index;
            let (to, from) = (Outcome::To(index), Outcome::From(index));
            [
                case("an answer", FROM_UNDERLAY, answer(road), from),
                case("an error", FROM_UNDERLAY, error(road), from),
                case("translated", FROM_HOST, translated(road), to),
                case("its answer", FROM_UNDERLAY, answer(road), left),
                case("an error about it", FROM_UNDERLAY, error(road), left),
                case(
                    "not translated any more",
                    FROM_ENDPOINT,
                    to_remote(road),
                    to,
                ),
                case("its answer then", FROM_UNDERLAY, answer(road), from),
                case("an error about that", FROM_UNDERLAY, error(road), from),
            ]
        })
        .collect()
}

/// What the peer's endpoint sends back.
fn answer(road: &Road) -> Vec<u8> {
    let header = inner(road.there, road.here);
    let datagram = udp(2000, 1000, 0x5a5a, &[0; 64]);
    arriving(
        outer(road.tunnel.peer),
        &tunnelled_with(road.tunnel, header, &datagram),
    )
}

/// From our endpoint, as the kernel hands it to its VXLAN device.
fn translated(road: &Road) -> Vec<u8> {
    let header = inner(road.here, road.there);
    ethernet(
        road.tunnel.peer_mac,
        road.tunnel.node_mac,
        header.ethertype(),
        &header.around(&datagram()),
    )
}

/// From somebody on the peer: the port is closed. Its checksum is nobody's business on the way.
fn error(road: &Road) -> Vec<u8> {
    let quoted = inner(road.here, road.there).around(&datagram());
    let (protocol, kind, code) = if road.here.is_ipv4() {
        (ICMP, 3, 3)
    } else {
        (ICMP6, 1, 4)
    };
    let mut message = vec![kind, code, 0, 0, 0, 0, 0, 0];
    message.extend(quoted);
    let header = Ip {
        protocol,
        ..inner(road.there, road.here)
    };
    arriving(
        outer(road.tunnel.peer),
        &tunnelled_with(road.tunnel, header, &message),
    )
}
