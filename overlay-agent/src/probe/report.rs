//! What `status` tells of the probes.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{
    PORT, Probes,
    exchange::nanoseconds,
    health::{Health, Identity},
    rtt::RoundTrips,
};
use crate::{
    api::{PeerAgent, PeerHealth, PeerState, ProbeStatus, RoundTrip},
    model::{Name, Peer, Probe, Vni},
    trouble::{Trouble, ids},
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

    /// What is wrong. Of very many peers the first of a network are named.
    pub(crate) fn problems(&self) -> Vec<Trouble> {
        let mut problems: Vec<Trouble> = self.failed.iter().cloned().collect();
        let Some(shared) = self.shared() else {
            return problems;
        };
        let notes = shared.notes();
        problems.extend(notes.refused.iter().map(|refusal| {
            let cure = "free that port, or set probe = \"off\"";
            Trouble::new(ids::PROBES_FAIL, "probes", refusal, cure).during("answer probes")
        }));
        problems.extend(notes.ended.clone());
        drop(notes);
        let exchange = shared.exchange();
        let mut lost: BTreeMap<(Words, &Name), Vec<&Name>> = BTreeMap::new();
        for (network, peer, reach) in exchange.mesh.standing(Instant::now(), exchange.silence()) {
            if let Some(words) = words(peer, reach) {
                lost.entry((words, &network.name))
                    .or_default()
                    .push(&peer.name);
            }
        }
        for (((id, what, cure), network), peers) in lost {
            let (named, rest) = peers.split_at(peers.len().min(NAMED));
            problems.extend(named.iter().map(|peer| {
                let operation = format!("network {network}: peer {peer}");
                Trouble::new(id, peer, what, cure).during(operation)
            }));
            if !rest.is_empty() {
                let operation = format!("network {network}: {} more peers", rest.len());
                problems.push(Trouble::new(id, network, what, cure).during(operation));
            }
        }
        problems
    }
}

/// Peers of a network that are named one by one.
const NAMED: usize = 5;

/// What is wrong with a peer that stands so.
fn words(peer: &Peer, reach: PeerState) -> Option<Words> {
    match reach {
        PeerState::Silent => Some(SILENT),
        PeerState::OneWay => Some(UNHEARD),
        PeerState::NoAgent if peer.has_agent => Some(NEVER),
        PeerState::NotAsked | PeerState::Waiting | PeerState::Answers | PeerState::NoAgent => None,
    }
}

type Words = (&'static str, &'static str, &'static str);

const SILENT: Words = (
    ids::PEER_SILENT,
    "it answered probes and does not any more",
    "see whether the node and its agent run, and whether the network's UDP port is open both ways",
);
const NEVER: Words = (
    ids::PEER_NEVER_ANSWERED,
    "it has not answered a single probe since this agent began to ask",
    "see whether the node and its agent run, whether vtep and subnet here are its own, and whether \
     the network's UDP port is open both ways; for a peer without an agent, write its mac",
);
const UNHEARD: Words = (
    ids::ONE_WAY,
    "it is heard, but does not hear this node",
    "see whether the way there, or a packet filter there, drops the network's UDP port",
);

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
        heard_age_ms: ago(health.last_heard),
        answered_age_ms: ago(health.last_answered),
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
