//! What one endpoint or one peer has to do without, and what to do about it.

use std::{net::IpAddr, path::PathBuf};

use ipnet::IpNet;

use super::Full;
use crate::model::{Family, IfName, Name};

/// What one endpoint or one peer has to do without.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A route of last resort would cut the tunnels off.
    #[error(
        "keep what is for {cidr} of network {network} from leaving this node outside of its tunnels: {vtep}, which tunnels lead to, is an address of that range, and only a route to more than the range leads there; give the network another range, or add a route to {vtep}"
    )]
    RangeAroundVtep {
        /// The network.
        network: Name,
        /// Its range.
        cidr: IpNet,
        /// The outer address in it.
        vtep: IpAddr,
    },
    /// The underlay has no route to a VTEP.
    #[error("reach peer {peer}: the underlay has no route to {vtep}; see \"ip route get {vtep}\"")]
    NoWay {
        /// The peer.
        peer: Name,
        /// Its outer address.
        vtep: IpAddr,
    },
    /// The same of more peers than are worth naming.
    #[error(
        "reach {peers} more peers of network {network}: the underlay has no route to them either"
    )]
    NoWayToMore {
        /// The network.
        network: Name,
        /// How many.
        peers: usize,
    },
    /// A map is full.
    #[error(
        "map {peers} peers of network {network}: map {} is full with {} entries; the kernel's VXLAN device carries them, and checks of outer and inner sources are off in this network; use fewer peers, or fewer subnets a peer", full.0, full.1
    )]
    PeersLeftOut {
        /// The network.
        network: Name,
        /// How many.
        peers: usize,
        /// The map and its size.
        full: Full,
    },
    /// The same of what a network needs.
    #[error(
        "map network {network}: map {} is full with {} entries; the kernel's VXLAN device carries the network, without the programs and their rules; use fewer networks on this node", full.0, full.1
    )]
    NetworkLeftOut {
        /// The network.
        network: Name,
        /// The map and its size.
        full: Full,
    },
    /// The same of a network's range of addresses.
    #[error(
        "map {cidr} of network {network}: map {} is full with {} entries; the kernel's packet filter alone keeps other networks from it; use fewer networks on this node", full.0, full.1
    )]
    RangeLeftOut {
        /// The network.
        network: Name,
        /// Its range.
        cidr: IpNet,
        /// The map and its size.
        full: Full,
    },
    /// The same of a VXLAN device.
    #[error(
        "map {device} of network {network}: map {} is full with {} entries; the kernel's VXLAN device sends what comes from the node itself; remove an endpoint, or use fewer networks on this node", full.0, full.1
    )]
    TunnelLeftOut {
        /// The network.
        network: Name,
        /// The device.
        device: IfName,
        /// The map and its size.
        full: Full,
    },
    /// The same of addresses of endpoints.
    #[error(
        "map {addresses} addresses of containers of network {network}: map {} is full with {} entries; the kernel delivers what is sent to them; remove endpoints, or attach them to other nodes", full.0, full.1
    )]
    AddressesLeftOut {
        /// The network.
        network: Name,
        /// How many.
        addresses: usize,
        /// The map and its size.
        full: Full,
    },
    /// The same of what an endpoint's packets are measured against.
    #[error(
        "attach endpoint {endpoint}: map {} is full with {} entries, and without one of its own nothing could tell what the container may send; remove another endpoint, or allowed_sources of one", full.0, full.1
    )]
    EndpointLeftOut {
        /// The endpoint.
        endpoint: Name,
        /// The map and its size.
        full: Full,
    },
    /// This node has no outer address of the family that a peer is reached by.
    #[error(
        "reach peer {peer}: the underlay of this node has no {family} address to send from to {vtep}; add one, or give the peer another vtep"
    )]
    NoTunnel {
        /// The peer.
        peer: Name,
        /// Its outer address.
        vtep: IpAddr,
        /// The family of that.
        family: Family,
    },
    /// A route of somebody else leads to what is behind an endpoint.
    #[error(
        "lead {destination} to endpoint {endpoint}: there is a route already, through {device}; remove it with \"ip route del {destination}\""
    )]
    RouteTaken {
        /// The endpoint.
        endpoint: Name,
        /// What is behind it.
        destination: IpNet,
        /// The device of the route that is there.
        device: String,
    },
    /// The subnet is full.
    #[error(
        "attach endpoint {endpoint}: all addresses of {subnet} are taken; remove an endpoint, or give this node a larger subnet"
    )]
    NoAddress {
        /// The endpoint.
        endpoint: Name,
        /// This node's share.
        subnet: IpNet,
    },
    /// The namespace is not there and cannot be made.
    #[error("attach endpoint {endpoint}: there is no network namespace {}; start the container first, or correct netns or pid", path.display())]
    NoNamespace {
        /// The endpoint.
        endpoint: Name,
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The namespace is the node's.
    #[error("attach endpoint {endpoint}: {} is the node's own network namespace; name the container's", path.display())]
    NodeNamespace {
        /// The endpoint.
        endpoint: Name,
        /// The file.
        path: PathBuf,
    },
    /// The container has an interface of that name already.
    #[error("attach endpoint {endpoint}: {} has an interface {interface} already; choose another with interface = \"NAME\"", path.display())]
    InterfaceTaken {
        /// The endpoint.
        endpoint: Name,
        /// The name.
        interface: IfName,
        /// The namespace.
        path: PathBuf,
    },
    /// The container has a default route of its own.
    #[error(
        "route endpoint {endpoint}: it has an {family} default route through {device} already; ours is left out: add routes to the overlay there yourself"
    )]
    OtherDefaultRoute {
        /// The endpoint.
        endpoint: Name,
        /// The route's family.
        family: Family,
        /// Through which device.
        device: String,
    },
    /// The name of the veth is taken.
    #[error(
        "attach endpoint {endpoint} by device {device}: {}, or give the endpoint another name",
        taken_by(*device, owner.as_ref())
    )]
    DeviceTaken {
        /// The endpoint.
        endpoint: Name,
        /// The name.
        device: IfName,
        /// The other instance that made it.
        owner: Option<Name>,
    },
    /// Two endpoints' names lead to the same device name.
    #[error(
        "attach endpoint {endpoint}: another endpoint has device name {device}; rename one of them"
    )]
    SameDeviceName {
        /// The endpoint.
        endpoint: Name,
        /// The name.
        device: IfName,
    },
}

impl Problem {
    /// The map that is full, where that is the problem.
    pub fn full(&self) -> Option<Full> {
        match self {
            Self::PeersLeftOut { full, .. }
            | Self::NetworkLeftOut { full, .. }
            | Self::RangeLeftOut { full, .. }
            | Self::TunnelLeftOut { full, .. }
            | Self::AddressesLeftOut { full, .. }
            | Self::EndpointLeftOut { full, .. } => Some(*full),
            _ => None,
        }
    }
}

/// Whose a device is that stands in the way, and what to do about it: another instance's is in
/// use, so nobody is told to delete that.
pub(super) fn taken_by(device: IfName, owner: Option<&Name>) -> String {
    match owner {
        Some(owner) => format!(
            "instance {owner} of this node has a device of this name; change the configuration of either"
        ),
        None => format!(
            "the name is taken by a device that this instance did not make; remove it with \"ip link del {device}\""
        ),
    }
}
