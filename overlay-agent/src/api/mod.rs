//! The daemon's interface: one JSON request a line over a unix socket, one JSON reply a line.
//!
//! The command line is its first client; it never touches the kernel itself.

pub mod capture;
mod client;
mod doctor;
pub mod explain;
mod health;
pub mod ping;
mod problem;
mod server;
pub mod stats;

use std::{net::IpAddr, path::PathBuf};

use ipnet::IpNet;
use overlay_api::{Attached, Believed, Key, Refusal, Unwanted, Wanted};
use serde::{Deserialize, Serialize};

use crate::{
    model::{Attachment, Dscp, FastPath, Guard, IfName, LogLevel, Mac, Name, Rx, Security, Vni},
    progress::Activity,
};

pub use client::{ClientError, call};
pub use doctor::{Cure, Diagnosis, DoctorSpec, Finding, Severity, Skipped};
pub use health::{
    Mesh, MeshPeer, PeerAgent, PeerHealth, PeerState, ProbeMessages, ProbeStatus, RoundTrip,
};
pub use problem::Problem;
pub(crate) use problem::rfc3339;
pub use server::{Call, Caller, Server, ServerError};

/// Number of the layout of all that `--output json` prints, as `docs/schema/v1.json` describes it:
/// fields may be added to it, but none changes its name or its meaning.
pub const SCHEMA: u32 = 1;

/// What a client can ask for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// The node's state.
    // Braces, here and below: serde takes any field for a variant without them.
    Status {},
    /// Attaches a container.
    EndpointAdd(EndpointSpec),
    /// Detaches a container that was attached by [`Request::EndpointAdd`].
    EndpointDel {
        /// Its name.
        name: String,
    },
    /// Attaches a container for its runtime; can be repeated.
    AttachmentAdd(Wanted),
    /// Detaches it.
    AttachmentDel(Unwanted),
    /// Tells whether it is as believed.
    AttachmentCheck(Believed),
    /// Tells which there are of a source.
    AttachmentList {
        /// The source.
        source: String,
    },
    /// Tells whether one could be added.
    AttachmentReady {
        /// The network; the only one when it is left out.
        network: Option<String>,
    },
    /// Attaches or detaches the programs.
    Fastpath {
        /// Which of the two.
        on: bool,
    },
    /// Removes all that is the instance's, and ends the daemon.
    Down {},
    /// What has been counted.
    Stats {
        /// Whether peers without traffic are to be told, too.
        #[serde(default)]
        all: bool,
    },
    /// Looks for what is wrong on the node.
    Doctor(DoctorSpec),
    /// Tells what becomes of a packet that an endpoint or the node sends.
    Explain(explain::Question),
    /// Tells what becomes of a frame that another node has sent.
    ExplainReceived(explain::Received),
    /// Sets what the programs tell the log, until the daemon ends.
    LogLevel {
        /// How much.
        level: LogLevel,
    },
    /// Starts a capture.
    CaptureStart(capture::Wanted),
    /// Reads what it has seen, or waits a moment for it.
    CaptureRead {},
    /// Ends it.
    CaptureStop {},
    /// Sends a packet as a container does, and waits for its answer.
    Ping(ping::Ping),
    /// How the peers are.
    Mesh {
        /// Peers that are told at most.
        most: usize,
    },
    /// What Prometheus is given.
    Export {},
    /// The configuration that is in force, with what was added at run time.
    Config {},
    /// What the daemon is doing. It is answered at once, whatever that is.
    Activity {},
}

impl Request {
    /// Whether it can be given up at any time, because it changes nothing.
    pub(crate) fn only_reads(&self) -> bool {
        match self {
            Self::Status {}
            | Self::Stats { .. }
            | Self::Mesh { .. }
            | Self::Export {}
            | Self::Config {}
            | Self::Activity {}
            | Self::AttachmentList { .. }
            | Self::AttachmentReady { .. } => true,
            Self::EndpointAdd(_)
            | Self::EndpointDel { .. }
            | Self::AttachmentAdd(_)
            | Self::AttachmentDel(_)
            | Self::AttachmentCheck(_)
            | Self::Fastpath { .. }
            | Self::Down {}
            | Self::Doctor(_)
            | Self::Explain(_)
            | Self::ExplainReceived(_)
            | Self::LogLevel { .. }
            | Self::CaptureStart(_)
            | Self::CaptureRead {}
            | Self::CaptureStop {}
            | Self::Ping(_) => false,
        }
    }
}

