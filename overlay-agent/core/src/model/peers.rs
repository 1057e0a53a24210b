//! The peers of a network.

use std::{collections::BTreeSet, ops::Deref, sync::Arc};

use super::{Family, Peer};

/// A network's peers, in the order of the configuration.
///
/// There can be very many: a copy shares them, and what everything asks for is known.
#[derive(Clone, Debug, Default)]
pub struct Peers(Arc<List>);

#[derive(Debug, Default)]
struct List {
    peers: Vec<Peer>,
    vtep_families: BTreeSet<Family>,
    lengths: [BTreeSet<u8>; 2],
}

impl Peers {
    /// The families of their outer addresses.
    pub fn vtep_families(&self) -> &BTreeSet<Family> {
        &self.0.vtep_families
    }

    /// The lengths of their subnets' prefixes of a family.
    pub fn prefix_lengths(&self, family: Family) -> &BTreeSet<u8> {
        &self.0.lengths[family as usize]
    }
}

impl From<Vec<Peer>> for Peers {
    fn from(mut peers: Vec<Peer>) -> Self {
        peers.shrink_to_fit();
        let vtep_families = peers.iter().map(|peer| Family::of(peer.vtep)).collect();
        let mut lengths = <[BTreeSet<u8>; 2]>::default();
        for subnet in peers.iter().flat_map(|peer| &peer.subnets) {
            lengths[Family::of(subnet.addr()) as usize].insert(subnet.prefix_len());
        }
        Self(Arc::new(List {
            peers,
            vtep_families,
            lengths,
        }))
    }
}

impl Deref for Peers {
    type Target = [Peer];

    fn deref(&self) -> &[Peer] {
        &self.0.peers
    }
}

impl<'a> IntoIterator for &'a Peers {
    type Item = &'a Peer;
    type IntoIter = std::slice::Iter<'a, Peer>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl PartialEq for Peers {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.peers == other.0.peers
    }
}

impl Eq for Peers {}
