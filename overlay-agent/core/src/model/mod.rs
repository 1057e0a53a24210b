//! The validated desired state: a node, its networks, their peers and endpoints.
//!
//! Only [`crate::config`] makes these values, so what stands here is consistent:
//! subnets lie inside their network and do not overlap, names and VTEPs are
//! unique, every endpoint names a network that exists.

mod claims;
mod endpoint;
mod keys;
mod log_level;
mod metrics;
mod names;
mod peers;
mod probe;
mod range;
mod security;
mod types;

use std::{net::IpAddr, path::PathBuf};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub(crate) use claims::{overlap, taken};
pub use endpoint::{Attachment, Endpoint, NetnsRef};
pub use keys::PublicKey;
pub use log_level::LogLevel;
pub use metrics::Metrics;
pub use names::{NameServer, Names, Zone};
pub use peers::Peers;
pub use probe::Probe;
pub use range::Range;
pub use security::{Security, Verdict};
pub use types::{DeviceName, Family, IfName, InvalidValue, Mac, Name, Vni};

/// For `#[serde(try_from = "String", into = "String")]`: in files and on the wire these types are the
/// text that `FromStr` reads and `Display` writes.
macro_rules! as_text {
    ($($text:ty),+) => {$(
        impl TryFrom<String> for $text {
            type Error = InvalidValue;

            fn try_from(text: String) -> Result<Self, InvalidValue> {
                text.parse()
            }
        }

        impl From<$text> for String {
            fn from(value: $text) -> Self {
                value.to_string()
            }
        }
    )+};
}

as_text!(IfName, Mac, Name, PublicKey, Probe);

/// Smallest MTU of a link that carries IPv6 (RFC 8200 §5).
pub const MIN_IPV6_MTU: u16 = 1280;

/// The whole desired state of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// This node.
    pub node: Node,
    /// The store that one of the networks comes from.
    pub cluster: Option<Cluster>,
    /// Its networks, by ascending VNI.
    pub networks: Vec<Network>,
    /// Its endpoints, in the order of the configuration.
    pub endpoints: Vec<Endpoint>,
    /// Endpoints that are not among them, since the configuration contradicts what was added at run
    /// time.
    pub clashes: Vec<Clash>,
}

/// An endpoint that the configuration and what was added at run time do not both leave room for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Clash {
    /// The configuration's: another container was added by its name.
    Name {
        /// The endpoint of the configuration.
        endpoint: Name,
        /// Where the container is that has the name.
        netns: NetnsRef,
    },
    /// The configuration's: a container has its address.
    Address {
        /// The endpoint of the configuration.
        endpoint: Name,
        /// The address.
        address: IpAddr,
        /// The endpoint that has it.
        by: Name,
    },
    /// The configuration's: its interface in that namespace is another endpoint's.
    Interface {
        /// The endpoint of the configuration.
        endpoint: Name,
        /// The interface.
        interface: IfName,
        /// The endpoint that has it.
        by: Name,
    },
    /// One that was added at run time: its network is gone.
    Network {
        /// The endpoint.
        endpoint: Name,
        /// Its network.
        network: Name,
        /// Where its container is.
        netns: NetnsRef,
    },
    /// The same: the address that it asks for is not in this node's subnet any more.
    Subnet {
        /// The endpoint.
        endpoint: Name,
        /// Its network.
        network: Name,
        /// Its address.
        address: IpAddr,
        /// Where its container is.
        netns: NetnsRef,
    },
}

impl Clash {
    /// An endpoint that may come back with the configuration, and where its container is.
    pub fn waiting(&self) -> Option<(&Name, &NetnsRef)> {
        match self {
            Self::Network {
                endpoint, netns, ..
            }
            | Self::Subnet {
                endpoint, netns, ..
            } => Some((endpoint, netns)),
            Self::Name { .. } | Self::Address { .. } | Self::Interface { .. } => None,
        }
    }
}

impl Model {
    /// The network of this name.
    pub fn network(&self, name: &Name) -> Option<&Network> {
        self.networks.iter().find(|network| network.name == *name)
    }

    /// How many peers there are in all networks together.
    pub fn peer_count(&self) -> usize {
        self.networks
            .iter()
            .map(|network| network.peers.len())
            .sum()
    }
}

/// The node itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name; also the instance's, unless the command line gives another.
    pub name: Name,
    /// Where tunnel packets leave and arrive.
    pub underlay: Underlay,
    /// Its outer addresses as configured, at most one of a family; others are found.
    pub vteps: Vec<IpAddr>,
    /// Whether XDP looks at packets of the underlay before the stack does.
    pub guard: Guard,
    /// Where the tunnel's headers are stripped.
    pub rx: Rx,
    /// Where Prometheus finds its counters.
    pub metrics: Metrics,
    /// Whether it asks after its peers, and answers them.
    pub probe: Probe,
    /// Whether it answers for the names of its containers.
    pub names: Option<Names>,
}

impl Node {
    /// Its outer addresses, as far as the configuration tells them.
    pub fn configured_vteps(&self) -> Vec<IpAddr> {
        match self.underlay {
            Underlay::Address(address) => vec![address],
            Underlay::Interfaces(_) => self.vteps.clone(),
        }
    }

