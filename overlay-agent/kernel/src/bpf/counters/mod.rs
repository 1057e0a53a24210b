//! The programs' counters, all CPUs together.

mod growth;

use std::{collections::BTreeMap, slice};

use aya::{
    Pod,
    maps::{IterableMap as _, MapData, MapError, PerCpuArray, PerCpuHashMap, PerCpuValues},
    util::nr_cpus,
};
use bytemuck::{
    CheckedBitPattern, NoUninit, checked, must_cast_slice, must_cast_slice_mut, pod_read_unaligned,
};
use overlay_common::{
    maps::{
        Count, DROPS, DROPS_BY_SENDER, ENDPOINT_STATS, EndpointStats, FORMER_SLOT, LOCAL_INDEX,
        PASSES, PASSES_BY_PEER, PEER_STATS, PassedKey, PeerStats, SenderKey, SenderKind,
    },
    programs::Program,
    reasons::{DropReason, Drops, PassReason, Passes},
};

use super::{
    batch::{Reader, Room},
    failure::failed,
    pins::Pins,
    table::open,
};
use crate::{KernelError, Result};

pub(super) use growth::{set_aside, slots};

/// A sender's key as it stands in the map, whoever has written it.
type RawKey = [u32; 3];

/// The maps of counters.
pub struct Counters {
    peers: PerCpuArray<MapData, PeerStats>,
    endpoints: PerCpuArray<MapData, EndpointStats>,
    drops: PerCpuArray<MapData, Drops>,
    drops_by_sender: PerCpuHashMap<MapData, RawKey, Count>,
    passes: PerCpuArray<MapData, Passes>,
    passes_by_peer: PerCpuHashMap<MapData, [u32; 2], Count>,
    /// From this slot of peers on nothing has ever been counted.
    unused_slots: Option<u32>,
}

impl Counters {
    pub(super) fn open(pins: &Pins) -> Result<Self> {
        Ok(Self {
            peers: open(pins, PEER_STATS)?,
            endpoints: open(pins, ENDPOINT_STATS)?,
            drops: open(pins, DROPS)?,
            drops_by_sender: open(pins, DROPS_BY_SENDER)?,
            passes: open(pins, PASSES)?,
            passes_by_peer: open(pins, PASSES_BY_PEER)?,
            unused_slots: None,
        })
    }

    /// How many peers can have counters, and this node itself.
    pub fn slots(&self) -> usize {
        self.peers.len() as usize
    }

    /// Traffic with the peer of a slot.
    pub fn peer(&self, slot: u32) -> Result<PeerStats> {
        read(&self.peers, PEER_STATS, slot)
    }

    /// Traffic with all peers with which there has been any, by slot.
    pub fn peers(&self) -> Result<BTreeMap<u32, PeerStats>> {
        read_all(&self.peers, PEER_STATS)
    }

    /// Traffic of an endpoint's slot.
    pub fn endpoint(&self, slot: u32) -> Result<EndpointStats> {
        read(&self.endpoints, ENDPOINT_STATS, slot)
    }

    /// Traffic of all endpoints, and of the node itself, that have had any, by slot.
    pub fn endpoints(&self) -> Result<BTreeMap<u32, EndpointStats>> {
        read_all(&self.endpoints, ENDPOINT_STATS)
    }

    /// A program's drops by reason.
    pub fn drops(&self, program: Program) -> Result<Drops> {
        read(&self.drops, DROPS, program as u32)
    }

    /// A program's passes by reason.
    pub fn passes(&self, program: Program) -> Result<Passes> {
        read(&self.passes, PASSES, program as u32)
    }

    /// Drops of which it is known who has sent the packets.
    pub fn drops_by_sender(&self) -> Result<BTreeMap<SenderKey, Count>> {
        read_rows(&self.drops_by_sender, DROPS_BY_SENDER)
    }

    /// Packets known to be a peer's that were left to the kernel.
    pub fn passes_by_peer(&self) -> Result<BTreeMap<PassedKey, Count>> {
        read_rows(&self.passes_by_peer, PASSES_BY_PEER)
    }

    /// Sets the counters of a peer's slot to 0.
    pub fn clear_peer(&mut self, slot: u32) -> Result<()> {
        if self.unused_slots.is_some_and(|unused| slot >= unused) {
            self.unused_slots = Some(slot + 1);
            return Ok(());
        }
        self.forget_passes(slot)?;
        let counted = self.peer(slot)?;
        if counted == PeerStats::default() {
            return Ok(());
        }
        if counted.dropped.packets > 0 {
            for reason in DropReason::ALL {
                self.take_drops(SenderKind::Peer, slot, *reason)?;
            }
        }
        self.set_peer(slot, of_all_cpus(PeerStats::default())?)
    }

    /// Sets the counters of an endpoint's slot to 0; what they were stays in the sums, as that of
    /// endpoints that are no more.
    pub fn clear_endpoint(&mut self, slot: u32) -> Result<()> {
        let counted = self.endpoint(slot)?;
        if counted == EndpointStats::default() {
            return Ok(());
        }
        if counted.dropped.packets > 0 {
            for reason in DropReason::ALL {
                let Some(drops) = self.take_drops(SenderKind::Endpoint, slot, *reason)? else {
                    continue;
                };
                self.add_former_drops(*reason, drops)?;
            }
        }
        let former = total(&[self.endpoint(FORMER_SLOT)?, counted]);
        self.set_endpoint(FORMER_SLOT, former)?;
        self.set_endpoint(slot, EndpointStats::default())
    }

    /// Notes that the counters are new: nobody has counted yet.
    pub(super) fn are_new(&mut self) {
        self.unused_slots = Some(LOCAL_INDEX + 1);
    }

