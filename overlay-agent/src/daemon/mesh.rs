//! How the peers are, for those who ask for no more than that.

use std::cmp::Reverse;

use overlay_control::{Mesh, MeshPeer, PeerHealth, PeerState};
use overlay_core::model::{Network, Peer};

use super::Reconciler;

impl Reconciler {
    /// How many peers are in each state, and the worst of them.
    pub(super) fn mesh(&self, most: usize) -> Mesh {
        let mut mesh = Mesh {
            probe: self.probes.status(),
            states: [].into(),
            peers: Vec::new(),
        };
        let health = |(network, peer): (&Network, &Peer)| self.probes.health(network.vni, peer);
        let networks = self.model.networks.iter();
        let peers =
            networks.flat_map(|network| network.peers.iter().map(move |peer| (network, peer)));
        // There can be very many: what is known of each is not kept.
        let mut order = Vec::new();
        for peer in peers {
            let Some(known) = health(peer) else { continue };
            *mesh.states.entry(known.state).or_default() += 1;
            order.push((Reverse(urgency(peer.1, &known)), peer));
        }
        order.sort_by_key(|(urgency, _)| *urgency);
        let worst = order.into_iter().take(most).map(|(_, peer)| peer);
        mesh.peers = worst
            .filter_map(|(network, peer)| {
                Some(MeshPeer {
                    network: network.name.clone(),
                    name: peer.name.clone(),
                    mtu: self.facts.mtus.get(&network.name).copied(),
                    health: health((network, peer))?,
                })
            })
            .collect();
        mesh
    }
}

/// How much somebody should look at a peer: lost ones first, then those that lose packets, then
/// those that are far away; those that nothing is known of come last.
fn urgency(peer: &Peer, health: &PeerHealth) -> (u8, u32, u64) {
    let state = match health.state {
        state if state.is_lost() => 2,
        PeerState::NoAgent if peer.has_agent => 2,
        PeerState::Answers => 1,
        _ => 0,
    };
    let rtt = health.rtt.map_or(0, |rtt| rtt.mean_ns);
    (state, health.loss_percent().unwrap_or(0), rtt)
}
