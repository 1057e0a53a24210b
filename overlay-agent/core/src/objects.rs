//! The kernel objects that make up an overlay node.
//!
//! One type serves both sides of reconciliation: [`crate::desired`] computes the
//! [`Objects`] that should be, [`overlay_node::observe`] reads the [`Objects`] of ours
//! that are, and [`crate::plan`] is the difference.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use ipnet::IpNet;
use overlay_common::maps;
use serde::Serialize;

use crate::{
    model::{IfName, Mac, Name, Vni},
    shared::Shared,
};

mod attachments;
mod capacity;
mod entries;
mod filter;
mod guard;
mod leaving;
mod peers;
mod slots;
mod wireguard;

pub use attachments::{AttachmentState, Hook};
pub use capacity::Capacity;
pub use entries::{EndpointEntry, Entries, LinkRef, Stray};
pub use filter::{Filter, FilterRules, FilterTable, Masquerade, TableOwner, filter_table};
pub use guard::Fnv;
pub use guard::{
    Guard, GuardRules, GuardSenders, GuardedEndpoint, IN_THE_CLEAR, KERNEL_REASONS, Length,
    Senders, TUNNEL_FROM_ENDPOINT, UNREACHABLE, guard_table,
};
pub use leaving::Leaving;
pub use peers::{Outer, PeerEntries, PeerEntry, PeerObjects, Spread};

pub use wireguard::{Wireguard, WireguardPeer};

/// Protocol number of our routes, as `ip route` shows it (`rtm_protocol`; 111 is unassigned).
pub const ROUTE_PROTOCOL: u8 = 111;

/// Everything of one node that the agent makes, changes or removes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Objects {
    /// Namespaces under `/run/netns`.
    pub namespaces: BTreeSet<Name>,
    /// Kernel settings, by path below `/proc/sys`.
    pub sysctls: BTreeMap<String, String>,
    /// Network devices.
    pub links: BTreeMap<LinkId, Link>,
    /// Addresses on those devices.
    pub addresses: BTreeSet<Address>,
    /// Routes in the main table, without those to the peers: in containers, and to what is
    /// behind them.
    pub routes: BTreeMap<RouteKey, Route>,
    /// Ranges of networks with a route of last resort: an address in one that nobody has is
    /// unreachable, instead of being sent in the clear by another route of the node.
    pub last_resorts: BTreeSet<IpNet>,
    /// Keys, ports and peers of the `WireGuard` devices.
    pub wireguard: BTreeMap<IfName, Wireguard>,
    /// The entries that lead to the peers.
    pub peers: Shared<PeerObjects>,
    /// Permanent neighbours of the bridges, which have none of us.
    pub stray_neighbours: BTreeSet<(IfName, IpAddr)>,
    /// Forwarding entries of the VXLAN devices that lead to no peer.
    pub stray_fdb: BTreeSet<StrayFdb>,
    /// Names of the eBPF maps that are pinned.
    pub pins: BTreeSet<&'static str>,
    /// Entries of the eBPF maps, without those that lead to the peers.
    pub entries: Entries,
    /// Programs on devices; the value tells whether it is the program that is loaded now.
    pub attachments: BTreeMap<(IfName, Hook), AttachmentState>,
    /// Devices that got a clsact qdisc of us. One comes with the first program that needs it.
    pub qdiscs: BTreeSet<IfName>,
    /// Maps of other layouts, which another build of the agent has left: by ABI number.
    pub layouts: BTreeSet<u32>,
    /// The table of packet filter rules, when there is one.
    pub filter: Option<Filter>,
    /// The guard of the tunnels' ports, when there is one.
    pub guard: Option<Guard>,
}

impl Objects {
    /// Takes in those of an endpoint.
    pub fn extend_by_endpoint(&mut self, one: Self) {
        let Self {
            namespaces,
            links,
            addresses,
            routes,
            entries,
            attachments,
            ..
        } = one;
        self.namespaces.extend(namespaces);
        self.links.extend(links);
        self.addresses.extend(addresses);
        self.routes.extend(routes);
        self.entries.endpoints.extend(entries.endpoints);
        self.entries.ports.extend(entries.ports);
        self.attachments.extend(attachments);
    }

    /// Leaves out those of an endpoint, whose veth on the node is `host`. Its namespace may be
    /// another's, too.
    pub fn forget_endpoint(&mut self, endpoint: &Name, host: IfName) {
        let scope = Scope::Endpoint(endpoint.clone());
        let (device, link) = (LinkId::node(host), LinkRef::Name(host));
        self.links
            .retain(|id, _| *id != device && id.scope != scope);
        self.addresses.retain(|address| address.link.scope != scope);
        self.routes.retain(|key, _| key.scope != scope);
        self.entries.endpoints.retain(|_, entry| entry.link != link);
        self.entries.ports.remove(&link);
        self.attachments.retain(|(device, _), _| *device != host);
        self.qdiscs.remove(&host);
    }
}

