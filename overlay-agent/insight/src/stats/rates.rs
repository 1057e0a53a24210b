//! Rates a second between two readings of the counters.

use std::collections::BTreeMap;

use overlay_control::stats::{
    Counter, DropStats, EndpointCounts, NetworkStats, PathCounts, PeerCounts, PeerStats,
    ProgramStats, Sender, SenderCount, Stats,
};

/// The same as `now`, with counts per second since `before` in the place of totals.
pub fn rates(before: &Stats, now: &Stats) -> Stats {
    let pace = Pace(now.time_ms.saturating_sub(before.time_ms).max(1));
    let mut rates = now.clone();
    let programs = by(&before.programs, |program| program.program.clone());
    for program in &mut rates.programs {
        if let Some(before) = programs.get(&program.program) {
            pace.program(before, program);
        }
    }
    let networks = by(&before.networks, |network| network.name.clone());
    for network in &mut rates.networks {
        match networks.get(&network.name) {
            Some(before) => pace.network(before, network),
            None => pace.network(&nothing_of(network), network),
        }
    }
    let endpoints = by(&before.endpoints, |endpoint| {
        (endpoint.name.clone(), endpoint.slot)
    });
    for endpoint in &mut rates.endpoints {
        let before = endpoints.get(&(endpoint.name.clone(), endpoint.slot));
        let before = before.map(|before| before.counts).unwrap_or_default();
        pace.endpoint(&before, &mut endpoint.counts);
    }
    pace.endpoint(&before.host, &mut rates.host);
    pace.endpoint(&before.former, &mut rates.former);
    let drops = by(&before.drops, |drops| drops.reason.clone());
    for reason in &mut rates.drops {
        pace.drops(drops.get(&reason.reason).copied(), reason);
    }
    let passes = by(&before.passes, |passes| passes.reason.clone());
    for reason in &mut rates.passes {
        let before = passes.get(&reason.reason);
        pace.count(
            before.map(|before| before.count).unwrap_or_default(),
            &mut reason.count,
        );
        pace.senders(
            before.map(|before| &before.senders[..]),
            &mut reason.senders,
        );
        reason.programs.clear();
    }
    rates.drops.retain(|reason| reason.count.packets > 0);
    rates.passes.retain(|reason| reason.count.packets > 0);
    rates
}

fn nothing_of(network: &NetworkStats) -> NetworkStats {
    NetworkStats {
        peers: Vec::new(),
        total: PeerCounts::default(),
        kernel: PathCounts::default(),
        ..network.clone()
    }
}

fn by<T, K: Ord>(things: &[T], key: impl Fn(&T) -> K) -> BTreeMap<K, &T> {
    things.iter().map(|thing| (key(thing), thing)).collect()
}

/// Milliseconds between the looks.
struct Pace(u64);

impl Pace {
    /// Who starts from 0 again in between has counted at least what is there now.
    fn count(&self, before: Counter, now: &mut Counter) {
        let rate = |before: u64, now: u64| {
            let counted = u128::from(now.checked_sub(before).unwrap_or(now));
            u64::try_from(counted * 1000 / u128::from(self.0)).unwrap_or(u64::MAX)
        };
        now.packets = rate(before.packets, now.packets);
        now.bytes = rate(before.bytes, now.bytes);
    }

    fn program(&self, before: &ProgramStats, now: &mut ProgramStats) {
        self.count(before.delivered, &mut now.delivered);
        self.count(before.passed, &mut now.passed);
        self.count(before.dropped, &mut now.dropped);
    }

    fn network(&self, before: &NetworkStats, now: &mut NetworkStats) {
        let peers = by(&before.peers, |peer: &PeerStats| {
            (peer.name.clone(), peer.slot)
        });
        let mut total = PeerCounts::default();
        for peer in &mut now.peers {
            let before = peers.get(&(peer.name.clone(), peer.slot));
            let before = before.map(|before| before.counts).unwrap_or_default();
            self.peer(&before, &mut peer.counts);
            total += peer.counts;
        }
        now.total = total;
        self.count(before.kernel.tx, &mut now.kernel.tx);
        self.count(before.kernel.rx, &mut now.kernel.rx);
    }

    fn peer(&self, before: &PeerCounts, now: &mut PeerCounts) {
        self.count(before.tx, &mut now.tx);
        self.count(before.rx, &mut now.rx);
        self.count(before.passed, &mut now.passed);
        self.count(before.dropped, &mut now.dropped);
    }

    fn endpoint(&self, before: &EndpointCounts, now: &mut EndpointCounts) {
        self.count(before.tx, &mut now.tx);
        self.count(before.tx_local, &mut now.tx_local);
        self.count(before.rx, &mut now.rx);
        self.count(before.rx_local, &mut now.rx_local);
        self.count(before.passed, &mut now.passed);
        self.count(before.dropped, &mut now.dropped);
    }

    fn drops(&self, before: Option<&DropStats>, now: &mut DropStats) {
        self.count(
            before.map(|before| before.count).unwrap_or_default(),
            &mut now.count,
        );
        self.count(
            before.map(|before| before.unknown).unwrap_or_default(),
            &mut now.unknown,
        );
        self.senders(before.map(|before| &before.senders[..]), &mut now.senders);
        now.programs.clear();
    }

    fn senders(&self, before: Option<&[SenderCount]>, now: &mut Vec<SenderCount>) {
        let known: BTreeMap<Sender, _> = before
            .unwrap_or_default()
            .iter()
            .map(|share| (share.sender.clone(), share.count))
            .collect();
        for share in &mut *now {
            let before = known.get(&share.sender).copied().unwrap_or_default();
            self.count(before, &mut share.count);
        }
        now.retain(|share| share.count.packets > 0);
    }
}
