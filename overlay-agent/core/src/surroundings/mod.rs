//! What is not ours and yet decides what ours must look like.

mod hooks;
mod policy;
mod rules;
mod ways;
mod wireguard;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

use crate::{
    filter::Following,
    model::{Family, IfName, Name, PublicKey},
    objects::Objects,
    shared::Shared,
};

pub use hooks::{ForeignHook, Side, TcxPrograms};
pub use policy::{Direction, Policy};
pub use rules::{MAIN_TABLE, Routing, Rule, RuleAction, Table};
pub use ways::{Hop, NextHop, Question};
pub use wireguard::{NoWireguard, PeerTraffic};

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
    /// What the kernel was asked for them, once for all that nothing tells apart.
    pub asked: Shared<Vec<Asked>>,
    /// Kernel settings that may have to be changed, by path below `/proc/sys`.
    pub sysctls: BTreeMap<String, String>,
    /// Routes of others in the main table without a metric of their own, with their device.
    pub routes: BTreeMap<IpNet, Option<IfName>>,
    /// Those that ours could not be made beside, because they have the very metric that one of
    /// ours would have; by destination and metric.
    pub in_place: BTreeMap<(IpNet, u32), Option<IfName>>,
    /// The public half of this node's key, once it has one.
    pub public_key: Option<PublicKey>,
    /// That of the key that it is about to have instead.
    pub next_public_key: Option<PublicKey>,
    /// Why there can be no `WireGuard`; looked for only when it is needed.
    pub no_wireguard: Option<NoWireguard>,
    /// What has passed between our `WireGuard` devices and their peers.
    pub encrypted: BTreeMap<IfName, BTreeMap<PublicKey, PeerTraffic>>,
    /// Peers of these devices with whom keys were agreed on so lately that they still count.
    pub agreed: BTreeMap<IfName, BTreeSet<PublicKey>>,
    /// Those of these devices by which nothing has come for a while.
    pub silent: BTreeSet<IfName>,
    /// UDP ports of ours that a socket of somebody else has.
    pub busy_ports: BTreeSet<(Family, u16)>,
    /// The namespaces of the endpoints.
    pub endpoints: BTreeMap<Name, EndpointPlace>,
    /// Why there can be no packet filter rules; looked for only when they are needed.
    pub no_filter: Option<String>,
    /// Whether the table that ours would be is somebody else's; and which other instance's, where
    /// its mark says so. Looked for only when rules are needed, or may have been made.
    pub filter_of: Option<Option<Name>>,
    /// Why there can be no guard of the tunnels' ports.
    pub no_guard: Option<NoGuard>,
    /// Networks whose connections rules of others follow.
    pub followed: BTreeMap<Name, Following>,
    /// What others have hooked in at our devices and at the underlay's, but for what has its
    /// turn before our programs; by device.
    pub hooks: BTreeMap<IfName, Vec<ForeignHook>>,
    /// The TCX programs of those devices, ours too.
    pub programs: BTreeMap<(IfName, u32), TcxPrograms>,
    /// What `IPsec` has to do with packets.
    pub policies: Vec<Policy>,
    /// The prefixes that routes of others in the main table refuse, and how: `blackhole`,
    /// `prohibit`, `unreachable`.
    pub refused: BTreeMap<IpNet, &'static str>,
    /// Parts of networks that packet filter rules of others name and drop, or give other addresses,
    /// and the chains.
    pub named: BTreeMap<IpNet, String>,
    /// Networks that rules of others are meant for as a whole, and the chains.
    pub meant: BTreeMap<Name, BTreeSet<String>>,
    /// The same for what containers of this node exchange.
    pub meant_here: BTreeMap<Name, BTreeSet<String>>,
    /// Peers whose tunnels rules of others are meant for, by network and VTEP, and the chain.
    pub meant_peers: BTreeMap<(Name, IpAddr), String>,
    /// Whether such rules tell peers apart: who comes may be one of these.
    pub tells_peers_apart: bool,
    /// Where routes of others lead that are no default routes, by device and family; `None`:
    /// anywhere.
    pub exits: BTreeMap<(IfName, Family), Option<BTreeSet<IpNet>>>,
    /// Whether somebody else may translate addresses of what is forwarded.
    pub translated: bool,
    /// The rules of routing, and what the tables that they lead to do with networks.
    pub routing: Routing,
}

