//! What `status` tells of the probes.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{
    PORT, Probes,
    exchange::nanoseconds,
    health::{Health, Identity},
    news::enumerate,
    rtt::RoundTrips,
};
use crate::{
    api::{PeerAgent, PeerHealth, PeerState, ProbeStatus, RoundTrip},
    model::{Name, Peer, Probe, Vni},
};

impl Probes {
    /// This node's part.
    pub(crate) fn status(&self) -> ProbeStatus {
        let running = self.running.as_ref();
        let mode = running.map_or(Probe::Off, |running| running.setup.mode);
        let (interval, messages) = self.shared().map_or_else(Default::default, |shared| {
            let exchange = shared.exchange();
            (exchange.interval(), exchange.messages)
        });
        ProbeStatus {
            mode,
            interval_ms: interval.map(milliseconds),
            port: PORT,
            messages,
        }
    }

    /// What is known of a peer.
    pub(crate) fn health(&self, vni: Vni, peer: &Peer) -> Option<PeerHealth> {
        let exchange = self.shared()?.exchange();
        let interval = exchange.interval().unwrap_or_default();
        let silence = exchange.silence();
        let health = exchange.mesh.of_peer(vni, peer)?;
        Some(health_status(
            health,
            Instant::now(),
            interval,
            silence,
            exchange.identity(),
        ))
    }

    /// What is wrong, one sentence each with its cure.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems: Vec<String> = self.failed.iter().cloned().collect();
        let Some(shared) = self.shared() else {
            return problems;
        };
        let notes = shared.notes();
        problems.extend(
            notes
                .refused
                .iter()
                .map(|refusal| format!("answer probes: {refusal}; or set probe = \"off\"")),
        );
        problems.extend(notes.ended.clone());
        drop(notes);
        let exchange = shared.exchange();
        let mut silent: BTreeMap<&Name, Vec<Name>> = BTreeMap::new();
        let mut unheard: BTreeMap<&Name, Vec<Name>> = BTreeMap::new();
        for (network, peer, reach) in exchange.mesh.standing(Instant::now(), exchange.silence()) {
            let of = match reach {
                PeerState::Silent => &mut silent,
                PeerState::OneWay => &mut unheard,
                _ => continue,
            };
            of.entry(&network.name).or_default().push(peer.name.clone());
        }
        problems.extend(silent.iter().map(|(network, peers)| {
            format!(
                "network {network}: {} answered probes and does not any more; see whether the \
                 node and its agent run, and whether the network's UDP port is open both ways",
                enumerate(peers)
            )
        }));
        problems.extend(unheard.iter().map(|(network, peers)| {
            format!(
                "network {network}: {} is heard, but does not hear this node; see whether the \
                 way there, or a packet filter there, drops the network's UDP port",
                enumerate(peers)
            )
        }));
        problems
    }
}

fn health_status(
    health: &Health,
    now: Instant,
    interval: Duration,
    silence: Duration,
    own: &Identity,
) -> PeerHealth {
    let ago = |at: Option<Instant>| at.map(|at| milliseconds(now.saturating_duration_since(at)));
    let loss = health.loss(interval);
    PeerHealth {
        state: health.reach(now, silence),
        heard_ms: ago(health.last_heard),
        answered_ms: ago(health.last_answered),
        hears_this_node: health.is_heard(now, silence),
        rtt: health.rtt.as_ref().map(round_trip),
        asked: loss.asked,
        lost: loss.lost,
        path_mtu: health.search.found(),
        agent: health.identity.as_deref().map(|peer| PeerAgent {
            node: peer.node.clone(),
            version: peer.version.clone(),
            abi: peer.abi,
            differs: (&peer.version, peer.abi) != (&own.version, own.abi),
        }),
    }
}

fn round_trip(rtt: &RoundTrips) -> RoundTrip {
    RoundTrip {
        last_ns: nanoseconds(rtt.last),
        mean_ns: nanoseconds(rtt.smoothed),
        min_ns: nanoseconds(rtt.least),
        jitter_ns: nanoseconds(rtt.jitter),
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
