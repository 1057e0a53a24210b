//! Containers, and how their namespaces are found.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Family, IfName, Mac, Name};

/// A container that is attached to a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Its name, unique on the node.
    pub name: Name,
    /// The network it belongs to.
    pub network: Name,
    /// Its network namespace.
    pub netns: NetnsRef,
    /// Its addresses, at most one of a family; for one that is missing, the next free one of
    /// the subnet.
    pub addresses: Vec<IpAddr>,
    /// Its interface inside the namespace.
    pub interface: IfName,
    /// Whether it forwards packets to others behind it.
    pub forwarding: bool,
    /// Where those others are: it may send from there, and the node sends there through it.
    pub allowed_sources: Vec<IpNet>,
    /// Its hardware address, where it is not derived from its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// Its identity for the runtime that has asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attachment: Option<Attachment>,
}

/// A container runtime's identity of an endpoint, together with its interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The source that asked for it.
    pub source: String,
    /// The runtime's name for the container.
    pub container: String,
    /// Labels for people, such as the names of its pod.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Whether the default route is its runtime's to set.
    #[serde(default)]
    pub routed_by_runtime: bool,
}

impl Endpoint {
    /// Name of the node itself in commands that take an endpoint: no endpoint has it.
    pub const NODE: &str = "node";

    /// The address of a family that it asks for.
    pub fn address(&self, family: Family) -> Option<IpAddr> {
        let mut addresses = self.addresses.iter().copied();
        addresses.find(|address| Family::of(*address) == family)
    }

    /// Its identity for the runtime that has asked for it.
    pub fn key(&self) -> Option<overlay_api::Key> {
        self.attachment.as_ref().map(|attachment| overlay_api::Key {
            source: attachment.source.clone(),
            container: attachment.container.clone(),
            interface: self.interface.as_str().to_owned(),
        })
    }
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