    /// Sets the counters of a peer's slot, CPU by CPU.
    fn set_peer(&mut self, slot: u32, stats: PerCpuValues<PeerStats>) -> Result<()> {
        self.peers
            .set(slot, stats, 0)
            .map_err(|error| failed(format!("set slot {slot} of map {PEER_STATS}"), &error))
    }

    /// Sets the counters of an endpoint's slot.
    fn set_endpoint(&mut self, slot: u32, stats: EndpointStats) -> Result<()> {
        self.endpoints
            .set(slot, on_one_cpu(stats)?, 0)
            .map_err(|error| failed(format!("set slot {slot} of map {ENDPOINT_STATS}"), &error))
    }

    /// Removes what was left to the kernel of a peer, for whatever reason.
    fn forget_passes(&mut self, slot: u32) -> Result<()> {
        let operation = || format!("clear slot {slot} of map {PASSES_BY_PEER}");
        // Of most nodes all is taken: one call instead of one for each reason.
        if self.passes_by_peer.keys().next().is_none() {
            return Ok(());
        }
        for reason in PassReason::ALL {
            match self.passes_by_peer.remove(&[slot, *reason as u32]) {
                Ok(()) | Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(failed(operation(), &error)),
            }
        }
        Ok(())
    }

    /// Removes a sender's count of a reason.
    fn take_drops(
        &mut self,
        kind: SenderKind,
        slot: u32,
        reason: DropReason,
    ) -> Result<Option<Count>> {
        let key = raw(SenderKey { kind, slot, reason });
        let gone = |error: &MapError| matches!(error, MapError::KeyNotFound);
        let operation = || format!("clear slot {slot} of map {DROPS_BY_SENDER}");
        let counted = match self.drops_by_sender.get(&key, 0) {
            Err(error) if gone(&error) => return Ok(None),
            other => other.map_err(|error| failed(operation(), &error))?,
        };
        self.drops_by_sender
            .remove(&key)
            .map_err(|error| failed(operation(), &error))?;
        Ok(Some(total(&counted)))
    }

    fn add_former_drops(&mut self, reason: DropReason, drops: Count) -> Result<()> {
        let (kind, slot) = (SenderKind::Endpoint, FORMER_SLOT);
        let before = self.take_drops(kind, slot, reason)?.unwrap_or_default();
        let key = raw(SenderKey { kind, slot, reason });
        self.drops_by_sender
            .insert(key, on_one_cpu(total(&[before, drops]))?, 0)
            .map_err(|error| failed(format!("set a row of map {DROPS_BY_SENDER}"), &error))
    }
}

fn raw(key: SenderKey) -> RawKey {
    [key.kind as u32, key.slot, key.reason as u32]
}

fn read<V: Pod + bytemuck::Pod + Default>(
    map: &PerCpuArray<MapData, V>,
    name: &str,
    slot: u32,
) -> Result<V> {
    let cpus = map
        .get(&slot, 0)
        .map_err(|error| failed(format!("read slot {slot} of map {name}"), &error))?;
    Ok(total(&cpus))
}

/// The slots in which something has been counted.
fn read_all<V: Pod + bytemuck::Pod + Default + PartialEq>(
    map: &PerCpuArray<MapData, V>,
    name: &'static str,
) -> Result<BTreeMap<u32, V>> {
    // The kernel's values of a CPU start at multiples of 8, as ours do.
    let mut reader = Reader::new(name, size_of::<u32>(), size_of::<V>() * cpus()?);
    let mut room = Room::default();
    let mut found = BTreeMap::new();
    loop {
        let ended = reader.read_on(map.map(), &mut room, |slot, value| {
            if value.iter().any(|byte| *byte != 0) {
                let cpus = value.chunks_exact(size_of::<V>()).map(pod_read_unaligned);
                let cpus: Vec<V> = cpus.collect();
                found.insert(pod_read_unaligned(slot), total(&cpus));
            }
        })?;
        if ended {
            return Ok(found);
        }
    }
}

/// Counts by key, whoever has written the keys.
fn read_rows<R: Pod + NoUninit, K: CheckedBitPattern + Ord>(
    map: &PerCpuHashMap<MapData, R, Count>,
    name: &str,
) -> Result<BTreeMap<K, Count>> {
    let mut found = BTreeMap::new();
    for row in map {
        let (key, cpus) = row.map_err(|error| failed(format!("read map {name}"), &error))?;
        // What the programs cannot have written is left alone.
        if let Ok(key) = checked::try_cast(key) {
            found.insert(key, total(&cpus));
        }
    }
    Ok(found)
}

/// The sum of values that consist of counts alone.
fn total<V: bytemuck::Pod + Default>(values: &[V]) -> V {
    let mut total = V::default();
    for value in values {
        let sums: &mut [u64] = must_cast_slice_mut(slice::from_mut(&mut total));
        let counts: &[u64] = must_cast_slice(slice::from_ref(value));
        for (sum, count) in sums.iter_mut().zip(counts) {
            *sum += count;
        }
    }
    total
}

fn cpus() -> Result<usize> {
    nr_cpus().map_err(|(_, error)| KernelError::io("count the CPUs", &error))
}

/// The same value for each CPU.
fn of_all_cpus<V: Pod>(value: V) -> Result<PerCpuValues<V>> {
    per_cpu(vec![value; cpus()?])
}

/// A sum, on one CPU.
fn on_one_cpu<V: Pod + Default>(value: V) -> Result<PerCpuValues<V>> {
    let mut values = vec![V::default(); cpus()?];
    if let Some(first) = values.first_mut() {
        *first = value;
    }
    per_cpu(values)
}

fn per_cpu<V: Pod>(values: Vec<V>) -> Result<PerCpuValues<V>> {
    PerCpuValues::try_from(values).map_err(|error| KernelError::io("count the CPUs", &error))
}
