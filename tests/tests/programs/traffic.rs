//! The packets of an ordinary day, as a start for those that are not.

use crate::{
    frames::{Address, Ipv4, Mac, UDP, ethernet, udp, vxlan},
    node::{GATEWAY_MAC, NODE, NODE_MAC, PEER, PEER_MAC, PORT, REMOTE, VNI, WEB, WEB_MAC},
};

pub(crate) const IPV4: u16 = 0x0800;
pub(crate) const I_FLAG: u32 = 0x0800_0000;
pub(crate) const DONT_FRAGMENT: u16 = 0x4000;
/// MACs on the underlay's own Ethernet.
pub(crate) const UNDERLAY_MACS: (Mac, Mac) = ([0x02, 0xee, 0, 0, 0, 1], [0x02, 0xee, 0, 0, 0, 2]);

/// The IPv4 header of a packet between two containers.
pub(crate) fn inner(source: Address, destination: Address) -> Ipv4 {
    Ipv4 {
        tos: 0,
        id: 0x1234,
        flags_and_offset: DONT_FRAGMENT,
        ttl: 64,
        protocol: UDP,
        source,
        destination,
    }
}

/// The outer IPv4 header of a packet from a peer to this node.
pub(crate) fn outer(source: Address) -> Ipv4 {
    Ipv4 {
        id: 0x4321,
        flags_and_offset: 0,
        ..inner(source, NODE)
    }
}

/// 64 bytes of UDP payload in their datagram.
pub(crate) fn datagram() -> Vec<u8> {
    let payload: Vec<u8> = (0..64).collect();
    udp(1000, 2000, 0x5a5a, &payload)
}

/// What a container's stack sends to something behind its gateway.
pub(crate) fn routed(packet: &[u8]) -> Vec<u8> {
    ethernet(GATEWAY_MAC, WEB_MAC, IPV4, packet)
}

/// What a peer puts into the tunnel.
pub(crate) fn tunnelled(packet: &[u8]) -> Vec<u8> {
    ethernet(NODE_MAC, PEER_MAC, IPV4, packet)
}

/// A frame in the tunnel, as it arrives on the underlay.
pub(crate) fn arriving(outer: Ipv4, frame: &[u8]) -> Vec<u8> {
    arriving_as(outer, 0, &vxlan(I_FLAG, VNI, frame))
}

/// The same with any UDP checksum and payload.
pub(crate) fn arriving_as(outer: Ipv4, checksum: u16, payload: &[u8]) -> Vec<u8> {
    let (to, from) = UNDERLAY_MACS;
    let packet = outer.around(&udp(50_000, PORT, checksum, payload));
    ethernet(to, from, IPV4, &packet)
}

/// From our endpoint to one on the peer.
pub(crate) fn to_remote() -> Vec<u8> {
    routed(&inner(WEB, REMOTE).around(&datagram()))
}

/// From an endpoint on the peer to ours.
pub(crate) fn from_remote() -> Vec<u8> {
    arriving(
        outer(PEER),
        &tunnelled(&inner(REMOTE, WEB).around(&datagram())),
    )
}

/// From the node itself, as its VXLAN device sends it.
pub(crate) fn from_node() -> Vec<u8> {
    ethernet(
        PEER_MAC,
        NODE_MAC,
        IPV4,
        &inner(NODE, REMOTE).around(&datagram()),
    )
}
