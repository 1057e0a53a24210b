//! What is counted, and whose.

use bytemuck::{CheckedBitPattern, NoUninit, Pod, Zeroable};

use crate::reasons::{DropReason, PassReason};

/// Packets and bytes; a GSO or GRO packet counts once, as `ip -s link` counts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Count {
    /// Number of packets.
    pub packets: u64,
    /// Frame length, Ethernet header included: the inner frame's where it was delivered,
    /// else that of the whole packet as it arrived.
    pub bytes: u64,
}

/// Traffic with one peer as seen by one CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct PeerStats {
    /// Encapsulated and handed to the underlay; for [`LOCAL_INDEX`](super::LOCAL_INDEX), delivered on this node.
    pub tx: Count,
    /// Decapsulated and delivered to an endpoint.
    pub rx: Count,
    /// Received from it and dropped, for any reason.
    pub dropped: Count,
}

/// What one endpoint, or the node itself, sends and gets, as seen by one CPU.
///
/// Whatever enters at its device is counted once: sent, delivered, passed or dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct EndpointStats {
    /// Encapsulated and handed to the underlay.
    pub tx: Count,
    /// Delivered to another endpoint of this node.
    pub tx_local: Count,
    /// Came from a peer and was delivered to it.
    pub rx: Count,
    /// Came from another endpoint of this node and was delivered to it.
    pub rx_local: Count,
    /// Sent by it and left to the kernel.
    pub passed: Count,
    /// Sent by it and dropped, for any reason.
    pub dropped: Count,
}

/// Who sent packets that were dropped, and why they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, NoUninit, CheckedBitPattern)]
#[repr(C)]
pub struct SenderKey {
    /// What `slot` is a slot of.
    pub kind: SenderKind,
    /// Slot in [`PEER_STATS`](super::PEER_STATS) or [`ENDPOINT_STATS`](super::ENDPOINT_STATS).
    pub slot: u32,
    /// Why they were dropped.
    pub reason: DropReason,
}

/// From which peer packets came that were left to the kernel, and why they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, NoUninit, CheckedBitPattern)]
#[repr(C)]
pub struct PassedKey {
    /// Slot in [`PEER_STATS`](super::PEER_STATS).
    pub slot: u32,
    /// Why they were left.
    pub reason: PassReason,
}

/// Who can have sent a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, NoUninit, CheckedBitPattern)]
#[repr(u32)]
pub enum SenderKind {
    /// Another node, by its slot in [`PEER_STATS`](super::PEER_STATS).
    Peer,
    /// A container, or the node itself, by its slot in [`ENDPOINT_STATS`](super::ENDPOINT_STATS).
    Endpoint,
}
