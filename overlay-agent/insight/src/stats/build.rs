//! The parts of the answer, from counters and those whose they are.

use std::collections::{BTreeMap, BTreeSet};

use overlay_common::{
    maps::{self, Count, LOCAL_INDEX, NODE_SLOT, SenderKey, SenderKind},
    programs::Program,
    reasons::{DropReason, PassReason},
};
use overlay_control::stats::{
    Counter, DropStats, EndpointCounts, EndpointStats, NetworkStats, PassStats, PathCounts,
    PeerCounts, PeerStats, ProgramCount, ProgramStats, Sender, SenderCount,
};
use overlay_core::model::{Endpoint, Network, Peer};

use super::Counted;
use crate::explain::rule;

/// Whose the slots are; who is in no map has none.
pub struct Owners<'a> {
    /// Networks, and the slots of their peers.
    pub networks: Vec<(&'a Network, Slots<'a, Peer>)>,
    /// The slots of the endpoints.
    pub endpoints: Slots<'a, Endpoint>,
}

type Slots<'a, T> = Vec<(&'a T, Option<u32>)>;

impl Counted {
    /// Verdicts on the packets that entered each program.
    pub fn programs(&self) -> Vec<ProgramStats> {
        let drops = self.drops.iter().zip(&self.passes);
        drops
            .map(|((program, drops), (_, passes))| ProgramStats {
                program: program.name().to_owned(),
                delivered: self.delivered(*program),
                passed: sum(PassReason::ALL.iter().map(|reason| passes.of(*reason))),
                dropped: sum(DropReason::ALL.iter().map(|reason| drops.of(*reason))),
            })
            .collect()
    }

    /// Endpoints count what programs deliver: those that are no more, too.
    fn delivered(&self, program: Program) -> Counter {
        let counts =
            self.endpoints
                .iter()
                .flat_map(|(slot, stats)| match (program, *slot == NODE_SLOT) {
                    (Program::FromEndpoint, false) => [stats.tx, stats.tx_local],
                    (Program::FromHost, true) => [stats.tx, Count::default()],
                    (Program::FromUnderlay, _) => [stats.rx, Count::default()],
                    _ => [Count::default(); 2],
                });
        sum(counts)
    }

    /// The networks with their peers: with those that had traffic, or with all.
    pub fn networks(&self, owners: &Owners<'_>, all: bool) -> Vec<NetworkStats> {
        let mut passed: BTreeMap<u32, Counter> = BTreeMap::new();
        for (key, count) in &self.passed {
            *passed.entry(key.slot).or_default() += counter(*count);
        }
        let of_network = |(network, peers): &(&Network, Slots<'_, Peer>)| {
            let mut total = PeerCounts::default();
            let mut told = Vec::new();
            for (peer, slot) in peers {
                let counts = slot.and_then(|slot| self.peers.get(&slot));
                let mut counts = counts.map(peer_counts).unwrap_or_default();
                counts.passed = slot
                    .and_then(|slot| passed.get(&slot))
                    .copied()
                    .unwrap_or_default();
                total += counts;
                if all || counts != PeerCounts::default() {
                    told.push(PeerStats {
                        name: peer.name.clone(),
                        vtep: peer.vtep,
                        slot: *slot,
                        counts,
                    });
                }
            }
            NetworkStats {
                name: network.name.clone(),
                vni: network.vni,
                silent: peers.len() - told.len(),
                peers: told,
                total,
                kernel: PathCounts::default(),
            }
        };
        owners.networks.iter().map(of_network).collect()
    }

    /// The endpoints that there are.
    pub fn endpoints(&self, owners: &Owners<'_>) -> Vec<EndpointStats> {
        let endpoints = owners.endpoints.iter();
        endpoints
            .map(|(endpoint, slot)| EndpointStats {
                name: endpoint.name.clone(),
                network: endpoint.network.clone(),
                slot: *slot,
                counts: slot.map(|slot| self.of_slot(slot)).unwrap_or_default(),
            })
            .collect()
    }

    /// The node itself.
    pub fn host(&self) -> EndpointCounts {
        self.of_slot(NODE_SLOT)
    }

    /// Endpoints that are no more, whether their slots have gone to others or not yet.
    pub fn former(&self, owners: &Owners<'_>) -> EndpointCounts {
        let present: BTreeSet<u32> = owners
            .endpoints
            .iter()
            .filter_map(|(_, slot)| *slot)
            .collect();
        let mut former = EndpointCounts::default();
        for slot in self.endpoints.keys() {
            if *slot != NODE_SLOT && !present.contains(slot) {
                former += self.of_slot(*slot);
            }
        }
        former
    }

    fn of_slot(&self, slot: u32) -> EndpointCounts {
        self.endpoints
            .get(&slot)
            .map(endpoint_counts)
            .unwrap_or_default()
    }

