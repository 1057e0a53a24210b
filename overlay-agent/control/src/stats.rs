//! Counters, as `overlay-agent stats --output json` prints them. `docs/stats.md`
//! describes it to those who write scripts.

use std::{net::IpAddr, ops::AddAssign};

use overlay_core::model::{Name, Vni};
use serde::{Deserialize, Serialize};

use super::{ClusterStatus, FastPathState, Mesh, Problem};

/// Everything that a node counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// [`crate::SCHEMA`].
    pub schema: u32,
    /// When it was read, as RFC 3339 writes it, in UTC.
    pub time: String,
    /// When it was read: milliseconds since 1970, UTC.
    pub time_ms: u64,
    /// Version of the agent.
    pub version: String,
    /// Layout of its maps.
    pub abi: u32,
    /// The instance's name.
    pub instance: Name,
    /// The node's name.
    pub node: Name,
    /// State of the eBPF programs.
    pub fastpath: FastPathState,
    /// Whether everything is as it should be.
    pub healthy: bool,
    /// What is not.
    pub problems: Vec<Problem>,
    /// The store that one of its networks comes from.
    #[serde(default)]
    pub cluster: Option<ClusterStatus>,
    /// Repairs of others' changes since the agent was started.
    pub repairs: u64,
    /// The configuration file.
    pub reload: Reload,
    /// The programs: whatever enters one is delivered, passed or dropped.
    pub programs: Vec<ProgramStats>,
    /// The networks with their peers.
    pub networks: Vec<NetworkStats>,
    /// The endpoints.
    pub endpoints: Vec<EndpointStats>,
    /// Packets that the node itself sends or routes through its VXLAN devices.
    pub host: EndpointCounts,
    /// Endpoints that are no more, and whose slots others have.
    pub former: EndpointCounts,
    /// Drops by reason, without reasons that never occurred.
    pub drops: Vec<DropStats>,
    /// Passes by reason, likewise.
    pub passes: Vec<PassStats>,
    /// How full the eBPF maps are.
    pub maps: Vec<MapFill>,
}

/// All that Prometheus is given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Export {
    /// What is counted: with peers without traffic, where there are not very many.
    pub stats: Stats,
    /// Results of the probes.
    pub mesh: Mesh,
}

/// Packets and bytes; a GSO or GRO packet counts once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counter {
    /// Number of packets.
    pub packets: u64,
    /// Bytes of frames with their Ethernet headers: of the inner frame where it was delivered,
    /// else of the whole packet as it arrived.
    pub bytes: u64,
}

impl AddAssign for Counter {
    fn add_assign(&mut self, other: Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
    }
}

/// Verdicts on the packets that entered a program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramStats {
    /// Its name, as `bpftool prog show` prints it.
    pub program: String,
    /// Sent on, on the fast path.
    pub delivered: Counter,
    /// Left to the kernel; the guard counts none, `from_underlay` does.
    pub passed: Counter,
    /// Dropped.
    pub dropped: Counter,
}

/// A network's peers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkStats {
    /// Its name.
    pub name: Name,
    /// Its VXLAN network identifier.
    pub vni: Vni,
    /// Peers, in the order of the configuration: those with traffic, unless all were asked for.
    pub peers: Vec<PeerStats>,
    /// Number of those that are left out.
    pub silent: usize,
    /// Sum over all of its peers, on the fast path.
    pub total: PeerCounts,
    /// Packets on the kernel's path instead.
    pub kernel: PathCounts,
}

/// Packets of a network that the programs left to the kernel's VXLAN devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathCounts {
    /// Sent to peers.
    pub tx: Counter,
    /// Received from peers, for containers and for the node itself.
    pub rx: Counter,
}

/// The configuration file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reload {
    /// Whether what the file says is in force.
    pub successful: bool,
    /// When what is in force was read, as RFC 3339 writes it, in UTC.
    pub time: String,
}

