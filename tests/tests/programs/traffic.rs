//! The packets of an ordinary day, as a start for those that are not.

use std::net::IpAddr;

use crate::{
    frames::{Ip, Mac, UDP, ethernet, udp, vxlan},
    world::{GATEWAY_MAC, NODE, NODE6, PORT, Road, Tunnel, VNI, WEB_MAC},
};

pub(crate) const I_FLAG: u32 = 0x0800_0000;
pub(crate) const DONT_FRAGMENT: u16 = 0x4000;
/// MACs on the underlay's own Ethernet, this node's first: a test run's device has none.
pub(crate) const UNDERLAY_MACS: (Mac, Mac) = ([0; 6], [0x02, 0xee, 0, 0, 0, 2]);

/// The header of a packet between two containers.
pub(crate) fn inner(source: IpAddr, destination: IpAddr) -> Ip {
    Ip {
        tos: 0,
        id: 0x1234,
        flags_and_offset: DONT_FRAGMENT,
        label: 0x1234,
        ttl: 64,
        protocol: UDP,
        source,
        destination,
    }
}

/// The outer header of a packet from a VTEP to this node.
pub(crate) fn outer(source: IpAddr) -> Ip {
    Ip {
        id: 0x4321,
        label: 0x4321,
        flags_and_offset: 0,
        ..inner(source, if source.is_ipv4() { NODE } else { NODE6 })
    }
}

/// 64 bytes of UDP payload in their datagram.
pub(crate) fn datagram() -> Vec<u8> {
    let payload: Vec<u8> = (0..64).collect();
    udp(1000, 2000, 0x5a5a, &payload)
}

/// What our container's stack sends to something behind its gateway.
pub(crate) fn routed(header: Ip) -> Vec<u8> {
    routed_with(header, &datagram())
}

pub(crate) fn routed_with(header: Ip, payload: &[u8]) -> Vec<u8> {
    ethernet(
        GATEWAY_MAC,
        WEB_MAC,
        header.ethertype(),
        &header.around(payload),
    )
}

/// What a peer puts into the tunnel.
pub(crate) fn tunnelled(tunnel: &Tunnel, header: Ip) -> Vec<u8> {
    tunnelled_with(tunnel, header, &datagram())
}

pub(crate) fn tunnelled_with(tunnel: &Tunnel, header: Ip, payload: &[u8]) -> Vec<u8> {
    ethernet(
        tunnel.node_mac,
        tunnel.peer_mac,
        header.ethertype(),
        &header.around(payload),
    )
}

/// A frame in the tunnel, as it arrives on the underlay.
pub(crate) fn arriving(outer: Ip, frame: &[u8]) -> Vec<u8> {
    arriving_as(outer, 0, &vxlan(I_FLAG, VNI, frame))
}

/// The same with any UDP checksum and payload.
pub(crate) fn arriving_as(outer: Ip, checksum: u16, payload: &[u8]) -> Vec<u8> {
    let (to, from) = UNDERLAY_MACS;
    let packet = outer.around(&udp(50_000, PORT, checksum, payload));
    ethernet(to, from, outer.ethertype(), &packet)
}

/// A packet in the tunnel from the road's peer.
pub(crate) fn inside(road: &Road, header: Ip) -> Vec<u8> {
    arriving(outer(road.tunnel.peer), &tunnelled(road.tunnel, header))
}

/// From our endpoint to one on the peer.
pub(crate) fn to_remote(road: &Road) -> Vec<u8> {
    routed(inner(road.here, road.there))
}

/// From an endpoint on the peer to ours.
pub(crate) fn from_remote(road: &Road) -> Vec<u8> {
    inside(road, inner(road.there, road.here))
}

/// The same from the node itself, as its VXLAN device sends it.
pub(crate) fn from_node(road: &Road) -> Vec<u8> {
    let header = inner(road.gateway(), road.there);
    ethernet(
        road.tunnel.peer_mac,
        road.tunnel.node_mac,
        header.ethertype(),
        &header.around(&datagram()),
    )
}
