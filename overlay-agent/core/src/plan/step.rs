//! One change to the kernel, printable and in terms that `ip` users know.

mod text;

use std::net::IpAddr;

use ipnet::IpNet;
use overlay_common::maps;
use serde::Serialize;

use super::Returning;
use crate::{
    model::{IfName, Mac, Name, PublicKey, Vni},
    objects::{
        Address, EndpointEntry, FilterRules, GuardRules, Hook, Link, LinkId, LinkKind, LinkRef,
        PeerEntry, Route, RouteKey, Scope, Stray, StrayFdb, WireguardPeer,
    },
};

/// One change to the kernel.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "step", rename_all = "snake_case")]
#[expect(
    missing_docs,
    reason = "the fields are those of the objects that the steps change"
)]
pub enum Step {
    /// Makes a namespace, as `ip netns add`.
    CreateNamespace { name: Name },
    /// Removes a namespace that we made.
    DeleteNamespace { name: Name },
    /// Changes a kernel setting.
    SetSysctl {
        key: String,
        from: Option<String>,
        to: String,
    },
    /// Makes a device; for a veth the container's side as well.
    CreateLink {
        id: LinkId,
        link: Box<Link>,
        inside: Option<Box<Link>>,
    },
    /// Removes a device, and with it all that depends on it.
    DeleteLink { id: LinkId },
    /// Changes a device.
    ChangeLink { id: LinkId, change: Change },
    /// Adds an address.
    AddAddress { address: Address },
    /// Removes an address.
    DeleteAddress { address: Address },
    /// Adds a route, or leads it elsewhere.
    SetRoute { key: RouteKey, route: Route },
    /// Removes a route.
    DeleteRoute { key: RouteKey, dev: IfName },
    /// Makes a range unreachable that no better route leads to.
    AddLastResort { cidr: IpNet },
    /// Leaves a range to the other routes of the node.
    DeleteLastResort { cidr: IpNet },
    /// Adds a permanent neighbour, or gives it another MAC.
    SetNeighbour {
        link: IfName,
        address: IpAddr,
        mac: Mac,
    },
    /// Removes a permanent neighbour.
    DeleteNeighbour { link: IfName, address: IpAddr },
    /// Adds a forwarding entry, or leads it to another VTEP.
    SetFdb {
        link: IfName,
        mac: Mac,
        vtep: IpAddr,
        #[serde(skip_serializing_if = "Option::is_none")]
        via: Option<IfName>,
    },
    /// Removes a forwarding entry.
    DeleteFdb { link: IfName, mac: Mac },
    /// Removes a forwarding entry that is none of ours.
    DeleteStrayFdb { entry: StrayFdb },
    /// Gives a `WireGuard` device a key of this node's, and a port, and forgets its peers.
    SetWireguard {
        link: IfName,
        port: u16,
        /// Its public half; none for one that has still to be made.
        key: Option<PublicKey>,
    },
    /// Has it speak with a peer.
    SetWireguardPeer {
        link: IfName,
        key: PublicKey,
        #[serde(skip)]
        peer: WireguardPeer,
    },
    /// Has it tell a peer that it is there after so many seconds, or not at all.
    SetWireguardKeepalive {
        link: IfName,
        key: PublicKey,
        seconds: u16,
    },
    /// Has it speak no more with a peer.
    DeleteWireguardPeer { link: IfName, key: PublicKey },
    /// Has connection tracking take no packet for invalid by the window that it has last seen of a
    /// TCP connection, where the programs have carried it since.
    LetReturn {
        #[serde(skip)]
        flows: Box<Returning>,
    },
    /// Pins a map that the programs use.
    PinMap { map: &'static str },
    /// Sets a network in the eBPF maps.
    SetNetwork {
        vni: Vni,
        #[serde(skip)]
        network: maps::Network,
    },
    /// Removes a network from the eBPF maps.
    DeleteNetwork { vni: Vni },
    /// Admits a VTEP; a fresh slot's counters start from 0.
    SetVtep {
        vni: Vni,
        vtep: IpAddr,
        slot: u32,
        fresh: bool,
    },
    /// Forgets a VTEP.
    DeleteVtep { vni: Vni, vtep: IpAddr, slot: u32 },
    /// Sets whose subnet a prefix is.
    SetPeer {
        vni: Vni,
        prefix: IpNet,
        peer: PeerEntry,
    },
    /// Removes a peer's subnet.
    DeletePeer { vni: Vni, prefix: IpNet },
    /// Has an endpoint count from 0.
    ClearSlot { link: LinkRef, slot: u32 },
    /// Sets an endpoint in the eBPF maps.
    SetEndpoint {
        vni: Vni,
        address: IpAddr,
        endpoint: EndpointEntry,
    },
    /// Removes an endpoint from the eBPF maps.
    DeleteEndpoint { vni: Vni, address: IpAddr },
    /// Sets what packets from a device are measured against.
    SetPort {
        link: LinkRef,
        #[serde(skip)]
        port: maps::Port,
    },
    /// Forgets a device.
    DeletePort { link: LinkRef },
    /// Lets an endpoint send from a prefix.
    SetSource { link: LinkRef, prefix: IpNet },
    /// Does not let it any more.
    DeleteSource { link: LinkRef, prefix: IpNet },
    /// Sets which network a range of addresses is in.
    SetCidr { cidr: IpNet, vni: Vni },
    /// Forgets a range of addresses.
    DeleteCidr { cidr: IpNet },
    /// Removes a row of the eBPF maps that nobody of ours has written.
    DeleteStray { stray: Stray },
    /// Sets the packet filter rules, in the place of those that are there.
    SetFilter { rules: FilterRules },
    /// Removes the packet filter rules.
    DeleteFilter,
    /// Sets the rules of the guard of the tunnels' ports.
    SetGuard { rules: Box<GuardRules> },
    /// Removes that guard.
    DeleteGuard,
    /// Attaches a program, or replaces the one that is there without a gap.
    Attach { link: IfName, hook: Hook },
    /// Detaches a program.
    Detach { link: IfName, hook: Hook },
    /// Removes the clsact qdisc that programs were attached to.
    DeleteQdisc { link: IfName },
    /// Removes the maps of another build.
    DeleteLayout { abi: u32 },
}

/// Attributes of a device that can be changed in its life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// Its hardware address.
    Mac(Mac),
    /// Its MTU in bytes.
    Mtu(u32),
    /// Its administrative state.
    Up(bool),
    /// Its bridge.
    Master(Option<IfName>),
    /// Its mark.
    Alias(String),
    /// Its other settings, to what they were when it was made.
    Settings,
    /// The greatest sizes of packets that are merged or cut in pieces, to those of devices that
    /// nobody has told otherwise.
    Sizes,
}

