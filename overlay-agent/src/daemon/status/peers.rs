//! The peers of a network, and what was counted of them.

use std::collections::BTreeMap;

use overlay_common::maps::{Count, PeerStats};
use overlay_control::{
    PeerStatus, Traffic,
    stats::{Counter, PathCounts},
};
use overlay_core::model::{Network, Peer};
use overlay_kernel::{self as kernel, bpf::Counters};

use super::super::{Reconciler, next_hops};

/// The programs' counters, by the slot of a peer.
pub(super) struct Counted {
    peers: BTreeMap<u32, PeerStats>,
    /// Left to the kernel, for whatever reason.
    passed: BTreeMap<u32, Count>,
}

impl Counted {
    /// Reads all at once: there can be very many.
    pub(super) fn read(counters: &Counters) -> kernel::Result<Self> {
        let mut passed: BTreeMap<u32, Count> = BTreeMap::new();
        for (key, count) in counters.passes_by_peer()? {
            let sum = passed.entry(key.slot).or_default();
            sum.packets += count.packets;
            sum.bytes += count.bytes;
        }
        Ok(Self {
            peers: counters.peers()?,
            passed,
        })
    }

    fn traffic(&self, slot: u32) -> Traffic {
        let stats = self.peers.get(&slot).copied().unwrap_or_default();
        let passed = self.passed.get(&slot).copied().unwrap_or_default();
        Traffic {
            tx_packets: stats.tx.packets,
            tx_bytes: stats.tx.bytes,
            rx_packets: stats.rx.packets,
            rx_bytes: stats.rx.bytes,
            passed_packets: passed.packets,
            passed_bytes: passed.bytes,
            dropped_packets: stats.dropped.packets,
            dropped_bytes: stats.dropped.bytes,
        }
    }
}

impl Reconciler {
    pub(super) fn peer_status(
        &self,
        network: &Network,
        peer: &Peer,
        counted: Option<&Counted>,
    ) -> PeerStatus {
        let vtep = peer.vtep;
        let way = self.observed.around.ways.get(&vtep);
        let slot = self
            .observed
            .objects
            .peers
            .entries
            .vteps
            .get(&(network.vni, vtep))
            .copied();
        PeerStatus {
            name: peer.name.clone(),
            vtep,
            mac: peer.mac,
            subnets: peer.subnets.clone(),
            dev: way.map(|way| way.link),
            via: way.map(|way| way.next_hop),
            next_hops: way.map(next_hops::of).unwrap_or_default(),
            slot,
            traffic: slot
                .zip(counted)
                .map(|(slot, counted)| counted.traffic(slot)),
            health: self.probes.health(network.vni, peer),
            encryption: None,
        }
    }
}

/// Traffic of the programs, with all peers together.
pub(super) fn carried(peers: &[PeerStatus]) -> PathCounts {
    let mut sum = PathCounts::default();
    for traffic in peers.iter().filter_map(|peer| peer.traffic.as_ref()) {
        sum.tx += Counter {
            packets: traffic.tx_packets,
            bytes: traffic.tx_bytes,
        };
        sum.rx += Counter {
            packets: traffic.rx_packets,
            bytes: traffic.rx_bytes,
        };
    }
    sum
}
