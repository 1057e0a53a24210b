//! Frames as containers and other nodes send them.

use std::net::Ipv4Addr;

use overlay_common::wire;
use overlay_tests::frames::{Ip, Mac, ethernet, udp, vxlan};

use crate::bench::load::datagrams::SIZE;

/// The ends of a frame.
#[derive(Clone, Copy)]
pub(super) struct Ends {
    pub(super) source_mac: Mac,
    pub(super) destination_mac: Mac,
    pub(super) source: Ipv4Addr,
    pub(super) destination: Ipv4Addr,
}

/// A datagram of the usual size.
pub(super) fn datagram(ends: Ends, source_port: u16) -> Vec<u8> {
    frame(ends, source_port, 7007, &[0x5a; SIZE])
}

/// A frame in VXLAN.
pub(super) fn tunnelled(outer: Ends, source_port: u16, vni: u32, inner: &[u8]) -> Vec<u8> {
    let payload = vxlan(wire::VXLAN_FLAGS, vni << 8, inner);
    frame(outer, source_port, wire::IANA_PORT, &payload)
}

/// A UDP packet without a checksum, which IPv4 allows.
fn frame(ends: Ends, source_port: u16, port: u16, payload: &[u8]) -> Vec<u8> {
    let ip = Ip::new(ends.source.into(), ends.destination.into());
    let packet = ip.around(&udp(source_port, port, 0, payload));
    ethernet(
        ends.destination_mac,
        ends.source_mac,
        ip.ethertype(),
        &packet,
    )
}
