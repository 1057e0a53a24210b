//! Peers for tests.

use overlay_control::{
    Mesh, MeshPeer, PeerHealth, PeerState, ProbeMessages, ProbeStatus, RoundTrip,
};
use overlay_core::model::Probe;

/// A peer in some state whose round trips all take `ms`, with `lost` of a hundred questions.
pub(super) fn peer(name: &str, state: PeerState, ms: u64, lost: u32) -> MeshPeer {
    let ns = ms * 1_000_000;
    MeshPeer {
        network: "lab".parse().unwrap(),
        name: name.parse().unwrap(),
        mtu: Some(1450),
        health: PeerHealth {
            state,
            heard_age_ms: Some(1_000),
            answered_age_ms: Some(14_000),
            hears_this_node: Some(true),
            rtt: Some(RoundTrip {
                last_ns: ns,
                mean_ns: ns,
                min_ns: ns,
                jitter_ns: ns / 10,
            }),
            asked: 100,
            lost,
            path_mtu: Some(1450),
            agent: None,
        },
    }
}

/// A node that asks them every second.
pub(super) fn mesh(peers: Vec<MeshPeer>) -> Mesh {
    let mut mesh = Mesh {
        probe: ProbeStatus {
            mode: "1s".parse::<Probe>().unwrap(),
            interval_ms: Some(1_000),
            port: 14_789,
            messages: ProbeMessages::default(),
        },
        states: [].into(),
        peers,
    };
    for peer in &mesh.peers {
        *mesh.states.entry(peer.health.state).or_default() += 1;
    }
    mesh
}
