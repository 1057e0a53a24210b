//! A frame on the underlay, and everything about it that a case may change.

use overlay_common::wire::{IANA_PORT, VXLAN_FLAGS};
use overlay_tests::{
    frames::{Ip, Mac, ethernet, udp, vxlan},
    topology::VNI,
};

/// Where the containers listen, so that nothing is answered.
pub(crate) const LISTENING: u16 = 7777;
/// Begins the payload of everything that is sent here.
pub(crate) const TAG: &[u8] = b"conformance of a frame";

/// The outer UDP checksum.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Checksum {
    Absent,
    Right,
    Wrong,
}

/// A frame from a peer's container to one of the node that is shot at.
#[derive(Clone)]
pub(crate) struct Shot {
    /// Destination and source on the underlay.
    pub(crate) macs: (Mac, Mac),
    pub(crate) outer: Ip,
    pub(crate) source_port: u16,
    pub(crate) port: u16,
    pub(crate) checksum: Checksum,
    pub(crate) flags: u32,
    /// VNI and the last reserved byte.
    pub(crate) last: u32,
    /// Destination and source in the tunnel.
    pub(crate) inner_macs: (Mac, Mac),
    pub(crate) inner: Ip,
    pub(crate) payload: Vec<u8>,
}

impl Shot {
    /// A frame that nobody has anything against.
    pub(crate) fn new(macs: (Mac, Mac), outer: Ip, inner_macs: (Mac, Mac), inner: Ip) -> Self {
        Self {
            macs,
            outer,
            source_port: 50_000,
            port: IANA_PORT,
            checksum: Checksum::Absent,
            flags: VXLAN_FLAGS,
            last: VNI << 8,
            inner_macs,
            inner,
            payload: [TAG, &[0x5a; 42]].concat(),
        }
    }

    /// What its container sent: a datagram in a packet.
    pub(crate) fn inner_packet(&self) -> Vec<u8> {
        self.inner.around_udp(1000, LISTENING, &self.payload)
    }

    /// The frame in the tunnel.
    pub(crate) fn inner_frame(&self) -> Vec<u8> {
        self.inner_frame_of(self.inner.ethertype(), &self.inner_packet())
    }

    /// A frame of another type, or with another packet, in the tunnel.
    pub(crate) fn inner_frame_of(&self, kind: u16, packet: &[u8]) -> Vec<u8> {
        let (to, from) = self.inner_macs;
        ethernet(to, from, kind, packet)
    }

    /// The whole frame.
    pub(crate) fn frame(&self) -> Vec<u8> {
        self.carrying(&self.inner_frame())
    }

    /// The whole frame with something else in the tunnel.
    pub(crate) fn carrying(&self, inner_frame: &[u8]) -> Vec<u8> {
        self.around(&self.datagram(inner_frame))
    }

    /// The outer UDP datagram.
    pub(crate) fn datagram(&self, inner_frame: &[u8]) -> Vec<u8> {
        let payload = vxlan(self.flags, self.last, inner_frame);
        let bare = udp(self.source_port, self.port, 0, &payload);
        let right = self.outer.udp_checksum(&bare);
        let checksum = match self.checksum {
            Checksum::Absent => 0,
            Checksum::Right => right,
            // Neither 0 nor, by one's complement, the same.
            Checksum::Wrong => right ^ 0x0101,
        };
        udp(self.source_port, self.port, checksum, &payload)
    }

    /// Any outer IP payload, on the wire.
    pub(crate) fn around(&self, payload: &[u8]) -> Vec<u8> {
        self.on_the_wire(&self.outer.around(payload))
    }

    /// Any outer IP packet, on the wire.
    pub(crate) fn on_the_wire(&self, packet: &[u8]) -> Vec<u8> {
        let (to, from) = self.macs;
        ethernet(to, from, self.outer.ethertype(), packet)
    }
}
