//! The layout of each map. Aya reuses a pinned map without looking at it.

use aya::maps::{MapInfo, MapType};
use overlay_common::{
    maps::{
        AddressKey4, AddressKey6, CIDRS, CidrKey, Count, DROPS, DROPS_BY_SENDER, ENDPOINT_STATS,
        ENDPOINTS4, ENDPOINTS6, ENTERED, Endpoint, EndpointStats, FLOWS, FLOWS_IN_USE, FlowKey,
        MAX_CIDRS, MAX_ENDPOINT_SLOTS, MAX_ENDPOINTS, MAX_ENTERED, MAX_FLOWS, MAX_NETWORKS,
        MAX_PEERS, MAX_PORTS, MAX_SENDERS, MAX_SOURCES, NETWORKS, Network, PASSES, PASSES_BY_PEER,
        PEER_STATS, PEERS4, PEERS6, PORTS, PassedKey, Peer, PeerStats, Port, PrefixKey4,
        PrefixKey6, SOURCES, SenderKey, SourceKey, VTEPS4, VTEPS6, Vtep,
    },
    programs::Program,
    reasons::{Drops, Passes},
};

use super::{
    failure::failed,
    made::{Notes, in_the_way},
    pins::Pins,
};
use crate::{KernelError, Result, hooks};

/// A map of the ABI; sizes in bytes.
pub(super) struct MapSpec {
    pub(super) name: &'static str,
    kind: MapType,
    pub(super) key: usize,
    pub(super) value: usize,
    entries: usize,
}

impl MapSpec {
    /// How many entries it has when it is made: fewer than there can be, where a test asks for
    /// it.
    pub(super) fn entries(&self) -> usize {
        let asked = hooks::map_entries(self.name);
        asked.map_or(self.entries, |asked| asked.clamp(1, self.entries))
    }

    const fn hash<K, V>(name: &'static str, entries: usize) -> Self {
        Self {
            name,
            kind: MapType::Hash,
            key: size_of::<K>(),
            value: size_of::<V>(),
            entries,
        }
    }

    const fn trie<K, V>(name: &'static str, entries: usize) -> Self {
        Self {
            name,
            kind: MapType::LpmTrie,
            // The length of the prefix comes first.
            key: size_of::<u32>() + size_of::<K>(),
            value: size_of::<V>(),
            entries,
        }
    }

    const fn counters<V>(name: &'static str, entries: usize) -> Self {
        let key = size_of::<u32>();
        Self {
            name,
            kind: MapType::PerCpuArray,
            key,
            value: size_of::<V>(),
            entries,
        }
    }

    const fn counters_by<K, V>(name: &'static str, entries: usize) -> Self {
        Self {
            name,
            kind: MapType::PerCpuHash,
            key: size_of::<K>(),
            value: size_of::<V>(),
            entries,
        }
    }

    const fn lru<K, V>(name: &'static str, entries: usize) -> Self {
        Self {
            name,
            kind: MapType::LruHash,
            key: size_of::<K>(),
            value: size_of::<V>(),
            entries,
        }
    }

    const fn array<V>(name: &'static str, entries: usize) -> Self {
        Self {
            name,
            kind: MapType::Array,
            key: size_of::<u32>(),
            value: size_of::<V>(),
            entries,
        }
    }

    /// Whether it counts.
    pub(super) fn is_counters(&self) -> bool {
        matches!(self.kind, MapType::PerCpuArray | MapType::PerCpuHash)
    }

    /// Whether the programs write to it, and we do not.
    pub(super) fn is_theirs(&self) -> bool {
        self.is_counters() || matches!(self.kind, MapType::LruHash | MapType::Array)
    }

    /// Whether such a map is pinned; another one there is an error.
    pub(super) fn is_pinned(&self, pins: &Pins) -> Result<bool> {
        let path = &pins.map(self.name);
        let operation = || format!("reuse map {}", path.display());
        let found = match MapInfo::from_pin(path) {
            Ok(found) => found,
            Err(error) => {
                let error = failed(operation(), &error);
                return if error.not_there() {
                    Ok(false)
                } else {
                    Err(error)
                };
            }
        };
        if !Notes(pins).is_ours(hooks::abi(), self.name) {
            return Err(in_the_way(operation(), pins, path));
        }
        let kind = found
            .map_type()
            .map_err(|error| failed(operation(), &error))?;
        let size = |bytes: u32| bytes as usize;
        let is = (
            size(found.key_size()),
            size(found.value_size()),
            size(found.max_entries()),
        );
        // Counters have as many slots as were needed when they were made.
        let entries = if self.name == PEER_STATS {
            is.2
        } else {
            self.entries()
        };
        let must_be = (self.key, self.value, entries);
        if kind == self.kind && is == must_be {
            return Ok(true);
        }
        let cause = format!(
            "it is a {kind:?} of key, value and number {is:?}, not a {:?} of {must_be:?}",
            self.kind
        );
        Err(KernelError::new(operation(), cause)
            .with_cure("remove what another build has left: overlay-agent down"))
    }
}

/// Every map of the ABI.
pub(super) static MAPS: [MapSpec; 19] = [
    MapSpec::hash::<u32, Network>(NETWORKS, MAX_NETWORKS),
    MapSpec::hash::<PrefixKey4, Peer>(PEERS4, MAX_PEERS),
    MapSpec::hash::<PrefixKey6, Peer>(PEERS6, MAX_PEERS),
    MapSpec::hash::<AddressKey4, Vtep>(VTEPS4, MAX_PEERS),
    MapSpec::hash::<AddressKey6, Vtep>(VTEPS6, MAX_PEERS),
    MapSpec::hash::<AddressKey4, Endpoint>(ENDPOINTS4, MAX_ENDPOINTS),
    MapSpec::hash::<AddressKey6, Endpoint>(ENDPOINTS6, MAX_ENDPOINTS),
    MapSpec::hash::<u32, Port>(PORTS, MAX_PORTS),
    MapSpec::trie::<SourceKey, u32>(SOURCES, MAX_SOURCES),
    MapSpec::trie::<CidrKey, u32>(CIDRS, MAX_CIDRS),
    // Slot 0 is nobody's: it counts deliveries on this node.
    MapSpec::counters::<PeerStats>(PEER_STATS, MAX_PEERS + 1),
    MapSpec::counters::<EndpointStats>(ENDPOINT_STATS, MAX_ENDPOINT_SLOTS),
    MapSpec::counters::<Drops>(DROPS, Program::ALL.len()),
    MapSpec::counters_by::<SenderKey, Count>(DROPS_BY_SENDER, MAX_SENDERS),
    MapSpec::counters::<Passes>(PASSES, Program::ALL.len()),
    MapSpec::counters_by::<PassedKey, Count>(PASSES_BY_PEER, MAX_SENDERS),
    MapSpec::lru::<FlowKey, u32>(FLOWS, MAX_FLOWS),
    MapSpec::lru::<FlowKey, u64>(ENTERED, MAX_ENTERED),
    MapSpec::array::<u32>(FLOWS_IN_USE, 1),
];

/// How many entries a map takes.
pub(super) fn capacity(map: &str) -> usize {
    let spec = MAPS.iter().find(|spec| spec.name == map);
    spec.map_or(0, MapSpec::entries)
}

#[cfg(test)]
mod tests {
    use overlay_core::objects;

    use super::MAPS;

    #[test]
    fn each_map_is_one_whose_pin_is_looked_after() {
        assert_eq!(MAPS.each_ref().map(|map| map.name), objects::MAPS);
    }
}
