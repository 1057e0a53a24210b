//! The validated desired state: a node, its networks, their peers and endpoints.
//!
//! Only [`crate::config`] makes these values, so what stands here is consistent:
//! subnets lie inside their network and do not overlap, names and VTEPs are
//! unique, every endpoint names a network that exists.

mod types;

use std::{
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

pub use types::{IfName, InvalidValue, Mac, Name, Vni};

/// The whole desired state of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// This node.
    pub node: Node,
    /// Its networks, by ascending VNI.
    pub networks: Vec<Network>,
    /// Its endpoints, in the order of the configuration.
    pub endpoints: Vec<Endpoint>,
}

impl Model {
    /// The network of this name.
    pub fn network(&self, name: &Name) -> Option<&Network> {
        self.networks.iter().find(|network| network.name == *name)
    }
}

/// The node itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name; also the instance's, unless the command line gives another.
    pub name: Name,
    /// Where tunnel packets leave and arrive.
    pub underlay: Underlay,
}

/// How the configuration points at the underlay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Underlay {
    /// Interfaces; the first address of the first one that has one is the VTEP.
    Interfaces(Vec<IfName>),
    /// The VTEP's address; its interface is looked up.
    Address(IpAddr),
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

/// One overlay network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Its name on this node.
    pub name: Name,
    /// Its VXLAN network identifier.
    pub vni: Vni,
    /// UDP port of all its VTEPs.
    pub port: u16,
    /// All addresses of the network; every subnet is a part of it.
    pub cidr: Ipv4Net,
    /// This node's share; the first address is the gateway's.
    pub subnet: Ipv4Net,
    /// Largest inner IP packet in bytes; `None`: what the underlay carries.
    pub mtu: Option<u16>,
    /// Whether the eBPF programs carry it.
    pub fastpath: FastPath,
    /// The other nodes.
    pub peers: Vec<Peer>,
}

impl Network {
    /// The bridge's address: the first of the subnet.
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.subnet.network().to_bits() + 1)
    }
}

/// Another node of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its name, for people.
    pub name: Name,
    /// Its outer address.
    pub vtep: Ipv4Addr,
    /// Its shares of the network.
    pub subnets: Vec<Ipv4Net>,
    /// MAC of its VXLAN device.
    pub mac: Mac,
}

/// A container that is attached to a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Its name, unique on the node.
    pub name: Name,
    /// The network it belongs to.
    pub network: Name,
    /// Its network namespace.
    pub netns: NetnsRef,
    /// Its address; `None`: the next free one of the subnet.
    pub address: Option<Ipv4Addr>,
    /// Its interface inside the namespace.
    pub interface: IfName,
}

/// How a network namespace is found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetnsRef {
    /// A name under `/run/netns`, as `ip netns` keeps them; made when it is not there.
    Name(Name),
    /// A path to a namespace file; must exist.
    Path(PathBuf),
    /// The namespace of a process; must exist.
    Pid(u32),
}

impl NetnsRef {
    /// The file that stands for the namespace.
    pub fn path(&self) -> PathBuf {
        match self {
            Self::Name(name) => PathBuf::from("/run/netns").join(name.as_str()),
            Self::Path(path) => path.clone(),
            Self::Pid(pid) => PathBuf::from(format!("/proc/{pid}/ns/net")),
        }
    }
}
