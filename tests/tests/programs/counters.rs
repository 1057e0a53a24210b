//! What a node has counted, and what moved between two moments.

use std::collections::BTreeMap;

use aya::{
    Ebpf,
    maps::{PerCpuArray, PerCpuHashMap},
};
use bytemuck::{CheckedBitPattern, checked};
use overlay_common::{
    maps::{
        Count, DROPS, DROPS_BY_SENDER, ENDPOINT_STATS, EndpointStats, LOCAL_INDEX, PASSES,
        PASSES_BY_PEER, PEER_STATS, PassedKey, PeerStats, SenderKey,
    },
    programs::Program,
    reasons::{DropReason, Drops, PassReason, Passes},
};

/// Slots of `PEER_STATS` that are in use: this node's and the peers'.
const SLOTS: u32 = 6;
/// Slots of `ENDPOINT_STATS` that are in use: those that are no endpoint's, and the endpoints'.
const ENDPOINT_SLOTS: u32 = 5;

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Encapsulated to the peer with this index.
    To(u32),
    /// Decapsulated from the peer with this index.
    From(u32),
    /// Delivered to another endpoint here.
    Local,
    /// Left to the kernel.
    Pass(PassReason),
    /// Dropped, and charged to the peer with this index.
    Drop(DropReason, Option<u32>),
}

/// Counters at one moment; peers in the order of their index.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Counters {
    /// Of all programs together,
    drops: Vec<Count>,
    passes: Vec<Count>,
    /// and packets by program: drops and passes.
    exits: Vec<u64>,
    tx: Vec<Count>,
    rx: Vec<Count>,
    dropped: Vec<Count>,
    endpoints: BTreeMap<(u32, &'static str), Count>,
    senders: BTreeMap<SenderKey, Count>,
    passed: BTreeMap<PassedKey, Count>,
}

impl Counters {
    /// All counters, summed over the CPUs.
    pub(crate) fn of(ebpf: &Ebpf) -> Self {
        let programs = || Program::ALL.into_iter().map(|program| program as u32);
        let drops: Vec<_> = programs()
            .map(|slot| per_cpu::<Drops>(ebpf, DROPS, slot))
            .collect();
        let passes: Vec<_> = programs()
            .map(|slot| per_cpu::<Passes>(ebpf, PASSES, slot))
            .collect();
        let drops_of = |drops: &[Drops]| -> Vec<Count> {
            let reasons = DropReason::ALL.iter();
            reasons
                .map(|&reason| sum(drops.iter().map(|drops| drops.of(reason))))
                .collect()
        };
        let passes_of = |passes: &[Passes]| -> Vec<Count> {
            let reasons = PassReason::ALL.iter();
            reasons
                .map(|&reason| sum(passes.iter().map(|passes| passes.of(reason))))
                .collect()
        };
        let exits = drops.iter().zip(&passes).map(|(drops, passes)| {
            let counts = [drops_of(drops), passes_of(passes)];
            counts.iter().flatten().map(|count| count.packets).sum()
        });
        let peers: Vec<_> = (0..SLOTS)
            .map(|index| per_cpu::<PeerStats>(ebpf, PEER_STATS, index))
            .collect();
        let all = |count: fn(&PeerStats) -> Count| {
            peers
                .iter()
                .map(|stats| sum(stats.iter().map(count)))
                .collect()
        };
        Self {
            exits: exits.collect(),
            drops: drops_of(&drops.concat()),
            passes: passes_of(&passes.concat()),
            tx: all(|stats| stats.tx),
            rx: all(|stats| stats.rx),
            dropped: all(|stats| stats.dropped),
            endpoints: endpoints(ebpf),
            senders: by_key::<[u32; 3], _>(ebpf, DROPS_BY_SENDER),
            passed: by_key::<[u32; 2], _>(ebpf, PASSES_BY_PEER),
        }
    }