    /// The one of a family.
    pub fn configured_vtep(&self, family: Family) -> Option<IpAddr> {
        let mut vteps = self.configured_vteps().into_iter();
        vteps.find(|vtep| Family::of(*vtep) == family)
    }
}

/// A store that defines a network, and whom this node asks for a subnet there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Members of etcd, as URLs.
    pub etcd: Vec<String>,
    /// Where it is written what they ask for.
    pub access: ClusterAccess,
    /// Where flannel's keys begin, without a slash at the end.
    pub prefix: String,
    /// The network's name on this node.
    pub network: Name,
    /// The subnet that is asked for, at most one prefix of a family; any when empty.
    pub subnet: Vec<IpNet>,
    /// Whether what leaves the network gets the node's address.
    pub masquerade: bool,
    /// Whether the eBPF programs carry the network.
    pub fastpath: FastPath,
    /// Encryption of its tunnels, if any.
    pub wireguard: Option<WireGuard>,
    /// Where flannel's CNI plugin finds the subnet.
    pub subnet_env: Option<PathBuf>,
}

/// Files with what members of a cluster's store ask for. They are read again when they change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterAccess {
    /// Certificates that theirs are signed by.
    pub ca: Option<PathBuf>,
    /// This node's certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// A user, and the file with the password.
    pub user: Option<(String, PathBuf)>,
}

/// How the configuration points at the underlay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Underlay {
    /// Interfaces; a VTEP that is not configured is an address of one of them.
    Interfaces(Vec<DeviceName>),
    /// The VTEP's address; its interface is looked up.
    Address(IpAddr),
}

/// How the XDP program of the underlay runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Guard {
    /// Not at all.
    #[default]
    Off,
    /// In the driver.
    Native,
    /// In the stack, with any driver.
    Generic,
}

/// Where the outer headers of a packet that arrives are stripped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rx {
    /// At TC, from what GRO has merged.
    #[default]
    Tc,
    /// In the driver, before GRO, so that the inner flow is merged.
    Xdp,
}

/// How much a network depends on the eBPF programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FastPath {
    /// Used when the programs can be loaded; the kernel's VXLAN device alone otherwise.
    #[default]
    Auto,
    /// The agent does not start without it.
    Required,
    /// The kernel's VXLAN device alone.
    Off,
}

/// The DSCP of the outer header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dscp {
    /// 0, as the kernel's VXLAN device sends it.
    #[default]
    Zero,
    /// That of the inner header.
    Copy,
}

/// Encryption of a network's tunnels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireGuard {
    /// UDP port of all nodes, here too.
    pub port: u16,
    /// The one beside it while a node's key changes.
    pub next_port: u16,
}

impl WireGuard {
    /// The port that people use.
    pub const USUAL_PORT: u16 = 51_820;

    /// The port that goes with another one, if none is given.
    pub const fn usual_next_port(port: u16) -> u16 {
        match port.checked_add(1) {
            Some(next) => next,
            None => port - 1,
        }
    }

    /// Bytes that it adds to a packet on its way to an address of this family (IP, UDP and 32 of its own).
    pub const fn overhead(family: Family) -> u32 {
        match family {
            Family::V4 => 60,
            Family::V6 => 80,
        }
    }
}

/// One overlay network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Its name on this node.
    pub name: Name,
    /// Its VXLAN network identifier.
    pub vni: Vni,
    /// UDP port of all its VTEPs.
    pub port: u16,
    /// Its addresses, one range of each family that it has.
    pub ranges: Vec<Range>,
    /// Largest inner IP packet in bytes; `None`: what the underlay carries.
    pub mtu: Option<u16>,
    /// Whether the eBPF programs carry it.
    pub fastpath: FastPath,
    /// Whether what leaves it gets the node's address.
    pub masquerade: bool,
    /// The outer DSCP.
    pub dscp: Dscp,
    /// Its security rules.
    pub security: Security,
    /// Encryption of its tunnels, if any.
    pub wireguard: Option<WireGuard>,
    /// The other nodes.
    pub peers: Peers,
}

impl Network {
    /// Its addresses of a family.
    pub fn range(&self, family: Family) -> Option<&Range> {
        self.ranges.iter().find(|range| range.family() == family)
    }

    /// UDP port to which this node sends what leaves it for other nodes.
    pub fn outer_port(&self) -> u16 {
        self.wireguard.map_or(self.port, |wireguard| wireguard.port)
    }

    /// Whether it has IPv6 inside.
    pub fn has_ipv6(&self) -> bool {
        self.range(Family::V6).is_some()
    }
}

/// Another node of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its name, for people.
    pub name: Name,
    /// Its outer address.
    pub vtep: IpAddr,
    /// Its shares of the network.
    pub subnets: Vec<IpNet>,
    /// MAC of its VXLAN device.
    pub mac: Mac,
    /// Whether it drops UDP over IPv6 without a checksum, as a kernel's VXLAN device does by default.
    pub udp6_checksum: bool,
    /// Whether it is a node of ours, on which an agent should answer.
    pub has_agent: bool,
    /// Its key, where tunnels are encrypted.
    pub public_key: Option<Box<PublicKey>>,
    /// The one that it is about to have instead.
    pub next_public_key: Option<Box<PublicKey>>,
}