/// An endpoint as it is asked for; validated like one of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndpointSpec {
    /// Its name, unique on the node.
    pub name: String,
    /// The network to attach it to.
    pub network: String,
    /// Name of, or path to, its network namespace.
    pub netns: Option<PathBuf>,
    /// Or a process in it.
    pub pid: Option<u32>,
    /// Its addresses, at most one of a family; the next free one of each that is left out.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// Its interface in the container; `eth0` when left out.
    pub interface: Option<String>,
    /// Whether it forwards packets to others behind it.
    #[serde(default)]
    pub forwarding: bool,
    /// Where those others are.
    #[serde(default)]
    pub allowed_sources: Vec<String>,
}

/// What the daemon answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// To [`Request::Status`].
    Status(Box<Status>),
    /// To [`Request::EndpointAdd`].
    Endpoint(Box<EndpointStatus>),
    /// To [`Request::Down`]: what was left alone although the instance once changed it, a sentence
    /// each.
    Removed(Vec<String>),
    /// To everything else.
    Done,
    /// The request cannot be carried out; nothing was changed.
    BadInput(String),
    /// What is named does not exist.
    NotFound(String),
    /// What was to be made is there already.
    Exists(String),
    /// It was tried and has failed.
    Failed(String),
    /// To [`Request::AttachmentAdd`].
    Attached(Box<Attached>),
    /// To [`Request::AttachmentList`].
    Attachments(Vec<Key>),
    /// To requests about attachments: why nothing was changed.
    Refused(Refusal),
    /// To [`Request::Stats`].
    Stats(Box<stats::Stats>),
    /// To [`Request::Doctor`].
    Diagnosis(Box<Diagnosis>),
    /// To [`Request::Explain`] and [`Request::ExplainReceived`].
    Hop(Box<explain::Hop>),
    /// To [`Request::CaptureRead`] and [`Request::CaptureStop`].
    Captured(capture::Captured),
    /// To [`Request::Ping`].
    Pinged(Box<ping::Pinged>),
    /// To [`Request::Mesh`].
    Mesh(Box<Mesh>),
    /// To [`Request::Export`].
    Export(Box<stats::Export>),
    /// To [`Request::Config`]: a file that would lead to it.
    Config(String),
    /// To [`Request::Activity`].
    Activity(Activity),
}

/// The state of a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Version of the agent.
    pub version: String,
    /// Layout of its maps.
    pub abi: u32,
    /// The instance's name.
    pub instance: Name,
    /// The node's name.
    pub node: Name,
    /// Whether everything is as it should be.
    pub healthy: bool,
    /// What is not.
    pub problems: Vec<Problem>,
    /// The node's outer addresses, at most one of a family.
    pub vteps: Vec<IpAddr>,
    /// Its underlay devices.
    pub underlay: Vec<IfName>,
    /// The eBPF programs.
    pub fastpath: FastPathStatus,
    /// The store that one of its networks comes from.
    #[serde(default)]
    pub cluster: Option<ClusterStatus>,
    /// What holds the rules of networks on the kernel's path.
    pub guard_table: GuardTableStatus,
    /// Its networks.
    pub networks: Vec<NetworkStatus>,
    /// Its endpoints.
    pub endpoints: Vec<EndpointStatus>,
    /// Its part in probing.
    pub probe: ProbeStatus,
    /// What the programs tell the log of packets.
    pub log_level: LogLevel,
    /// The capture that is under way.
    pub capture: Option<capture::CaptureStatus>,
}

/// The cluster's store, as the agent's helper sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// The network that comes from there.
    pub network: Name,
    /// Whether the store is followed; otherwise what was last known counts.
    pub connected: bool,
    /// The member that is spoken with, or was tried last.
    pub endpoint: Option<String>,
    /// This node's subnet there, as flannel writes it in its keys.
    pub subnet: Option<String>,
    /// How many other nodes there are.
    pub nodes: usize,
    /// How many of them the store does not have any more, and are kept for now.
    pub doubtful: usize,
    /// The store's revision.
    pub revision: i64,
    /// How often a connection to a member has been made since the helper was started.
    #[serde(default)]
    pub connections: u64,
    /// Milliseconds since a member last answered, 0 while the store is followed; `None` if none
    /// ever has.
    #[serde(default)]
    pub contact_age_ms: Option<u64>,
}

/// The nftables table that what the kernel receives for a tunnel passes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardTableStatus {
    /// Its name, in the family `inet`.
    pub name: String,
    /// Whether it is there and does what it should.
    pub holds: bool,
    /// Why it cannot be.
    pub reason: Option<String>,
}

