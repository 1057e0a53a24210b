//! Steps for the settings and peers of `WireGuard` devices.

use std::collections::BTreeSet;

use super::step::Step;
use crate::objects::{LinkId, Objects, Wireguard, WireguardPeer};

/// Before packets are sent by them.
pub(super) fn add(
    observed: &Objects,
    desired: &Objects,
    renewed: &BTreeSet<LinkId>,
    steps: &mut Vec<Step>,
) {
    let nothing = Wireguard::default();
    for (&link, wanted) in &desired.wireguard {
        let there = observed.wireguard.get(&link);
        let there = there.filter(|_| !renewed.contains(&LinkId::node(link)));
        let there = there.unwrap_or(&nothing);
        // A node without a key gets one with its first step.
        let has_key = there.public_key.is_some() && there.public_key == wanted.public_key;
        let is_set = has_key && there.port == wanted.port;
        if !is_set {
            steps.push(Step::SetWireguard {
                link,
                port: wanted.port,
                key: wanted.public_key,
            });
        }
        for key in stale(there, wanted) {
            // Addresses that it has to give back to another key go with it.
            steps.push(Step::DeleteWireguardPeer { link, key });
        }
        for (&key, peer) in &wanted.peers {
            let there = there.peers.get(&key).filter(|_| is_set);
            match there.filter(|there| does(there, peer)) {
                Some(there) if there.keepalive == peer.keepalive => {}
                // Whoever tells the kernel addresses anew takes them away for a moment.
                Some(_) => steps.push(Step::SetWireguardKeepalive {
                    link,
                    key,
                    seconds: peer.keepalive,
                }),
                None => steps.push(Step::SetWireguardPeer {
                    link,
                    key,
                    peer: peer.clone(),
                }),
            }
        }
    }
}

fn stale(there: &Wireguard, wanted: &Wireguard) -> impl Iterator<Item = crate::model::PublicKey> {
    let keys = there.peers.keys();
    keys.filter(|key| !wanted.peers.contains_key(*key)).copied()
}

/// Whether a peer has what it should have. Where it is heard from is its own business.
fn does(there: &WireguardPeer, wanted: &WireguardPeer) -> bool {
    there.allowed == wanted.allowed && there.endpoint.is_some()
}
