//! A packet that asks whoever gets it for an answer.

use std::net::IpAddr;

use overlay_core::model::Name;
use serde::{Deserialize, Serialize};

/// Whom to ask, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ping {
    /// The target: a peer's or endpoint's name, or an address of a network.
    pub to: String,
    /// The sender: an endpoint's name, or `node`; when left out an endpoint of the same network, or
    /// the node where there is none.
    pub from: Option<String>,
    /// IPv6, where a name has addresses of both families.
    #[serde(default)]
    pub ipv6: bool,
    /// Bytes of the IP packet, which nobody may cut up; 0: as few as possible.
    pub size: u16,
    /// How long to wait for an answer, in milliseconds.
    pub patience_ms: u32,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pinged {
    /// The endpoint that has asked; `None`: the node.
    pub endpoint: Option<Name>,
    /// From which address.
    pub from: IpAddr,
    /// The target.
    pub to: IpAddr,
    /// Which network both are of.
    pub network: Name,
    /// The largest IP packet that the network's devices take, in bytes.
    pub mtu: Option<u16>,
    /// The outcome.
    pub outcome: Outcome,
    /// From the question to its answer, in nanoseconds, if there was one.
    pub rtt_ns: Option<u64>,
}

/// The outcome of a ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was answered.
    Answered,
    /// A link on the way takes no packet of this size.
    TooBig,
    /// Nobody has answered in time.
    Silent,
    /// The sender had no way, or a filter of its own kept it from sending.
    Unsent,
}
