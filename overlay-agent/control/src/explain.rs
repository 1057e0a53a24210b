//! A packet's path, hop by hop.

use std::net::IpAddr;

use overlay_core::model::{IfName, Name};
use serde::{Deserialize, Serialize};

/// A packet to be explained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// The sender: an endpoint's name or address, or `node`.
    pub from: String,
    /// The destination: an endpoint's name, `node`, or any address.
    pub to: String,
    /// Another source address than the sender's.
    pub source: Option<IpAddr>,
    /// The protocol.
    pub protocol: Protocol,
    /// Its ports, of UDP and TCP.
    pub source_port: Option<u16>,
    /// The same at the destination.
    pub destination_port: Option<u16>,
    /// Bytes of the IP packet.
    pub size: Option<u16>,
    /// Its TTL or hop limit.
    pub ttl: Option<u8>,
    /// Whether routers must not fragment it.
    pub dont_fragment: bool,
}

/// A packet's protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// An echo request
    #[default]
    Icmp,
    /// A datagram
    Udp,
    /// The first segment of a connection
    Tcp,
    /// An ARP request
    Arp,
}

/// A frame on the underlay that another node has sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Received {
    /// The frame from its Ethernet header on, in hexadecimal; its MACs do not matter.
    pub frame: String,
}

/// A packet's path on one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hop {
    /// The node.
    pub node: Name,
    /// The instance.
    pub instance: Name,
    /// The programs that it meets, in their order.
    pub stages: Vec<Stage>,
    /// The kernel's decisions about a packet that is left to it, one sentence each.
    pub kernel: Vec<String>,
    /// Where it ends here.
    pub end: End,
}

/// A packet in one program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// The program.
    pub program: String,
    /// The device that it is attached to.
    pub device: IfName,
    /// The kernel's hash of the program that was run,
    pub tag: String,
    /// and its length in instructions.
    pub instructions: u32,
    /// The program on the device; the same, as a rule.
    pub attached: Attached,
    /// The packet as it comes.
    pub before: Packet,
    /// The program's decisions, in order.
    pub decisions: Vec<Decision>,
    /// How the packet left it.
    pub verdict: Verdict,
    /// The packet as it goes, when it was changed.
    pub after: Option<Packet>,
    /// Nanoseconds that the program takes, its caches warm.
    pub ns: u64,
}

/// The program on a device, compared with the one that was run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Attached {
    /// The same program.
    Same,
    /// The same, loaded to say more: for a capture or the log.
    Watched,
    /// Another one; its tag.
    Other(String),
    /// None: the fast path is off.
    Nothing,
}

/// A packet, in bytes and in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packet {
    /// Bytes of the frame.
    pub length: usize,
    /// Its headers, outermost first.
    pub headers: Vec<Header>,
    /// The frame in hexadecimal.
    pub bytes: String,
}

/// A header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// `Ethernet`, `IPv4`, `UDP`, `VXLAN` …
    pub name: String,
    /// Names and values, in their order.
    pub fields: Vec<(String, String)>,
}

impl Header {
    /// A field's value.
    pub fn field(&self, name: &str) -> Option<&str> {
        let field = self.fields.iter().find(|(known, _)| known == name);
        field.map(|(_, value)| value.as_str())
    }
}

/// A decision after which the program went on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Its name: see `overlay_common::journal::Step`.
    pub step: String,
    /// The same in words.
    pub text: String,
    /// The rows that decided it, with names instead of numbers.
    pub by: Option<String>,
}

/// How a packet left a program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Sent on, left to the kernel, or dropped.
    pub action: Action,
    /// The reason's name, as counters have it.
    pub reason: Option<String>,
    /// The rule of `[networks.security]` that it was dropped by.
    pub rule: Option<String>,
    /// The same in words.
    pub text: String,
    /// The cure.
    pub cure: Option<String>,
    /// The peer, as far as the program knows one.
    pub peer: Option<Name>,
}

/// A program's verdict on a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Redirected: to the underlay or into a container.
    Forwarded,
    /// Let go on, unchanged.
    Passed,
    /// Dropped.
    Dropped,
}

/// Where a packet's journey through a node ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// At an endpoint.
    Delivered {
        /// Its name.
        endpoint: Name,
        /// TTL or hop limit that is left.
        ttl: Option<u8>,
    },
    /// On the underlay.
    Underlay {
        /// The device.
        device: Option<IfName>,
        /// The node that it is for.
        vtep: IpAddr,
        /// The frame in hexadecimal.
        frame: String,
    },
    /// In the kernel's hands: whether that brings it where it should be.
    Kernel {
        /// As far as it can be told.
        delivers: bool,
    },
    /// Dropped by a program.
    Dropped,
}

impl End {
    /// Whether the packet is where it should be, or on its way there.
    pub fn is_good(&self) -> bool {
        match self {
            Self::Delivered { .. } | Self::Underlay { .. } => true,
            Self::Kernel { delivers } => *delivers,
            Self::Dropped => false,
        }
    }
}
