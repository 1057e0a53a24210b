//! What `WireGuard` tells of its peers, and why there may be none.

use std::time::SystemTime;

/// What has passed between a device and a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerTraffic {
    /// When both ends have last agreed on keys; `None`: never.
    pub handshake: Option<SystemTime>,
    /// Bytes of what came.
    pub received: u64,
    /// Bytes of what was sent.
    pub sent: u64,
}

/// Why tunnels cannot be encrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoWireguard {
    /// What is wrong.
    pub cause: String,
    /// What to do about it.
    pub cure: String,
}
