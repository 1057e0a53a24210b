//! Slots of peers in the map of counters.
//!
//! A peer keeps its slot as long as it is there, so its counters go on over
//! restarts and changes; a slot that became free is given to the next new peer. It stands
//! in two maps, so that it is known even when somebody has changed or removed one.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use overlay_common::maps::{LOCAL_INDEX, MAX_PEERS};

use crate::{model::Vni, objects::Entries};

pub(super) fn assign(kept: &Entries, entries: &mut Entries) {
    let in_peers = slots_that_differ(kept);
    let mut taken = BTreeSet::from([LOCAL_INDEX]);
    for (peer, slot) in &mut entries.vteps {
        let candidates = [in_peers.get(peer), kept.vteps.get(peer)];
        let usable = |old: &&u32| !taken.contains(*old) && **old as usize <= MAX_PEERS;
        if let Some(&old) = candidates.into_iter().flatten().find(usable) {
            *slot = old;
            taken.insert(old);
        }
    }
    let mut next = LOCAL_INDEX + 1;
    for slot in entries
        .vteps
        .values_mut()
        .filter(|slot| **slot == LOCAL_INDEX)
    {
        while taken.contains(&next) {
            next += 1;
        }
        *slot = next;
        next += 1;
    }
    for ((vni, _), peer) in &mut entries.peers {
        if let Some(&slot) = entries.vteps.get(&(*vni, peer.vtep)) {
            peer.index = slot;
        }
    }
}

/// The slots in the map of peers that are others than in that of VTEPs.
fn slots_that_differ(entries: &Entries) -> BTreeMap<(Vni, IpAddr), u32> {
    let slots = entries.peers.iter();
    slots
        .map(|((vni, _), peer)| ((*vni, peer.vtep), peer.index))
        .filter(|(vtep, slot)| entries.vteps.get(vtep) != Some(slot))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, net::IpAddr};

    use super::assign;
    use crate::{model::Vni, objects::Entries};

    #[test]
    fn peers_keep_their_slots_and_new_ones_fill_the_gaps() {
        let vni = Vni::try_from(1).unwrap();
        let peer = |last: u8| (vni, IpAddr::from([192, 168, 56, last]));
        let kept = Entries {
            vteps: BTreeMap::from([(peer(3), 1), (peer(4), 3)]),
            ..Entries::default()
        };
        let mut entries = Entries::default();
        entries
            .vteps
            .extend([2, 3, 4, 5].map(|last| (peer(last), 0)));
        assign(&kept, &mut entries);
        let slots: Vec<u32> = entries.vteps.into_values().collect();
        assert_eq!(slots, [2, 1, 3, 4]);
    }
}
