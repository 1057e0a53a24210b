//! The probes' part of `status`.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use overlay_control::{PeerAgent, PeerHealth, PeerState, ProbeStatus, RoundTrip};
use overlay_core::{
    model::{Name, Peer, Probe, Vni},
    trouble::{Trouble, ids},
};

use super::{
    PORT, Probes,
    exchange::nanoseconds,
    health::{Health, Identity},
    rtt::RoundTrips,
};

impl Probes {
    /// This node's part.
    pub fn status(&self) -> ProbeStatus {
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

    /// The health of a peer.
    pub fn health(&self, vni: Vni, peer: &Peer) -> Option<PeerHealth> {
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

    /// The problems. Of very many peers the first of a network are named.
    pub fn problems(&self) -> Vec<Trouble> {
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
        let standing = exchange.mesh.standing(Instant::now(), exchange.silence());
        let lost = standing.filter_map(|(network, peer, reach, refuses)| {
            Some((wrong(peer, reach, refuses)?, &network.name, peer))
        });
        problems.extend(told(lost));
        problems
    }
}

/// A node that is a peer in several networks is told once.
fn told<'a>(lost: impl Iterator<Item = (Wrong, &'a Name, &'a Peer)>) -> Vec<Trouble> {
    let mut by_node: BTreeMap<(Wrong, &Name, IpAddr), (Vec<&Name>, &Peer)> = BTreeMap::new();
    for (wrong, network, peer) in lost {
        let node = (wrong, &peer.name, peer.vtep);
        let (networks, _) = by_node.entry(node).or_insert((Vec::new(), peer));
        networks.push(network);
    }
    let mut by_networks: BTreeMap<(Wrong, Vec<&Name>), Vec<&Peer>> = BTreeMap::new();
    for ((wrong, ..), (networks, peer)) in by_node {
        let peers = by_networks.entry((wrong, networks)).or_default();
        peers.push(peer);
    }
    let mut problems = Vec::new();
    for ((wrong, networks), peers) in by_networks {
        let all: Vec<&str> = networks.iter().map(|name| name.as_str()).collect();
        let all = all.join(", ");
        let of = match networks.len() {
            1 => format!("network {all}"),
            _ => format!("networks {all}"),
        };
        let (named, rest) = peers.split_at(peers.len().min(NAMED));
        problems.extend(named.iter().map(|peer| {
            let operation = format!("{of}: peer {}", peer.name);
            let (id, what) = wrong.words();
            Trouble::new(id, &peer.name, what, wrong.cure(Some(peer))).during(operation)
        }));
        if !rest.is_empty() {
            let operation = format!("{of}: {} more peers", rest.len());
            let (id, what) = wrong.words();
            problems.push(Trouble::new(id, all, what, wrong.cure(None)).during(operation));
        }
    }
    problems
}

/// Peers of a network that are named one by one.
const NAMED: usize = 5;

/// A problem of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Wrong {
    Silent,
    /// It is there, and its agent is not.
    Deserted,
    Never,
    /// It is there, and has no agent, or none that runs.
    Agentless,
    Unheard,
}

/// The problem of a peer in this state.
fn wrong(peer: &Peer, reach: PeerState, refuses: bool) -> Option<Wrong> {
    match reach {
        // It had an agent, and the configuration says that it has none now.
        PeerState::Silent if refuses && !peer.has_agent => None,
        PeerState::Silent if refuses => Some(Wrong::Deserted),
        PeerState::Silent => Some(Wrong::Silent),
        PeerState::OneWay => Some(Wrong::Unheard),
        PeerState::NoAgent if peer.has_agent && refuses => Some(Wrong::Agentless),
        PeerState::NoAgent if peer.has_agent => Some(Wrong::Never),
        PeerState::NotAsked | PeerState::Waiting | PeerState::Answers | PeerState::NoAgent => None,
    }
}

impl Wrong {
    const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Silent => (ids::PEER_SILENT, "it answered probes and does not any more"),
            Self::Deserted => (
                ids::PEER_SILENT,
                "it answered probes and refuses them now: the node is there, and the tunnel to it \
                 works, but nobody listens for probes",
            ),
            Self::Never => (
                ids::PEER_NEVER_ANSWERED,
                "it has not answered a single probe since this agent began to ask",
            ),
            Self::Agentless => (
                ids::PEER_NEVER_ANSWERED,
                "it refuses probes: the node is there, and the tunnel to it works, but nobody \
                 listens for them",
            ),
            Self::Unheard => (ids::ONE_WAY, "it is heard, but does not hear this node"),
        }
    }

    /// The cure for one such peer, or for several.
    fn cure(self, peer: Option<&Peer>) -> String {
        let without_agent = match peer {
            Some(peer) => format!(
                "if it has none, as a kernel's VXLAN device or flannel, write mac = \"{}\", or \
                 what its device has, into its [[networks.peers]]: nobody is expected to answer then",
                peer.mac
            ),
            None => "write the mac of those that have none".to_owned(),
        };
        match self {
            Self::Silent => {
                "see whether the node and its agent run, and whether the network's UDP \
                             port is open both ways"
                    .to_owned()
            }
            Self::Deserted => "start its agent, or let it answer (probe = \"answer\"), and see \
                               whether a packet filter there refuses UDP port 14789"
                .to_owned(),
            Self::Never => format!(
                "see whether the node and its agent run, whether vtep and subnet here are its own, \
                 and whether the network's UDP port is open both ways; {without_agent}"
            ),
            Self::Agentless => format!(
                "start its agent, or let it answer (probe = \"answer\"), and see whether a packet \
                 filter there refuses UDP port 14789; {without_agent}"
            ),
            Self::Unheard => "see whether the way there, or a packet filter there, drops the \
                              network's UDP port"
                .to_owned(),
        }
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
            mtu: health.sizes.mtu,
            arrives: health.sizes.arrives,
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

#[cfg(test)]
mod tests {
    use overlay_core::model::{Mac, Name, Peer};

    use super::{PeerState, Wrong, told, wrong};

    fn peer(name: &str, vtep: &str) -> Peer {
        let vtep = vtep.parse().unwrap();
        Peer {
            name: name.parse().unwrap(),
            vtep,
            subnets: Vec::new(),
            mac: Mac::of_vtep(vtep),
            udp6_checksum: false,
            public_key: None,
            next_public_key: None,
            has_agent: true,
        }
    }

    #[test]
    fn who_is_said_to_have_no_agent_may_refuse_but_not_be_silent() {
        let mut peer = peer("n2", "192.0.2.2");
        assert_eq!(wrong(&peer, PeerState::Silent, true), Some(Wrong::Deserted));
        peer.has_agent = false;
        assert_eq!(wrong(&peer, PeerState::Silent, true), None);
        assert_eq!(wrong(&peer, PeerState::Silent, false), Some(Wrong::Silent));
    }

    #[test]
    fn a_peer_of_two_networks_is_told_once() {
        let [blue, red]: [Name; 2] = ["blue", "red"].map(|name| name.parse().unwrap());
        let (n2, n3) = (peer("n2", "192.0.2.2"), peer("n3", "192.0.2.3"));
        let lost = [
            (Wrong::Silent, &blue, &n2),
            (Wrong::Silent, &blue, &n3),
            (Wrong::Silent, &red, &n2),
        ];
        let told = told(lost.into_iter());
        let operations: Vec<_> = told.iter().map(|it| &*it.operation).collect();
        assert_eq!(
            operations,
            ["network blue: peer n3", "networks blue, red: peer n2"]
        );
    }
}