/// The state of the eBPF programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FastPathStatus {
    /// What they do.
    pub state: FastPathState,
    /// How they are attached: `tcx` or `clsact`.
    pub attach: Option<String>,
    /// Why they cannot be used.
    pub reason: Option<String>,
    /// Folder of the pinned maps.
    pub pins: PathBuf,
    /// How XDP guards the underlay, as configured,
    pub guard: Guard,
    /// and the underlay devices on which it does.
    pub guarded: Vec<IfName>,
    /// Where the tunnel's headers are stripped.
    pub rx: Rx,
}

/// What the eBPF programs do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FastPathState {
    /// They carry the traffic that they understand.
    On,
    /// An operator, or the configuration, has switched them off.
    Off,
    /// They cannot be loaded.
    Unavailable,
}

/// The state of a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkStatus {
    /// Its name.
    pub name: Name,
    /// Its VXLAN network identifier.
    pub vni: Vni,
    /// Its UDP port.
    pub port: u16,
    /// Its addresses, by family.
    pub ranges: Vec<RangeStatus>,
    /// In bytes.
    pub mtu: Option<u16>,
    /// As configured.
    pub fastpath: FastPath,
    /// What the programs leave to the kernel, because rules follow connections, and which rules.
    pub followed: Option<String>,
    /// As configured.
    pub dscp: Dscp,
    /// What is dropped, as configured.
    pub security: Security,
    /// Whether the packet filter gives what leaves the network the node's address.
    pub masquerade: bool,
    /// Whether the packet filter keeps it apart from the other networks of the node.
    pub isolated: bool,
    /// What of others leaves its tunnels, or all that its containers exchange, to the kernel.
    #[serde(default)]
    pub hooks: Vec<HookStatus>,
    /// What was carried on each path.
    pub carried: Carried,
    /// The other nodes.
    pub peers: Vec<PeerStatus>,
}

/// What a network has carried between this node and its peers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    /// By the eBPF programs: the sum over its peers.
    pub fastpath: stats::PathCounts,
    /// By the kernel's VXLAN devices.
    pub kernel: stats::PathCounts,
}

/// A network's addresses of one family.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeStatus {
    /// All of them.
    pub cidr: IpNet,
    /// This node's share.
    pub subnet: IpNet,
    /// The bridge's address.
    pub gateway: IpAddr,
}

/// Something that others have hooked in on the kernel's way, and that is heeded: what it concerns
/// is left to the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookStatus {
    /// The device of the node where it is.
    pub device: IfName,
    /// What it is, as the tools that show it call it.
    pub what: String,
}

/// One of several next hops on the way to a peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextHopStatus {
    /// The device.
    pub dev: IfName,
    /// The neighbour.
    pub via: IpAddr,
    /// Its share, next to those of the others.
    pub weight: u16,
}

/// The state of a peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Its name.
    pub name: Name,
    /// Its outer address.
    pub vtep: IpAddr,
    /// MAC of its VXLAN device.
    pub mac: Mac,
    /// Its shares of the network.
    pub subnets: Vec<IpNet>,
    /// The underlay device that leads to it; `None` without a route.
    pub dev: Option<IfName>,
    /// The underlay neighbour that leads to it.
    pub via: Option<IpAddr>,
    /// All next hops that flows to it are spread over; empty where there is one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub next_hops: Vec<NextHopStatus>,
    /// Slot in the map of counters.
    pub slot: Option<u32>,
    /// What the programs have sent to it, dropped of it and received from it.
    pub traffic: Option<Traffic>,
    /// What probes have found out; `None` before the first one.
    pub health: Option<PeerHealth>,
}

/// Counters of a peer; inner frames with their Ethernet headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Traffic {
    pub tx_packets: u64,
    pub tx_bytes: u64,
    pub rx_packets: u64,
    pub rx_bytes: u64,
    pub dropped_packets: u64,
    pub dropped_bytes: u64,
}

/// The state of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointStatus {
    /// Its name.
    pub name: Name,
    /// Its network.
    pub network: Name,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its interface inside.
    pub interface: IfName,
    /// Its namespace.
    pub netns: PathBuf,
    /// Whether it forwards packets to others behind it.
    pub forwarding: bool,
    /// Where those others are.
    pub allowed_sources: Vec<IpNet>,
    /// The MAC of its interface; `None` while it is not attached.
    pub mac: Option<Mac>,
    /// The node's side of its veth; `None` while it is not attached.
    pub device: Option<IfName>,
    /// The index of that device on the node.
    pub ifindex: Option<u32>,
    /// Whether the configuration names it, or it was added at run time.
    pub configured: bool,
    /// What of others leaves its packets to the kernel.
    #[serde(default)]
    pub hooks: Vec<HookStatus>,
    /// What its runtime knows it by, where one has asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attachment: Option<Attachment>,
}
