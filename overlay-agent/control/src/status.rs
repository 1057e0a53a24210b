//! The node's state, as `status` tells it.

use std::{net::IpAddr, path::PathBuf};

use ipnet::IpNet;
use overlay_core::model::{
    Attachment, Dscp, FastPath, Guard, IfName, LogLevel, Mac, Name, PublicKey, Rx, Security, Vni,
};
use serde::{Deserialize, Serialize};

use super::{PeerHealth, ProbeStatus, Problem, capture, stats};

/// The state of a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// [`SCHEMA`](super::SCHEMA).
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
    /// The table that enforces the networks' rules on the kernel's path.
    pub guard_table: GuardTableStatus,
    /// Its networks.
    pub networks: Vec<NetworkStatus>,
    /// Its endpoints.
    pub endpoints: Vec<EndpointStatus>,
    /// Its part in probing.
    pub probe: ProbeStatus,
    /// Whose names it answers for, where it does.
    #[serde(default)]
    pub names: Option<NamesStatus>,
    /// Level at which the programs log packets.
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
    /// Whether this node encrypts the network.
    #[serde(default)]
    pub encrypted: bool,
    /// How many of the other nodes have a key for that in the store.
    #[serde(default)]
    pub with_key: usize,
    /// What some of those are called that have none.
    #[serde(default)]
    pub without_key: Vec<String>,
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
    /// Their state.
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

/// State of the eBPF programs.
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
    /// Packets left to the kernel because rules follow connections, and those rules.
    pub followed: Option<String>,
    /// As configured.
    pub dscp: Dscp,
    /// Packets that are dropped by configuration.
    pub security: Security,
    /// Whether the packet filter gives what leaves the network the node's address.
    pub masquerade: bool,
    /// Whether the packet filter keeps it apart from the other networks of the node.
    pub isolated: bool,
    /// Hooks of others for which its tunnels, or all its containers' packets, go by the kernel.
    #[serde(default)]
    pub hooks: Vec<HookStatus>,
    /// Encryption of its tunnels, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<EncryptionStatus>,
    /// Traffic of each path.
    pub carried: Carried,
    /// The other nodes.
    pub peers: Vec<PeerStatus>,
}

/// How a network's tunnels are encrypted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EncryptionStatus {
    /// The `WireGuard` device.
    pub device: IfName,
    /// UDP port of all nodes.
    pub port: u16,
    /// The public half of this node's key; `None` before it has one.
    pub public_key: Option<PublicKey>,
    /// Whether the device is there. Until it is for the first time, the network goes on as it was before.
    pub in_force: bool,
    /// That of the key that it is about to have instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_public_key: Option<PublicKey>,
    /// The device beside it while a key changes, its own or a peer's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub second_device: Option<IfName>,
    /// Whether all peers are sent to by that one, and nothing comes by the other one any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_second: bool,
}

/// How the tunnel to a peer is encrypted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerEncryption {
    /// The peer's key that is in use, as it is configured here.
    pub public_key: PublicKey,
    /// The device by which it is sent to; `None` before anything is.
    #[serde(default)]
    pub device: Option<IfName>,
    /// Milliseconds since both have last agreed on keys; `None`: never.
    pub handshake_age_ms: Option<u64>,
    /// Bytes of what was sent to it, with all that encryption adds.
    pub tx_bytes: u64,
    /// The same of what came from it.
    pub rx_bytes: u64,
}

/// Traffic of a network between this node and its peers.
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

/// Counts of name queries by outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamesStatus {
    /// The domain that networks have their names in.
    pub zone: String,
    /// Where it answers.
    pub at: Vec<IpAddr>,
    /// Questions that this node knew the answer to.
    pub answered: u64,
    /// Those that it put to peers.
    pub asked_of_peers: u64,
    /// Those that it handed to other name servers.
    pub forwarded: u64,
    /// Those that nobody answered.
    pub failed: u64,
}

/// Something that others have hooked in on the kernel's way, and that is heeded: what it concerns
/// is left to the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookStatus {
    /// The device of the node where it is.
    pub device: IfName,
    /// Its kind, by the name that its tools use.
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
    /// Packets that the programs have sent to it, received from it, left to the kernel, and dropped.
    pub traffic: Option<Traffic>,
    /// Its health by the probes; `None` before the first one.
    pub health: Option<PeerHealth>,
    /// How its tunnel is encrypted, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<PeerEncryption>,
}

/// Counters of a peer; inner frames with their Ethernet headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Traffic {
    pub tx_packets: u64,
    pub tx_bytes: u64,
    pub rx_packets: u64,
    pub rx_bytes: u64,
    #[serde(default)]
    pub passed_packets: u64,
    #[serde(default)]
    pub passed_bytes: u64,
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
    /// Hooks of others for which its packets are left to the kernel.
    #[serde(default)]
    pub hooks: Vec<HookStatus>,
    /// Its identity for the runtime that has asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attachment: Option<Attachment>,
}
