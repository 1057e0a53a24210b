//! Entries of the eBPF maps, in the agent's terms.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use ipnet::IpNet;
use overlay_common::maps;
use serde::Serialize;

use crate::model::{IfName, Mac, Vni};

/// Entries of the eBPF maps that are few, with devices by name where the map has an index.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Entries {
    /// [`maps::NETWORKS`].
    pub networks: BTreeMap<Vni, maps::Network>,
    /// [`maps::ENDPOINTS4`] and [`maps::ENDPOINTS6`].
    pub endpoints: BTreeMap<(Vni, IpAddr), EndpointEntry>,
    /// [`maps::PORTS`].
    pub ports: BTreeMap<LinkRef, maps::Port>,
    /// [`maps::SOURCES`].
    pub sources: BTreeSet<(LinkRef, IpNet)>,
    /// [`maps::CIDRS`].
    pub cidrs: BTreeMap<IpNet, Vni>,
    /// Rows that none of these entries makes.
    pub strays: BTreeSet<Stray>,
}

/// A row of a map that nobody of ours can have written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Stray {
    /// The map's name.
    pub map: &'static str,
    /// Its key in bytes,
    pub key: Vec<u8>,
    /// and its value.
    pub value: Vec<u8>,
}

impl fmt::Display for Stray {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "with key")?;
        self.key
            .iter()
            .try_for_each(|byte| write!(f, " {byte:02x}"))
    }
}

/// A device that a map entry points at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkRef {
    /// A device of the node.
    Name(IfName),
    /// An index that no device has any more.
    Gone(u32),
}

impl fmt::Display for LinkRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Gone(index) => write!(f, "ifindex {index} (gone)"),
        }
    }
}

/// A [`maps::Endpoint`] by names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EndpointEntry {
    /// The network that it is in.
    #[serde(skip)]
    pub network: maps::Network,
    /// The node's side of its veth.
    pub link: LinkRef,
    /// Slot in [`ENDPOINT_STATS`](maps::ENDPOINT_STATS).
    pub slot: u32,
    /// MAC inside the container.
    pub mac: Mac,
    /// Whether it forwards packets to others behind it.
    pub forwarding: bool,
    /// Whether what it sends and gets is left to the kernel, for something of somebody else's to
    /// have its turn.
    pub hooked: bool,
}
