//! The peers' health by the probes.

use std::collections::BTreeMap;

use overlay_core::model::{Name, Probe};
use serde::{Deserialize, Serialize};

/// This node and its peers, as probes see them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mesh {
    /// The node's part in probing.
    pub probe: ProbeStatus,
    /// How many peers are in each state; those of whom nothing is known are in none.
    pub states: BTreeMap<PeerState, usize>,
    /// As many of them as were asked for, the worst first.
    pub peers: Vec<MeshPeer>,
}

/// A peer of the mesh.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeshPeer {
    /// The network that it is a peer in.
    pub network: Name,
    /// Its name.
    pub name: Name,
    /// The largest IP packet that is sent through the network.
    pub mtu: Option<u16>,
    /// Its health.
    pub health: PeerHealth,
}

/// The node's part in probing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeStatus {
    /// As configured: `off`, `answer`, or an interval.
    pub mode: Probe,
    /// Milliseconds between two probes of one peer: more than configured when there are very
    /// many. `None` while none are sent.
    pub interval_ms: Option<u64>,
    /// UDP port at the gateway addresses.
    pub port: u16,
    /// Messages since the agent's start.
    pub messages: ProbeMessages,
}

/// Messages since the agent's start, each counted once on its way out or in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeMessages {
    /// Questions sent.
    pub asked: u64,
    /// Questions that could not be sent: no device, no route, or a packet filter of this node.
    pub unsent: u64,
    /// Answers received.
    pub answered: u64,
    /// Questions received from peers and answered.
    pub answers: u64,
    /// Questions of peers that ask too often, not answered.
    pub limited: u64,
    /// From addresses that are no peer's gateway, ignored.
    pub strangers: u64,
    /// From peers, but not in a form that this agent knows, or of another network; ignored.
    pub malformed: u64,
}

/// The health of a peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerHealth {
    /// How the two hear each other.
    pub state: PeerState,
    /// Milliseconds since anything was heard of it, asked or answered.
    pub heard_age_ms: Option<u64>,
    /// Milliseconds since it last answered.
    pub answered_age_ms: Option<u64>,
    /// Whether it hears this node, by what it said last; `None` when it has not said lately.
    pub hears_this_node: Option<bool>,
    /// Round trips, of those questions that were answered.
    pub rtt: Option<RoundTrip>,
    /// Of this many last questions
    pub asked: u32,
    /// so many were not answered within a second.
    pub lost: u32,
    /// The largest IP packet that arrives there, found by trying; at most the network's MTU.
    pub path_mtu: Option<u16>,
    /// The agent that answers there; `None` until it has said anything.
    pub agent: Option<PeerAgent>,
}

impl PeerHealth {
    /// How many of a hundred questions are not answered; what is not nothing is at least one.
    pub fn loss_percent(&self) -> Option<u32> {
        (self.asked > 0).then(|| (self.lost * 100).div_ceil(self.asked))
    }
}

/// How a peer and this node hear each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerState {
    /// This node does not ask.
    NotAsked,
    /// It has just begun to.
    Waiting,
    /// The peer answers.
    Answers,
    /// It has never answered since this agent began to ask: a node without an agent, such as a
    /// kernel's VXLAN device or flannel, never does.
    NoAgent,
    /// It has answered before.
    Silent,
    /// It is heard, and says that it does not hear this node.
    OneWay,
}

impl PeerState {
    /// The working directions as a sign: this node to the left, the peer to the right.
    pub const fn arrow(self) -> &'static str {
        match self {
            Self::Answers => "<->",
            Self::OneWay => "<--",
            Self::Silent => "-x-",
            Self::NoAgent | Self::Waiting | Self::NotAsked => "---",
        }
    }

    /// The same in a word or two.
    pub const fn words(self) -> &'static str {
        match self {
            Self::NotAsked => "not asked",
            Self::Waiting => "waiting",
            Self::Answers => "answers",
            Self::NoAgent => "no agent",
            Self::Silent => "silent",
            Self::OneWay => "one way",
        }
    }

    /// Whether the two do not reach each other any more.
    pub const fn is_lost(self) -> bool {
        matches!(self, Self::Silent | Self::OneWay)
    }
}

/// Round trips in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoundTrip {
    /// The last one.
    pub last_ns: u64,
    /// Their mean, of which each new one is an eighth.
    pub mean_ns: u64,
    /// The shortest.
    pub min_ns: u64,
    /// Mean difference between one and the next (RFC 3550 §6.4.1).
    pub jitter_ns: u64,
}

/// The agent at the other end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerAgent {
    /// Its node's own name.
    pub node: String,
    /// Its version,
    pub version: String,
    /// and the layout of its maps.
    pub abi: u32,
    /// Whether one of the two is not this agent's.
    pub differs: bool,
    /// The largest packet in bytes that its containers send through the network, where it says so.
    #[serde(default)]
    pub mtu: Option<u16>,
    /// The largest packet of its that it has found to arrive here.
    #[serde(default)]
    pub arrives: Option<u16>,
}
