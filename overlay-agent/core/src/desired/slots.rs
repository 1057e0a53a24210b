//! Slots of peers and endpoints in the maps of counters.
//!
//! Everybody keeps a slot as long as they are there, so their counters go on over restarts and
//! changes; a slot that became free is given to the next who is new. It stands in several rows, so
//! that it is known even when somebody has changed or removed one.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    net::IpAddr,
};

use overlay_common::maps::{FIRST_ENDPOINT_SLOT, LOCAL_INDEX, MAX_ENDPOINT_SLOTS, MAX_PEERS};

use crate::{
    ascending::Ascending,
    model::Vni,
    objects::{Entries, PeerEntries, PeerEntry},
};

/// The identity of a peer: its network and outer address.
type PeerKey = (Vni, IpAddr);

/// Gives each endpoint a slot; those for which there is none count as the node itself.
pub(super) fn assign_to_endpoints(kept: &Entries, entries: &mut Entries) {
    let links = entries.endpoint_links();
    let mut taken = Taken::new(MAX_ENDPOINT_SLOTS);
    let mut new = Vec::new();
    for (link, addresses) in links {
        let slot = kept
            .slots_of(link, &addresses)
            .find(|slot| taken.insert(*slot));
        match slot {
            Some(slot) => entries.set_slot(link, &addresses, slot),
            None => new.push((link, addresses)),
        }
    }
    // Those who leave count on until they are gone: their slots come last.
    let mut leaving = Taken::new(MAX_ENDPOINT_SLOTS);
    for slot in kept.slots_in_use() {
        leaving.insert(slot);
    }
    let all = FIRST_ENDPOINT_SLOT..u32::try_from(MAX_ENDPOINT_SLOTS).unwrap_or(u32::MAX);
    let first = all.clone().filter(|slot| !leaving.has(*slot));
    let later = all.filter(|slot| leaving.has(*slot));
    let mut free = first.chain(later);
    for (link, addresses) in new {
        if let Some(slot) = free.find(|slot| taken.insert(*slot)) {
            entries.set_slot(link, &addresses, slot);
        }
    }
}

/// Gives each peer, known by its VTEP, a slot.
pub(super) fn assign_to_peers(kept: &PeerEntries, vteps: &mut [(PeerKey, u32)]) {
    let mut in_order: Vec<&mut (PeerKey, u32)> = vteps.iter_mut().collect();
    in_order.sort_by_key(|(peer, _)| *peer);
    let mut taken = Taken::new(MAX_PEERS + 1);
    taken.insert(LOCAL_INDEX);
    let in_subnets = slots_that_differ(kept);
    let (mut in_subnets, mut in_vteps) = (Ascending::of(&in_subnets), Ascending::of(&kept.vteps));
    for (peer, slot) in &mut in_order {
        let candidates = [in_subnets.get(peer), in_vteps.get(peer)];
        let mut candidates = candidates.into_iter().flatten();
        if let Some(&old) = candidates.find(|old| taken.insert(**old)) {
            *slot = old;
        }
    }
    fill(in_order, &mut taken);
}

/// Gives some peers slots, among all that stay as they are.
pub(super) fn assign_to_some_peers(
    all: &BTreeMap<PeerKey, u32>,
    gone: &BTreeSet<PeerKey>,
    come: &mut [(PeerKey, u32)],
) {
    let mut taken = Taken::new(MAX_PEERS + 1);
    taken.insert(LOCAL_INDEX);
    for (_, slot) in all.iter().filter(|(peer, _)| !gone.contains(peer)) {
        taken.insert(*slot);
    }
    let mut in_order: Vec<&mut (PeerKey, u32)> = come.iter_mut().collect();
    in_order.sort_by_key(|(peer, _)| *peer);
    for (peer, slot) in &mut in_order {
        if let Some(&old) = all.get(peer).filter(|old| taken.insert(**old)) {
            *slot = old;
        }
    }
    fill(in_order, &mut taken);
}

/// Gives those without a slot the first that are free.
fn fill(peers: Vec<&mut (PeerKey, u32)>, taken: &mut Taken) {
    let mut next = LOCAL_INDEX + 1;
    for (_, slot) in peers {
        if *slot != LOCAL_INDEX {
            continue;
        }
        while (next as usize) < MAX_PEERS && !taken.insert(next) {
            next += 1;
        }
        *slot = next;
    }
}

