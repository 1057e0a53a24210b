//! What a node has counted, and what moved between two moments.

use aya::{Ebpf, maps::PerCpuArray};
use overlay_common::{
    maps::{Count, DROPS, LOCAL_INDEX, PASSES, PEER_STATS, PeerStats},
    reasons::{DropReason, Drops, PassReason, Passes},
};

/// Slots of `PEER_STATS` that are in use: this node's and the peers'.
const SLOTS: u32 = 6;

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
    drops: Vec<Count>,
    passes: Vec<Count>,
    tx: Vec<Count>,
    rx: Vec<Count>,
    dropped: Vec<Count>,
}

impl Counters {
    /// All counters, summed over the CPUs.
    pub(crate) fn of(ebpf: &Ebpf) -> Self {
        let drops = per_cpu::<Drops>(ebpf, DROPS, 0);
        let passes = per_cpu::<Passes>(ebpf, PASSES, 0);
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
            drops: DropReason::ALL
                .iter()
                .map(|&reason| sum(drops.iter().map(|drops| drops.of(reason))))
                .collect(),
            passes: PassReason::ALL
                .iter()
                .map(|&reason| sum(passes.iter().map(|passes| passes.of(reason))))
                .collect(),
            tx: all(|stats| stats.tx),
            rx: all(|stats| stats.rx),
            dropped: all(|stats| stats.dropped),
        }
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
    before.iter().zip(after).map(|(before, after)| {
        let packets = after.packets - before.packets;
        assert!(packets <= 1, "one packet was counted {packets} times");
        (packets == 1).then_some(after.bytes - before.bytes)
    })
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
