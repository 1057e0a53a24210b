//! The kernel's path, and the peers as probes see them.

use std::{collections::BTreeMap, time::Duration};

use overlay_control::{
    Mesh, MeshPeer, PeerState,
    stats::{Counter, PathCounts, Stats},
};
use prometheus::proto::MetricType;

use super::export::{Page, gauge};

/// A number that a peer may have.
type Of = fn(&MeshPeer) -> Option<f64>;

impl Page {
    /// What the kernel's VXLAN devices carry, which the programs have left to them.
    pub(super) fn kernel(&mut self, stats: &Stats) {
        let of = |direction: fn(&PathCounts) -> Counter| -> Vec<_> {
            let networks = stats.networks.iter();
            let counts = networks.map(|network| {
                let labels = vec![("network", network.name.as_str())];
                (labels, direction(&network.kernel))
            });
            counts.collect()
        };
        let (tx, rx) = (of(|counts| counts.tx), of(|counts| counts.rx));
        self.counters(
            "overlay_kernel_transmit",
            "sent to peers by the kernel's VXLAN devices",
            &tx,
        );
        self.counters(
            "overlay_kernel_receive",
            "received from peers by the kernel's VXLAN devices",
            &rx,
        );
    }

    /// What probes have found out; nothing where none are sent. What is not known of a peer is not a number:
    /// a series that is missing would have no alert.
    pub(super) fn health(&mut self, mesh: &Mesh) {
        let asked = |peer: &&MeshPeer| peer.health.state != PeerState::NotAsked;
        let peers: Vec<&MeshPeer> = mesh.peers.iter().filter(asked).collect();
        let families: [(&str, &str, Of); 5] = [
            (
                "overlay_peer_up",
                "1 if the peer answers probes through the tunnel.",
                |peer| Some(f64::from(peer.health.state == PeerState::Answers)),
            ),
            (
                "overlay_peer_rtt_seconds",
                "Round trip of probes through the tunnel, smoothed.",
                |peer| Some(seconds(peer.health.rtt?.mean_ns)),
            ),
            (
                "overlay_peer_rtt_jitter_seconds",
                "Mean difference between one round trip and the next.",
                |peer| Some(seconds(peer.health.rtt?.jitter_ns)),
            ),
            (
                "overlay_peer_loss_ratio",
                "Share of the last 100 probes that were not answered.",
                |peer| {
                    let (asked, lost) = (peer.health.asked, peer.health.lost);
                    (asked > 0).then(|| f64::from(lost) / f64::from(asked))
                },
            ),
            (
                "overlay_peer_path_mtu_bytes",
                "Largest IP packet that arrives through the tunnel, found by trying.",
                |peer| peer.health.path_mtu.map(f64::from),
            ),
        ];
        for (name, help, of) in families {
            let metrics = peers.iter().map(|peer| {
                let labels = [
                    ("network", peer.network.as_str()),
                    ("peer", peer.name.as_str()),
                ];
                gauge(&labels, of(peer).unwrap_or(f64::NAN))
            });
            self.family(name, help, MetricType::GAUGE, metrics.collect());
        }
        let mtus = peers
            .iter()
            .filter_map(|peer| Some((peer.network.as_str(), peer.mtu?)));
        let mtus: BTreeMap<&str, u16> = mtus.collect();
        let metrics = mtus.into_iter();
        let metrics = metrics.map(|(network, mtu)| gauge(&[("network", network)], mtu.into()));
        self.family(
            "overlay_network_mtu_bytes",
            "Largest IP packet that is sent through the network.",
            MetricType::GAUGE,
            metrics.collect(),
        );
    }
}

fn seconds(nanoseconds: u64) -> f64 {
    Duration::from_nanos(nanoseconds).as_secs_f64()
}
