//! Slots of peers in the map of counters.
//!
//! A peer keeps its slot as long as it is there, so its counters go on over
//! restarts and changes; a slot that became free is given to the next new peer. It stands
//! in two maps, so that it is known even when somebody has changed or removed one.

use std::{collections::BTreeMap, mem, net::IpAddr};

use overlay_common::maps::{LOCAL_INDEX, MAX_PEERS};

use crate::{model::Vni, objects::PeerEntries};

pub(super) fn assign(kept: &PeerEntries, entries: &mut PeerEntries) {
    let in_subnets = slots_that_differ(kept);
    let mut taken = Taken::default();
    taken.insert(LOCAL_INDEX);
    for (peer, slot) in &mut entries.vteps {
        let candidates = [in_subnets.get(peer), kept.vteps.get(peer)];
        let mut candidates = candidates.into_iter().flatten();
        if let Some(&old) = candidates.find(|old| taken.insert(**old)) {
            *slot = old;
        }
    }
    let mut next = LOCAL_INDEX + 1;
    for slot in entries
        .vteps
        .values_mut()
        .filter(|slot| **slot == LOCAL_INDEX)
    {
        while (next as usize) < MAX_PEERS && !taken.insert(next) {
            next += 1;
        }
        *slot = next;
    }
    for ((vni, _), peer) in &mut entries.subnets {
        if let Some(&slot) = entries.vteps.get(&(*vni, peer.vtep)) {
            peer.index = slot;
        }
    }
}

/// The slots in the map of subnets that are others than in that of VTEPs.
fn slots_that_differ(entries: &PeerEntries) -> BTreeMap<(Vni, IpAddr), u32> {
    let slots = entries.subnets.iter();
    slots
        .map(|((vni, _), peer)| ((*vni, peer.vtep), peer.index))
        .filter(|(vtep, slot)| entries.vteps.get(vtep) != Some(slot))
        .collect()
}

/// Slots that somebody has.
#[derive(Default)]
struct Taken(Vec<bool>);

impl Taken {
    /// Whether a slot was free until now; none is that there cannot be.
    fn insert(&mut self, slot: u32) -> bool {
        let slot = slot as usize;
        if slot > MAX_PEERS {
            return false;
        }
        if self.0.len() <= slot {
            self.0.resize(slot + 1, false);
        }
        self.0
            .get_mut(slot)
            .is_some_and(|taken| !mem::replace(taken, true))
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, net::IpAddr};

    use super::assign;
    use crate::{model::Vni, objects::PeerEntries};

    #[test]
    fn peers_keep_their_slots_and_new_ones_fill_the_gaps() {
        let vni = Vni::try_from(1).unwrap();
        let peer = |last: u8| (vni, IpAddr::from([192, 168, 56, last]));
        let kept = PeerEntries {
            vteps: BTreeMap::from([(peer(3), 1), (peer(4), 3)]),
            ..PeerEntries::default()
        };
        let mut entries = PeerEntries::default();
        entries
            .vteps
            .extend([2, 3, 4, 5].map(|last| (peer(last), 0)));
        assign(&kept, &mut entries);
        let slots: Vec<u32> = entries.vteps.into_values().collect();
        assert_eq!(slots, [2, 1, 3, 4]);
    }
}