/// A peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStats {
    /// Its name.
    pub name: Name,
    /// Its outer address.
    pub vtep: IpAddr,
    /// Slot in the map `PEER_STATS`; `None` when it is not in the maps.
    pub slot: Option<u32>,
    /// Its counters.
    #[serde(flatten)]
    pub counts: PeerCounts,
}

/// Traffic with a peer, as the programs see it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerCounts {
    /// Encapsulated and handed to the underlay.
    pub tx: Counter,
    /// Decapsulated and delivered to an endpoint.
    pub rx: Counter,
    /// Received from it and left to the kernel.
    #[serde(default)]
    pub passed: Counter,
    /// Received from it and dropped.
    pub dropped: Counter,
}

impl AddAssign for PeerCounts {
    fn add_assign(&mut self, other: Self) {
        self.tx += other.tx;
        self.rx += other.rx;
        self.passed += other.passed;
        self.dropped += other.dropped;
    }
}

/// An endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointStats {
    /// Its name.
    pub name: Name,
    /// Its network.
    pub network: Name,
    /// Slot in the map `ENDPOINT_STATS`; `None` while it is not in the maps.
    pub slot: Option<u32>,
    /// Its counters.
    #[serde(flatten)]
    pub counts: EndpointCounts,
}

/// Traffic of an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointCounts {
    /// Sent to peers, on the fast path.
    pub tx: Counter,
    /// Delivered to other endpoints of this node, on the fast path.
    pub tx_local: Counter,
    /// Received from peers, on the fast path.
    pub rx: Counter,
    /// Received from other endpoints of this node, on the fast path.
    pub rx_local: Counter,
    /// Sent by it and left to the kernel.
    pub passed: Counter,
    /// Sent by it and dropped.
    pub dropped: Counter,
}

impl AddAssign for EndpointCounts {
    fn add_assign(&mut self, other: Self) {
        self.tx += other.tx;
        self.tx_local += other.tx_local;
        self.rx += other.rx;
        self.rx_local += other.rx_local;
        self.passed += other.passed;
        self.dropped += other.dropped;
    }
}

/// Drops for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropStats {
    /// The reason's name.
    pub reason: String,
    /// The rule of `[networks.security]` that drops them, if one does.
    pub rule: Option<String>,
    /// The observation, in a sentence.
    pub text: String,
    /// All of them.
    #[serde(flatten)]
    pub count: Counter,
    /// By the program that dropped them.
    pub programs: Vec<ProgramCount>,
    /// By who sent them, as far as that is known.
    pub senders: Vec<SenderCount>,
    /// Those of nobody who is known: a stranger's, or a peer's that is no more.
    pub unknown: Counter,
}

/// Passes for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassStats {
    /// The reason's name.
    pub reason: String,
    /// The observation, in a sentence.
    pub text: String,
    /// The kernel's treatment of them, in a sentence.
    pub kernel: String,
    /// All of them.
    #[serde(flatten)]
    pub count: Counter,
    /// By the program that passed them.
    pub programs: Vec<ProgramCount>,
    /// By the peer that sent them, where it is known to be a peer's.
    #[serde(default)]
    pub senders: Vec<SenderCount>,
}

/// The share of a program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramCount {
    /// Its name.
    pub program: String,
    /// Its share.
    #[serde(flatten)]
    pub count: Counter,
}

/// The share of a sender.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SenderCount {
    /// The sender.
    #[serde(flatten)]
    pub sender: Sender,
    /// Its share.
    #[serde(flatten)]
    pub count: Counter,
}

/// Somebody who sends packets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "sender", rename_all = "snake_case")]
pub enum Sender {
    /// Another node.
    Peer {
        /// The network that it sent in.
        network: Name,
        /// Its name.
        name: Name,
    },
    /// A container of this node.
    Endpoint {
        /// Its name.
        name: Name,
    },
    /// This node itself.
    Host,
    /// Containers that are no more.
    Former,
}

/// How full a map is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapFill {
    /// Its name.
    pub map: String,
    /// Entries that are in use.
    pub entries: usize,
    /// Entries that there can be.
    pub capacity: usize,
}