/// The namespace that a device is in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// The node's own.
    Node,
    /// That of the endpoint with this name.
    Endpoint(Name),
}

/// A device by name and namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct LinkId {
    /// Where it is.
    pub scope: Scope,
    /// Its name there.
    pub name: IfName,
}

impl LinkId {
    /// A device of the node.
    pub fn node(name: IfName) -> Self {
        Self {
            scope: Scope::Node,
            name,
        }
    }
}

impl fmt::Display for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.scope {
            Scope::Node => write!(f, "{}", self.name),
            Scope::Endpoint(endpoint) => write!(f, "{} of endpoint {endpoint}", self.name),
        }
    }
}

/// A network device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Link {
    /// Its kind; a difference here means that it must be made anew.
    pub kind: LinkKind,
    /// Hardware address; `None`: any.
    pub mac: Option<Mac>,
    /// In bytes.
    pub mtu: u32,
    /// Administrative state.
    pub up: bool,
    /// The bridge that it is a port of.
    pub master: Option<IfName>,
    /// `IFLA_IFALIAS`: the proof that it is ours; `None` inside containers.
    pub alias: Option<String>,
    /// Whether a bridge has other settings than we give it, or a port flags of its own.
    pub altered: bool,
    /// Whether it lets packets be merged, or sent in one piece, that are too long for the length
    /// fields of a tunnel's headers (BIG TCP).
    pub oversized: bool,
}

/// The kind of a device, which cannot be changed in its life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "kind")]
pub enum LinkKind {
    /// A bridge.
    Bridge,
    /// A VXLAN device.
    Vxlan(Vxlan),
    /// A `WireGuard` device.
    Wireguard,
    /// The node's side of a veth pair.
    Veth {
        /// The container's side; it is made and removed together with this one.
        peer: LinkId,
    },
    /// The container's side of a veth pair.
    VethPeer {
        /// The node's side.
        host: IfName,
    },
    /// A device with our mark of another kind: it can only be removed.
    Other,
}

/// Settings of a VXLAN device: `nolearning`, TTL 64, DF unset. It sends UDP checksums over
/// IPv6 and none over IPv4, and receives both with and without.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Vxlan {
    /// VXLAN network identifier.
    pub vni: Vni,
    /// UDP destination port.
    pub port: u16,
    /// Outer source address.
    pub local: IpAddr,
    /// UDP source ports, lowest and highest as netlink takes them.
    pub source_ports: (u16, u16),
    /// Whether it learns MACs from traffic; ours must not.
    pub learning: bool,
    /// Whether the outer header carries the inner DSCP.
    pub copies_dscp: bool,
}

/// A forwarding entry that we never make: for what no entry matches, one that ages, or one
/// with a port or VNI of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct StrayFdb {
    /// The VXLAN device.
    pub link: IfName,
    /// Inner destination; zeros: what no entry matches.
    pub mac: [u8; 6],
    /// Outer destination.
    pub dst: Option<IpAddr>,
}

impl fmt::Display for StrayFdb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mac = self.mac.map(|byte| format!("{byte:02x}")).join(":");
        write!(f, "{mac} dev {}", self.link)?;
        match self.dst {
            Some(dst) => write!(f, " dst {dst}"),
            None => Ok(()),
        }
    }
}

/// An address of a device.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Address {
    /// The device.
    pub link: LinkId,
    /// Address and prefix length.
    pub net: IpNet,
}

/// A route's identity.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct RouteKey {
    /// The namespace whose main table it is in.
    pub scope: Scope,
    /// Its destination.
    pub destination: IpNet,
    /// Of two routes to the same destination, the one with less is taken.
    pub metric: u32,
}

/// Where a route leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Route {
    /// Device.
    pub dev: IfName,
    /// Next hop.
    pub via: IpAddr,
    /// The next hop is taken to be on the link without an address in its subnet.
    pub onlink: bool,
    /// Preferred source address.
    pub source: Option<IpAddr>,
    /// In bytes, where it is less than the device's: the path of a tunnel is narrow.
    pub mtu: Option<u32>,
}

/// Names of all eBPF maps.
pub const MAPS: [&str; 19] = [
    maps::NETWORKS,
    maps::PEERS4,
    maps::PEERS6,
    maps::VTEPS4,
    maps::VTEPS6,
    maps::ENDPOINTS4,
    maps::ENDPOINTS6,
    maps::PORTS,
    maps::SOURCES,
    maps::CIDRS,
    maps::PEER_STATS,
    maps::ENDPOINT_STATS,
    maps::DROPS,
    maps::DROPS_BY_SENDER,
    maps::PASSES,
    maps::PASSES_BY_PEER,
    maps::FLOWS,
    maps::ENTERED,
    maps::FLOWS_IN_USE,
];