impl Step {
    /// The device that this step makes available to later ones.
    pub fn provides(&self) -> Option<Dependency<'_>> {
        match self {
            Self::CreateLink { id, .. } | Self::ChangeLink { id, .. } => Some(Dependency::Link(id)),
            Self::CreateNamespace { name } => Some(Dependency::Namespace(name)),
            _ => None,
        }
    }

    /// The endpoint in whose namespace it acts, if it is one's.
    pub fn endpoint(&self) -> Option<&Name> {
        let scope = match self {
            Self::CreateLink { link, .. } => match &link.kind {
                LinkKind::Veth { peer } => &peer.scope,
                _ => return None,
            },
            Self::DeleteLink { id } | Self::ChangeLink { id, .. } => &id.scope,
            Self::AddAddress { address } | Self::DeleteAddress { address } => &address.link.scope,
            Self::SetRoute { key, .. } | Self::DeleteRoute { key, .. } => &key.scope,
            _ => return None,
        };
        match scope {
            Scope::Node => None,
            Scope::Endpoint(name) => Some(name),
        }
    }

    /// The devices of the node, by name, without which this step makes no sense.
    pub fn device(&self) -> Option<LinkId> {
        let node = |name: &IfName| Some(LinkId::node(*name));
        let referred = |link: &LinkRef| match link {
            LinkRef::Name(name) => Some(LinkId::node(*name)),
            LinkRef::Gone(_) => None,
        };
        match self {
            Self::AddAddress { address } => Some(address.link.clone()),
            Self::SetRoute { key, route } => Some(LinkId {
                scope: key.scope.clone(),
                name: route.dev,
            }),
            Self::SetNeighbour { link, .. }
            | Self::SetFdb { link, .. }
            | Self::SetWireguard { link, .. }
            | Self::SetWireguardPeer { link, .. }
            | Self::SetWireguardKeepalive { link, .. }
            | Self::DeleteWireguardPeer { link, .. }
            | Self::Attach { link, .. } => node(link),
            Self::SetPeer { peer, .. } => referred(&peer.underlay),
            Self::SetEndpoint { endpoint, .. } => referred(&endpoint.link),
            Self::ClearSlot { link, .. }
            | Self::SetPort { link, .. }
            | Self::DeletePort { link }
            | Self::SetSource { link, .. }
            | Self::DeleteSource { link, .. } => referred(link),
            Self::CreateLink { link, .. } => link.master.as_ref().and_then(node),
            Self::ChangeLink { id, .. } => Some(id.clone()),
            _ => None,
        }
    }
}

/// Something that a later step may need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dependency<'a> {
    /// A device; an endpoint's veth stands for both of its sides.
    Link(&'a LinkId),
    /// A namespace.
    Namespace(&'a Name),
}