/// Why nothing stands, or can be made to stand, before the tunnels' ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoGuard {
    /// This machine has no `nft`, or this kernel no nftables.
    Unavailable(String),
    /// Whoever looks may not see the tables.
    Hidden(String),
    /// The tables cannot be listed.
    Failed(String),
    /// The table's name is taken by one that this instance did not make; and which other instance
    /// did, where its mark says so.
    Taken(Option<Name>),
}

impl NoGuard {
    /// Why, where the table has this name.
    pub fn cause(&self, table: &str) -> String {
        match self {
            Self::Unavailable(cause) | Self::Hidden(cause) | Self::Failed(cause) => cause.clone(),
            Self::Taken(_) => {
                format!("nftables table inet {table} is not one that this instance made")
            }
        }
    }
}

impl Surroundings {
    /// The device with an index.
    pub fn device(&self, index: u32) -> Option<IfName> {
        let mut links = self.links.iter();
        links.find_map(|(name, link)| (link.index == index).then_some(*name))
    }
}

/// What the packets of a device begin with (`ARPHRD_…`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LinkLayer {
    /// An Ethernet header.
    #[default]
    Ethernet,
    /// The IP header: they are those of a VPN, or of a tunnel.
    Ip,
    /// A header of another kind.
    Other,
    /// They never leave this machine.
    Loopback,
}

/// A device of the node.
#[derive(Clone, Debug, Default)]
pub struct NodeLink {
    /// Interface index.
    pub index: u32,
    /// Its alternative names.
    pub alternatives: Vec<String>,
    /// Hardware address, where that is an Ethernet one.
    pub mac: Option<[u8; 6]>,
    /// What its packets begin with.
    pub layer: LinkLayer,
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
    /// The VRF that it belongs to.
    pub vrf: Option<Vrf>,
    /// Its addresses, primary ones first.
    pub addresses: Vec<IpNet>,
    /// Those of them that may go soon: deprecated and temporary ones.
    pub passing: BTreeSet<IpAddr>,
}

/// A VRF: devices with a table of routes of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vrf {
    /// Its device.
    pub name: IfName,
    /// The number of its table.
    pub table: u32,
}

impl NodeLink {
    /// Whether an address is one of this device.
    pub fn has(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|net| net.addr() == address)
    }
}

/// A question about the way of tunnels' packets, and the kernel's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The question.
    pub question: Question,
    /// The one next hop that the kernel has chosen.
    pub answer: Option<NextHop>,
    /// All that it chooses among; `None` where no route with several can be the answer.
    pub hops: Option<Vec<Hop>>,
}

/// How the underlay reaches an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// The device that packets leave by.
    pub link: IfName,
    /// The neighbour that gets them: a router, or the address itself. A router may have an IPv6
    /// address on the way to an IPv4 one (RFC 8950 §4, RFC 5549).
    pub next_hop: IpAddr,
    /// MTU of the path in bytes, where the route says so, or over IPv6 a router that is on it.
    pub path_mtu: Option<u32>,
    /// All next hops, this one too, where there are several that flows are spread over.
    pub hops: Vec<WayHop>,
}

/// One of the next hops of a way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WayHop {
    /// The device that packets leave by.
    pub link: IfName,
    /// The neighbour that gets them.
    pub next_hop: IpAddr,
    /// Its share, next to those of the others.
    pub weight: u16,
}

impl Way {
    /// The devices that packets leave by.
    pub fn links(&self) -> impl Iterator<Item = IfName> + '_ {
        let more = self.hops.iter().map(|hop| hop.link);
        std::iter::once(self.link).chain(more)
    }
}

/// What was found where an endpoint should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointPlace {
    /// There is no such namespace.
    Absent,
    /// It is the node's own namespace.
    Node,
    /// It is the node of another instance, and this endpoint is not in it yet.
    OtherNode(Name),
    /// The namespace is there.
    There {
        /// It has an interface of the endpoint's name that is not ours.
        interface_taken: bool,
        /// It has default routes of its own through these devices.
        default_routes: BTreeMap<Family, String>,
    },
}
