//! The kernel objects that make up an overlay node.
//!
//! One type serves both sides of reconciliation: [`crate::desired`] computes the
//! [`Objects`] that should be, [`crate::observe`] reads the [`Objects`] of ours
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
    model::{IfName, Mac, Name, Network, Range, Vni},
    shared::Shared,
};

mod capacity;
mod peers;
mod slots;

pub use capacity::Capacity;
pub use peers::{PeerEntries, PeerEntry, PeerObjects};

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
    /// What leads to the peers.
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
    /// What it is; a difference here means that it must be made anew.
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
}

/// What cannot be changed in a device's life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "kind")]
pub enum LinkKind {
    /// A bridge.
    Bridge,
    /// A VXLAN device.
    Vxlan(Vxlan),
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
}

/// A place where one of our programs is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Hook {
    /// TC ingress of the node's side of an endpoint's veth.
    FromEndpoint,
    /// TC ingress of an underlay device.
    FromUnderlay,
    /// TC egress of a VXLAN device.
    FromHost,
    /// XDP of an underlay device, in its driver.
    GuardNative,
    /// XDP of an underlay device, in the stack.
    GuardGeneric,
}

impl Hook {
    /// Every hook.
    pub const ALL: [Self; 5] = [
        Self::FromEndpoint,
        Self::FromUnderlay,
        Self::FromHost,
        Self::GuardNative,
        Self::GuardGeneric,
    ];

    /// Name of the program in the eBPF object.
    pub const fn program(self) -> &'static str {
        match self {
            Self::FromEndpoint => overlay_common::programs::FROM_ENDPOINT,
            Self::FromUnderlay => overlay_common::programs::FROM_UNDERLAY,
            Self::FromHost => overlay_common::programs::FROM_HOST,
            Self::GuardNative | Self::GuardGeneric => overlay_common::programs::UNDERLAY_GUARD,
        }
    }

    /// Name of the hook, in pins and texts: the program's, unless that has several hooks.
    pub const fn name(self) -> &'static str {
        match self {
            Self::GuardNative => "underlay_guard_native",
            Self::GuardGeneric => "underlay_guard_generic",
            Self::FromEndpoint | Self::FromUnderlay | Self::FromHost => self.program(),
        }
    }

    /// Whether it is one of XDP; else it is one of TC.
    pub const fn is_xdp(self) -> bool {
        matches!(self, Self::GuardNative | Self::GuardGeneric)
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Whether an attachment does what it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AttachmentState {
    /// The program that this agent loaded runs there.
    Current,
    /// An earlier agent's program runs there.
    Outdated,
    /// Our pin or handle is there, but no program runs: the device is another one, or somebody detached it.
    Broken,
}

/// Names of all eBPF maps.
pub const MAPS: [&str; 15] = [
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
];

/// Name of the nftables table of an instance, of the family `inet`.
pub fn filter_table(instance: &Name) -> String {
    format!("overlay-{instance}")
}

/// What the table of packet filter rules does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Filter {
    /// It does just this.
    Rules(FilterRules),
    /// Somebody has changed it.
    Altered,
}

/// What the packet filter does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FilterRules {
    /// Devices of the networks. Nothing is forwarded from one to another of them,
    pub isolated: BTreeSet<IfName>,
    /// except for these pairs, which are of one network or of two that are open to each other.
    pub together: BTreeSet<(IfName, IfName)>,
    /// What gets the node's address when it leaves its network.
    pub masqueraded: BTreeSet<Masquerade>,
}

impl FilterRules {
    /// Whether the network of a device is kept apart from others.
    pub fn isolates(&self, device: IfName) -> bool {
        self.isolated.contains(&device)
    }

    /// Whether all ranges of a network are masqueraded.
    pub fn masquerades(&self, network: &Network) -> bool {
        let masqueraded = |range: &Range| {
            let mut subnets = self.masqueraded.iter().map(|rule| rule.subnet);
            subnets.any(|subnet| subnet == range.subnet)
        };
        network.ranges.iter().all(masqueraded)
    }
}

/// A range of a network whose packets get the node's address outside of the network.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Masquerade {
    /// The sources: this node's share.
    pub subnet: IpNet,
    /// The destinations for which they keep their address.
    pub cidr: IpNet,
    /// The devices through which they keep it.
    pub inside: BTreeSet<IfName>,
}
