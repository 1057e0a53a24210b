//! The agent's configuration file as the lab and the tests write it.
//!
//! Deliberately not the agent's own types: what the file looks like is a contract,
//! and a test that shared the reader's code would not notice when it is broken.

use std::collections::BTreeMap;

use serde::Serialize;

/// A whole file.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Config {
    /// This node.
    pub node: NodeSection,
    /// Its networks.
    pub networks: Vec<Network>,
    /// Its containers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<Endpoint>,
}

/// `[node]`
#[derive(Clone, Debug, Default, Serialize)]
pub struct NodeSection {
    /// Name, and the instance's name.
    pub name: String,
    /// Interface.
    pub underlay: String,
    /// Outer addresses, where they are not the interface's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub vtep: Vec<String>,
    /// XDP before everything else: `off`, `native` or `generic`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guard: Option<&'static str>,
    /// Where tunnel headers are stripped: `tc` or `xdp`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rx: Option<&'static str>,
    /// Where counters are exported: an address, or `off`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<String>,
    /// `off`, `answer`, or how often peers are probed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probe: Option<&'static str>,
}

/// `[[networks]]`
#[derive(Clone, Debug, Default, Serialize)]
pub struct Network {
    /// Name that endpoints refer to.
    pub name: String,
    /// VXLAN network identifier.
    pub vni: u32,
    /// UDP port.
    pub port: u16,
    /// The whole network.
    pub cidr: Vec<String>,
    /// This node's share.
    pub subnet: Vec<String>,
    /// `auto`, `required` or `off`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fastpath: Option<String>,
    /// Whether what leaves the network is sent from the node's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub masquerade: Option<bool>,
    /// The outer header's DSCP: `zero`, or `copy` of the inner one's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dscp: Option<&'static str>,
    /// `drop` or `accept` for each rule that is not left at its default.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub security: BTreeMap<&'static str, &'static str>,
    /// The other nodes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<Peer>,
}

/// `[[networks.peers]]`
#[derive(Clone, Debug, Default, Serialize)]
pub struct Peer {
    /// Name.
    pub name: String,
    /// Outer address.
    pub vtep: String,
    /// Its share of the network.
    pub subnet: Vec<String>,
    /// MAC of its VXLAN device, when not derived by the rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Whether it needs UDP checksums over IPv6.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub udp6_checksum: Option<bool>,
}

impl Peer {
    /// One that is nowhere: its subnet is in `10.64.0.0/10`, its VTEP in `192.0.0.0/16`.
    pub fn absent(number: u16, vtep: u16) -> Self {
        let ([high, low], [x, y]) = (vtep.to_be_bytes(), number.to_be_bytes());
        Self {
            name: format!("many{number}"),
            vtep: format!("192.0.{high}.{low}"),
            subnet: vec![format!("10.{}.{y}.0/24", 64 + x)],
            ..Self::default()
        }
    }
}

/// `[[endpoints]]`
#[derive(Clone, Debug, Default, Serialize)]
pub struct Endpoint {
    /// Name.
    pub name: String,
    /// A network's name.
    pub network: String,
    /// Name or path of its namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netns: Option<String>,
    /// A process in its namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Its addresses; the next free one when empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub address: Vec<String>,
    /// Its interface; `eth0` when not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Whether it forwards for others behind it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forwarding: Option<bool>,
    /// Prefixes of those others.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed_sources: Vec<String>,
}

impl Config {
    /// The file's text.
    #[expect(
        clippy::missing_panics_doc,
        clippy::expect_used,
        reason = "strings, numbers, lists and tables are all that TOML knows, and all that is here"
    )]
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a configuration is TOML")
    }
}

/// Number of the first line that contains a text, counted from 1.
pub fn line_of(text: &str, part: &str) -> Option<usize> {
    text.lines()
        .position(|line| line.contains(part))
        .map(|index| index + 1)
}
