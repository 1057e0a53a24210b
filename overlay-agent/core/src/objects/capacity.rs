//! How much the eBPF maps hold.

use overlay_common::maps::{
    MAX_CIDRS, MAX_ENDPOINTS, MAX_NETWORKS, MAX_PEERS, MAX_PORTS, MAX_SOURCES,
};

/// Entries that the maps have room for; of those by family, IPv4 first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// [`NETWORKS`](overlay_common::maps::NETWORKS).
    pub networks: usize,
    /// [`PEERS4`](overlay_common::maps::PEERS4) and [`PEERS6`](overlay_common::maps::PEERS6).
    pub peers: [usize; 2],
    /// [`VTEPS4`](overlay_common::maps::VTEPS4) and [`VTEPS6`](overlay_common::maps::VTEPS6).
    pub vteps: [usize; 2],
    /// Peers that [`PEER_STATS`](overlay_common::maps::PEER_STATS) can have counters for.
    pub slots: usize,
    /// [`ENDPOINTS4`](overlay_common::maps::ENDPOINTS4) and
    /// [`ENDPOINTS6`](overlay_common::maps::ENDPOINTS6).
    pub endpoints: [usize; 2],
    /// [`PORTS`](overlay_common::maps::PORTS).
    pub ports: usize,
    /// [`SOURCES`](overlay_common::maps::SOURCES).
    pub sources: usize,
    /// [`CIDRS`](overlay_common::maps::CIDRS).
    pub cidrs: usize,
}

impl Default for Capacity {
    fn default() -> Self {
        Self {
            networks: MAX_NETWORKS,
            peers: [MAX_PEERS; 2],
            vteps: [MAX_PEERS; 2],
            slots: MAX_PEERS,
            endpoints: [MAX_ENDPOINTS; 2],
            ports: MAX_PORTS,
            sources: MAX_SOURCES,
            cidrs: MAX_CIDRS,
        }
    }
}
