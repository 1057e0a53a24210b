//! Another key of a node, without a packet lost: a second device beside the first one while it comes.
//!
//! ```text
//!              ovlwgVNI                      ovlwgnVNI
//! before       keys of now                   –
//! a key comes  keys of now                   the next keys, of who has one; else those of now
//!              sends until the other has agreed on keys with the peer, then that one does
//! it is there  keys of now, which were next  the same as before
//!              has agreed with the peer and sends again
//! after        keys of now                   goes when nothing has come by it for a while
//! ```
//!
//! Both ends follow the same rules and need not do so at once: each receives by both devices as long as there
//! are two, and sends by one only while the peer knows the keys there. So nothing is remembered: all follows
//! from the keys that are known and from what the kernel has agreed on.

use std::{collections::BTreeSet, net::IpAddr};

use super::{Node, names, wireguard};
use crate::{
    model::{IfName, Network, Peer, PublicKey},
    objects::Wireguard,
};

/// Seconds. Without a packet nobody agrees on keys; and a device by which they come is not silent.
const KEEPALIVE: u16 = 3;

/// The second device.
pub(super) struct Second {
    pub(super) device: IfName,
    /// The peers whose packets go by it.
    pub(super) carries: BTreeSet<IpAddr>,
}

/// The second device of a network, if a key of its changes, or has just changed.
pub(super) fn second(node: &Node<'_>, network: &Network) -> Option<Second> {
    network.wireguard?;
    let first = names::wireguard_name(network.vni)?;
    let device = names::second_wireguard_name(network.vni)?;
    let around = node.around;
    let going = network.peers.iter().filter(|peer| {
        let here = next(peer).is_some_and(|key| {
            let own = around.next_public_key.or(around.public_key);
            has_agreed(node, device, own, key)
        });
        let there = peer
            .public_key
            .as_deref()
            .is_some_and(|key| has_agreed(node, first, around.public_key, *key));
        here && (changes(node, peer) || !there)
    });
    let carries: BTreeSet<IpAddr> = going.map(|peer| peer.vtep).collect();
    let is_there = around.links.get(&device).is_some_and(|link| link.ours);
    let in_use = is_there && (!carries.is_empty() || !around.silent.contains(&device));
    let wanted = in_use || network.peers.iter().any(|peer| changes(node, peer));
    wanted.then_some(Second { device, carries })
}

/// Whether the key of one of the two ends is about to change.
fn changes(node: &Node<'_>, peer: &Peer) -> bool {
    peer.next_public_key.is_some() || node.around.next_public_key.is_some()
}

/// The key that a peer has on the second device.
fn next(peer: &Peer) -> Option<PublicKey> {
    let next = peer.next_public_key.as_deref();
    next.or(peer.public_key.as_deref()).copied()
}

/// Whether a device with this key has agreed with a peer on what to encrypt with.
fn has_agreed(node: &Node<'_>, device: IfName, own: Option<PublicKey>, peer: PublicKey) -> bool {
    let settings = node.inputs.observed.objects.wireguard.get(&device);
    let agreed = node.around.agreed.get(&device);
    settings.is_some_and(|settings| own.is_some() && settings.public_key == own)
        && agreed.is_some_and(|agreed| agreed.contains(&peer))
}

impl Second {
    /// Its key, its port and its peers: those with whom something changes, or has.
    pub(super) fn settings(&self, node: &Node<'_>, network: &Network, port: u16) -> Wireguard {
        let own = node.around.next_public_key.or(node.around.public_key);
        let there = node.inputs.observed.objects.wireguard.get(&self.device);
        let known = |key: &PublicKey| there.is_some_and(|there| there.peers.contains_key(key));
        let peers = network.peers.iter().filter_map(|peer| {
            let key = next(peer).filter(|key| own != Some(*key))?;
            let is_in_use = changes(node, peer) || self.carries.contains(&peer.vtep);
            let keepalive = if is_in_use { KEEPALIVE } else { 0 };
            (is_in_use || known(&key)).then(|| (key, wireguard::inside(peer, port, keepalive)))
        });
        Wireguard {
            public_key: own,
            port,
            peers: peers.collect(),
        }
    }

    /// What has the first device agree on new keys with a peer, whose packets it is to take over.
    pub(super) fn keepalive_of_first(&self, node: &Node<'_>, peer: &Peer) -> u16 {
        if self.carries.contains(&peer.vtep) && !changes(node, peer) {
            KEEPALIVE
        } else {
            0
        }
    }
}