    /// Drops by reason, with those who sent them.
    pub fn drops(&self, owners: &Owners<'_>) -> Vec<DropStats> {
        let slots = self
            .senders
            .keys()
            .map(|key| (key.kind, key.slot))
            .collect();
        let names = names(owners, &slots);
        let mut senders: BTreeMap<DropReason, BTreeMap<Sender, Counter>> = BTreeMap::new();
        for (key, count) in &self.senders {
            if let Some(sender) = sender(&names, *key) {
                let of_reason = senders.entry(key.reason).or_default();
                *of_reason.entry(sender).or_default() += counter(*count);
            }
        }
        let of_reason = |reason: &DropReason| {
            let programs = shares(&self.drops, |drops| drops.of(*reason));
            let count = total(&programs);
            let senders = senders.remove(reason).unwrap_or_default();
            let mut unknown = count;
            for known in senders.values() {
                unknown.packets = unknown.packets.saturating_sub(known.packets);
                unknown.bytes = unknown.bytes.saturating_sub(known.bytes);
            }
            (count.packets > 0).then(|| DropStats {
                reason: reason.name().to_owned(),
                rule: rule(*reason).map(str::to_owned),
                text: reason.text().to_owned(),
                count,
                programs,
                senders: senders
                    .into_iter()
                    .map(|(sender, count)| SenderCount { sender, count })
                    .collect(),
                unknown,
            })
        };
        DropReason::ALL.iter().filter_map(of_reason).collect()
    }

    /// Passes by reason, with the peers that sent them.
    pub fn passes(&self, owners: &Owners<'_>) -> Vec<PassStats> {
        let slots = self.passed.keys().map(|key| (SenderKind::Peer, key.slot));
        let names = names(owners, &slots.collect());
        let shares_of = |reason: PassReason| {
            let of_reason = self.passed.iter().filter(|(key, _)| key.reason == reason);
            let shares = of_reason.filter_map(|(key, count)| {
                let sender = names.get(&(SenderKind::Peer, key.slot))?.clone();
                Some(SenderCount {
                    sender,
                    count: counter(*count),
                })
            });
            shares.collect()
        };
        let of_reason = |reason: &PassReason| {
            let programs = shares(&self.passes, |passes| passes.of(*reason));
            let count = total(&programs);
            (count.packets > 0).then(|| PassStats {
                reason: reason.name().to_owned(),
                text: reason.text().to_owned(),
                kernel: reason.kernel().to_owned(),
                count,
                programs,
                senders: shares_of(*reason),
            })
        };
        PassReason::ALL.iter().filter_map(of_reason).collect()
    }
}

/// Who has some slots; of very many peers, few.
fn names(
    owners: &Owners<'_>,
    wanted: &BTreeSet<(SenderKind, u32)>,
) -> BTreeMap<(SenderKind, u32), Sender> {
    let peers = owners.networks.iter().flat_map(|(network, peers)| {
        let slots = peers
            .iter()
            .filter_map(|(peer, slot)| Some((peer, (*slot)?)));
        let slots = slots.filter(|(_, slot)| wanted.contains(&(SenderKind::Peer, *slot)));
        slots.map(|(peer, slot)| {
            let sender = Sender::Peer {
                network: network.name.clone(),
                name: peer.name.clone(),
            };
            ((SenderKind::Peer, slot), sender)
        })
    });
    let endpoints = owners.endpoints.iter().filter_map(|(endpoint, slot)| {
        let name = endpoint.name.clone();
        Some(((SenderKind::Endpoint, (*slot)?), Sender::Endpoint { name }))
    });
    peers.chain(endpoints).collect()
}

/// Who a sender is; `None` for a peer that is no more.
fn sender(names: &BTreeMap<(SenderKind, u32), Sender>, key: SenderKey) -> Option<Sender> {
    let known = names.get(&(key.kind, key.slot)).cloned();
    match key.kind {
        SenderKind::Peer if key.slot == LOCAL_INDEX => None,
        SenderKind::Peer => known,
        SenderKind::Endpoint if key.slot == NODE_SLOT => Some(Sender::Host),
        SenderKind::Endpoint => Some(known.unwrap_or(Sender::Former)),
    }
}

/// The programs that have counted something.
fn shares<T>(programs: &[(Program, T)], of: impl Fn(&T) -> Count) -> Vec<ProgramCount> {
    let counts = programs.iter().map(|(program, counts)| ProgramCount {
        program: program.name().to_owned(),
        count: counter(of(counts)),
    });
    counts.filter(|share| share.count.packets > 0).collect()
}

fn total(shares: &[ProgramCount]) -> Counter {
    let mut total = Counter::default();
    for share in shares {
        total += share.count;
    }
    total
}

fn sum(counts: impl Iterator<Item = Count>) -> Counter {
    let mut sum = Counter::default();
    for count in counts {
        sum += counter(count);
    }
    sum
}

fn counter(Count { packets, bytes }: Count) -> Counter {
    Counter { packets, bytes }
}

fn peer_counts(stats: &maps::PeerStats) -> PeerCounts {
    PeerCounts {
        tx: counter(stats.tx),
        rx: counter(stats.rx),
        passed: Counter::default(),
        dropped: counter(stats.dropped),
    }
}

fn endpoint_counts(stats: &maps::EndpointStats) -> EndpointCounts {
    EndpointCounts {
        tx: counter(stats.tx),
        tx_local: counter(stats.tx_local),
        rx: counter(stats.rx),
        rx_local: counter(stats.rx_local),
        passed: counter(stats.passed),
        dropped: counter(stats.dropped),
    }
}
