//! What is not ours and yet decides what ours must look like.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

use crate::{
    model::{Family, IfName, Name},
    objects::Objects,
    shared::Shared,
};

/// One look at the kernel.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// What is provably ours.
    pub objects: Objects,
    /// What it stands among.
    pub around: Surroundings,
}

/// The node without what is ours, as far as it matters.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// Every device of the node, ours too.
    pub links: BTreeMap<IfName, NodeLink>,
    /// The way to each VTEP that has one.
    pub ways: Shared<BTreeMap<IpAddr, Way>>,
    /// Kernel settings that may have to be changed, by path below `/proc/sys`.
    pub sysctls: BTreeMap<String, String>,
    /// Routes of others in the main table without a metric of their own, with their device.
    pub routes: BTreeMap<IpNet, Option<IfName>>,
    /// Those that ours could not be made beside, because they have the very metric that one of
    /// ours would have; by destination and metric.
    pub in_place: BTreeMap<(IpNet, u32), Option<IfName>>,
    /// UDP ports of ours that a socket of somebody else has.
    pub busy_ports: BTreeSet<(Family, u16)>,
    /// The namespaces of the endpoints.
    pub endpoints: BTreeMap<Name, EndpointPlace>,
    /// Why there can be no packet filter rules; looked for only when they are needed.
    pub no_filter: Option<String>,
    /// Whether the table that ours would be is somebody else's; and which other instance's, where
    /// its mark says so. Looked for only when rules are needed, or may have been made.
    pub filter_of: Option<Option<Name>>,
    /// Networks whose connections rules of others follow, and which rules, in a sentence.
    pub followed: BTreeMap<Name, String>,
}

impl Surroundings {
    /// The device with an index.
    pub fn device(&self, index: u32) -> Option<IfName> {
        let mut links = self.links.iter();
        links.find_map(|(name, link)| (link.index == index).then_some(*name))
    }
}

/// A device of the node.
#[derive(Clone, Debug, Default)]
pub struct NodeLink {
    /// Interface index.
    pub index: u32,
    /// Hardware address, where that is an Ethernet one.
    pub mac: Option<[u8; 6]>,
    /// In bytes.
    pub mtu: u32,
    /// `IFLA_INFO_KIND`, empty for hardware.
    pub kind: String,
    /// Whether it carries this instance's mark.
    pub ours: bool,
    /// The instance whose mark it carries, this one or another.
    pub owner: Option<Name>,
    /// UDP port, of a VXLAN device.
    pub vxlan_port: Option<u16>,
    /// Its addresses, primary ones first.
    pub addresses: Vec<IpNet>,
}

/// How the underlay reaches an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// The device that packets leave by.
    pub link: IfName,
    /// The neighbour that gets them: a router, or the address itself.
    pub next_hop: IpAddr,
    /// MTU of the path in bytes, where a router on it has told that it is less than the link's.
    pub path_mtu: Option<u32>,
}

/// What was found where an endpoint should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointPlace {
    /// There is no such namespace.
    Absent,
    /// It is the node's own namespace.
    Node,
    /// The namespace is there.
    There {
        /// It has an interface of the endpoint's name that is not ours.
        interface_taken: bool,
        /// It has default routes of its own through these devices.
        default_routes: BTreeMap<Family, String>,
    },
}