    /// The programs that have dropped or passed a packet since another moment.
    pub(crate) fn programs_since(&self, before: &Self) -> Vec<&'static str> {
        let counts = Program::ALL
            .iter()
            .zip(before.exits.iter().zip(&self.exits));
        counts
            .filter(|(_, (before, after))| before != after)
            .map(|(program, _)| program.name())
            .collect()
    }

    /// The counters of endpoints that counted a packet since another moment, with its bytes.
    pub(crate) fn endpoints_since(&self, before: &Self) -> Vec<(u32, &'static str, u64)> {
        let (before, after) = (before.endpoints.values(), self.endpoints.values());
        let moved = before
            .zip(after)
            .map(|(before, after)| bytes(*before, *after));
        let moved = self.endpoints.keys().zip(moved);
        moved
            .filter_map(|(&(slot, counter), bytes)| Some((slot, counter, bytes?)))
            .collect()
    }

    /// The senders under whom a drop was counted since another moment, with its bytes.
    pub(crate) fn senders_since(&self, before: &Self) -> Vec<(SenderKey, u64)> {
        let senders = self.senders.iter().map(|(key, &after)| {
            let before = before.senders.get(key).copied().unwrap_or_default();
            Some((*key, bytes(before, after)?))
        });
        senders.flatten().collect()
    }

    /// The peer of which a packet was left to the kernel since another moment, if it is known to be a
    /// peer's, with the reason and its bytes.
    pub(crate) fn passed_since(&self, before: &Self) -> Vec<(PassedKey, u64)> {
        let passed = self.passed.iter().map(|(key, &after)| {
            let before = before.passed.get(key).copied().unwrap_or_default();
            Some((*key, bytes(before, after)?))
        });
        passed.flatten().collect()
    }

    /// Packets that were sent on, passed and dropped.
    pub(crate) fn packets(&self) -> u64 {
        [&self.drops, &self.passes, &self.tx, &self.rx]
            .into_iter()
            .flatten()
            .map(|count| count.packets)
            .sum()
    }

    /// The ways out that were taken since another moment by at most one packet each, with
    /// the bytes that were counted.
    pub(crate) fn since(&self, before: &Self) -> Vec<(Outcome, u64)> {
        let charged: Vec<_> = (0..)
            .zip(moved(&before.dropped, &self.dropped))
            .filter_map(|(index, bytes)| bytes.map(|bytes| (index, bytes)))
            .collect();
        assert!(
            charged.len() <= 1,
            "charged to more than one peer: {charged:?}"
        );
        let peer = charged.first().map(|&(index, _)| index);
        let left = PassReason::ALL
            .iter()
            .zip(moved(&before.passes, &self.passes))
            .map(|(&reason, bytes)| (Outcome::Pass(reason), bytes));
        let dropped = DropReason::ALL
            .iter()
            .zip(moved(&before.drops, &self.drops))
            .map(|(&reason, bytes)| (Outcome::Drop(reason, peer), bytes));
        let sent = (0..)
            .zip(moved(&before.tx, &self.tx))
            .map(|(index, bytes)| match index {
                LOCAL_INDEX => (Outcome::Local, bytes),
                _ => (Outcome::To(index), bytes),
            });
        let received = (0..)
            .zip(moved(&before.rx, &self.rx))
            .map(|(index, bytes)| (Outcome::From(index), bytes));
        let outcomes: Vec<_> = left
            .chain(dropped)
            .chain(sent)
            .chain(received)
            .filter_map(|(outcome, bytes)| bytes.map(|bytes| (outcome, bytes)))
            .collect();
        for (_, bytes) in charged {
            assert!(
                matches!(outcomes[..], [(Outcome::Drop(..), counted)] if counted == bytes),
                "{bytes} bytes charged to {peer:?}: {outcomes:?}"
            );
        }
        outcomes
    }
}

/// For each counter, the bytes by which it moved if it counted a packet.
fn moved<'c>(
    before: &'c [Count],
    after: &'c [Count],
) -> impl Iterator<Item = Option<u64>> + use<'c> {
    before
        .iter()
        .zip(after)
        .map(|(before, after)| bytes(*before, *after))
}

/// The bytes of the packet that a counter has counted, if it has.
fn bytes(before: Count, after: Count) -> Option<u64> {
    let packets = after.packets - before.packets;
    assert!(packets <= 1, "one packet was counted {packets} times");
    (packets == 1).then_some(after.bytes - before.bytes)
}

fn endpoints(ebpf: &Ebpf) -> BTreeMap<(u32, &'static str), Count> {
    let of_slot = |slot| {
        let stats = per_cpu::<EndpointStats>(ebpf, ENDPOINT_STATS, slot);
        let all = |count: fn(&EndpointStats) -> Count| sum(stats.iter().map(count));
        [
            ((slot, "tx"), all(|stats| stats.tx)),
            ((slot, "tx_local"), all(|stats| stats.tx_local)),
            ((slot, "rx"), all(|stats| stats.rx)),
            ((slot, "rx_local"), all(|stats| stats.rx_local)),
            ((slot, "passed"), all(|stats| stats.passed)),
            ((slot, "dropped"), all(|stats| stats.dropped)),
        ]
    };
    (0..ENDPOINT_SLOTS).flat_map(of_slot).collect()
}

fn by_key<R: aya::Pod + bytemuck::NoUninit, K: Ord + CheckedBitPattern>(
    ebpf: &Ebpf,
    name: &str,
) -> BTreeMap<K, Count> {
    let map = PerCpuHashMap::<_, R, Count>::try_from(ebpf.map(name).unwrap()).unwrap();
    let rows = map.iter().map(|row| {
        let (key, cpus) = row.unwrap();
        (checked::cast(key), sum(cpus.iter().copied()))
    });
    rows.collect()
}

fn per_cpu<T: aya::Pod>(ebpf: &Ebpf, name: &str, index: u32) -> Vec<T> {
    let map = PerCpuArray::<_, T>::try_from(ebpf.map(name).unwrap()).unwrap();
    map.get(&index, 0).unwrap().to_vec()
}

fn sum(counts: impl Iterator<Item = Count>) -> Count {
    counts.fold(Count::default(), |sum, count| Count {
        packets: sum.packets + count.packets,
        bytes: sum.bytes + count.bytes,
    })
}