/// The slots in the map of subnets that are others than in that of VTEPs.
fn slots_that_differ(entries: &PeerEntries) -> BTreeMap<PeerKey, u32> {
    let subnets = entries.subnets.iter();
    let slot = |((vni, _), peer): (&(Vni, _), &PeerEntry)| ((*vni, peer.vtep), peer.index);
    let mut slots: Vec<(PeerKey, u32)> = subnets.map(slot).collect();
    slots.sort();
    let mut in_vteps = Ascending::of(&entries.vteps);
    slots.retain(|(peer, slot)| in_vteps.get(peer) != Some(slot));
    slots.into_iter().collect()
}

/// Slots that somebody has, of so many.
struct Taken(Vec<bool>);

impl Taken {
    fn new(slots: usize) -> Self {
        Self(vec![false; slots])
    }

    fn has(&self, slot: u32) -> bool {
        self.0.get(slot as usize).copied().unwrap_or_default()
    }

    /// Whether a slot was free until now; none is that there cannot be.
    fn insert(&mut self, slot: u32) -> bool {
        self.0
            .get_mut(slot as usize)
            .is_some_and(|taken| !mem::replace(taken, true))
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, net::IpAddr};

    use bytemuck::Zeroable as _;
    use overlay_common::maps::{Network, Port};

    use super::{assign_to_endpoints, assign_to_peers};
    use crate::{
        model::Vni,
        objects::{EndpointEntry, Entries, LinkRef, PeerEntries},
    };

    fn vni() -> Vni {
        Vni::try_from(1).unwrap()
    }

    #[test]
    fn peers_keep_their_slots_and_new_ones_fill_the_gaps() {
        let peer = |last: u8| (vni(), IpAddr::from([192, 168, 56, last]));
        let kept = PeerEntries {
            vteps: BTreeMap::from([(peer(3), 1), (peer(4), 3)]),
            ..PeerEntries::default()
        };
        let mut vteps = [5, 3, 2, 4].map(|last| (peer(last), 0));
        assign_to_peers(&kept, &mut vteps);
        assert_eq!(vteps.map(|(_, slot)| slot), [4, 1, 2, 3]);
    }

    /// Endpoints, each with its device, the last byte of its address, and its slot.
    fn endpoints<const N: usize>(of: [(LinkRef, u8, u32); N]) -> Entries {
        let mut entries = Entries::default();
        for (link, last, slot) in of {
            let entry = EndpointEntry {
                network: Network::zeroed(),
                link,
                slot,
                mac: "02:45:0a:f4:01:02".parse().unwrap(),
                forwarding: false,
                hooked: false,
            };
            let port = Port {
                slot,
                ..Port::zeroed()
            };
            let key = (vni(), IpAddr::from([10, 244, 1, last]));
            entries.endpoints.insert(key, entry);
            entries.ports.insert(link, port);
        }
        entries
    }

    fn link(name: &str) -> LinkRef {
        LinkRef::Name(name.parse().unwrap())
    }

    /// The slots of endpoints by their devices' order; the rows of each agree.
    fn assigned(kept: &Entries, mut entries: Entries) -> Vec<u32> {
        assign_to_endpoints(kept, &mut entries);
        for entry in entries.endpoints.values() {
            assert_eq!(entries.ports[&entry.link].slot, entry.slot);
        }
        entries.ports.values().map(|port| port.slot).collect()
    }

    #[test]
    fn endpoints_keep_their_slots_also_on_a_new_device() {
        let kept = endpoints([(link("a"), 2, 3), (LinkRef::Gone(7), 3, 2)]);
        let wanted = || endpoints([(link("a"), 2, 0), (link("b"), 3, 0), (link("c"), 4, 0)]);
        assert_eq!(assigned(&kept, wanted()), [3, 2, 4]);
        let mut damaged = kept.clone();
        damaged.ports.clear();
        assert_eq!(assigned(&damaged, wanted()), [3, 2, 4]);
        let mut damaged = kept;
        damaged.endpoints.clear();
        assert_eq!(assigned(&damaged, wanted())[0], 3);
    }

    #[test]
    fn a_new_endpoint_does_not_get_the_slot_of_one_that_still_counts() {
        let kept = endpoints([(link("a"), 2, 2)]);
        // The same address on another device: it is another endpoint.
        assert_eq!(assigned(&kept, endpoints([(link("b"), 2, 0)])), [3]);
        assert_eq!(
            assigned(&Entries::default(), endpoints([(link("b"), 2, 0)])),
            [2]
        );
    }

    #[test]
    fn slots_that_are_none_are_not_kept() {
        for foreign in [0, 1, 5_000, u32::MAX] {
            let kept = endpoints([(link("a"), 2, foreign)]);
            assert_eq!(assigned(&kept, endpoints([(link("a"), 2, 0)])), [2]);
        }
    }
}
