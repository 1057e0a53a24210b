//! Problems of single endpoints and peers, with their cures.

use std::{net::IpAddr, path::PathBuf};

use ipnet::IpNet;

use super::{Full, OtherRoute, PassedBy};
use crate::{
    model::{Clash, Family, IfName, Name, PublicKey},
    surroundings::Vrf,
};

/// A problem of one endpoint or one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// Something of somebody else's is passed by, as the network requires the fast path.
    PassedBy {
        /// The network.
        network: Name,
        /// The endpoint, where it concerns one alone.
        endpoint: Option<Name>,
        /// What, and where.
        hook: PassedBy,
    },
    /// An endpoint is not attached: the configuration contradicts what was added at run time.
    Clash(Clash),
    /// A route of last resort would cut the tunnels off.
    RangeAroundVtep {
        /// The network.
        network: Name,
        /// Its range.
        cidr: IpNet,
        /// The outer address in it.
        vtep: IpAddr,
    },
    /// The tables of nftables cannot be looked at.
    NoGuard {
        /// Why.
        cause: String,
    },
    /// A table of somebody else has the name of the guard's.
    GuardTaken {
        /// Its name.
        table: String,
        /// The other instance that made it.
        owner: Option<Name>,
    },
    /// A peer of an encrypted network has this node's own key.
    OwnKey {
        /// The peer.
        peer: Name,
        /// The key.
        key: PublicKey,
    },
    /// The underlay has no route to a VTEP.
    NoWay {
        /// The peer.
        peer: Name,
        /// Its outer address.
        vtep: IpAddr,
    },
    /// The same of more peers than are worth naming.
    NoWayToMore {
        /// The network.
        network: Name,
        /// How many.
        peers: usize,
    },
    /// A device of the underlay belongs to a VRF, whose routes tunnels do not ask for, or whose packets
    /// they do not get.
    InVrf {
        /// The device.
        name: IfName,
        /// The VRF.
        vrf: Vrf,
        /// The addresses that tunnels leave from.
        vteps: Vec<IpAddr>,
    },
    /// A map is full.
    PeersLeftOut {
        /// The network.
        network: Name,
        /// How many.
        peers: usize,
        /// The map and its size.
        full: Full,
    },
    /// The same of what a network needs.
    NetworkLeftOut {
        /// The network.
        network: Name,
        /// The map and its size.
        full: Full,
    },
    /// The same of a network's range of addresses.
    RangeLeftOut {
        /// The network.
        network: Name,
        /// Its range.
        cidr: IpNet,
        /// The map and its size.
        full: Full,
    },
    /// The same of a VXLAN device.
    TunnelLeftOut {
        /// The network.
        network: Name,
        /// The device.
        device: IfName,
        /// The map and its size.
        full: Full,
    },
    /// The same of addresses of endpoints.
    AddressesLeftOut {
        /// The network.
        network: Name,
        /// How many.
        addresses: usize,
        /// The map and its size.
        full: Full,
    },
    /// The same of what an endpoint's packets are measured against.
    EndpointLeftOut {
        /// The endpoint.
        endpoint: Name,
        /// The map and its size.
        full: Full,
    },
    /// This node has no outer address of the family that a peer is reached by.
    NoTunnel {
        /// The peer.
        peer: Name,
        /// Its outer address.
        vtep: IpAddr,
        /// The family of that.
        family: Family,
    },
    /// A route of somebody else leads to what is behind an endpoint.
    RouteTaken {
        /// The endpoint.
        endpoint: Name,
        /// A prefix behind it.
        destination: IpNet,
        /// The route that is there.
        other: OtherRoute,
    },
    /// A route of somebody else is where a route of last resort should be.
    LastResortTaken {
        /// The network.
        network: Name,
        /// Its range.
        cidr: IpNet,
        /// The metric of both.
        metric: u32,
    },
    /// A device of this node that is not ours has an address of a network.
    AddressTaken {
        /// The network.
        network: Name,
        /// The address, as the device has it.
        net: IpNet,
        /// The device.
        device: IfName,
        /// The other instance that made the device.
        owner: Option<Name>,
        /// Whose it should be.
        whose: Whose,
    },
    /// The subnet is full.
    NoAddress {
        /// The endpoint.
        endpoint: Name,
        /// This node's share.
        subnet: IpNet,
    },
    /// The namespace is not there and cannot be made.
    NoNamespace {
        /// The endpoint.
        endpoint: Name,
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The process that the container was named by has ended.
    ProcessEnded {
        /// The endpoint.
        endpoint: Name,
        /// Its number.
        pid: u32,
        /// The instance, where the endpoint was added at run time.
        added_to: Option<Name>,
    },
    /// The namespace is a node's.
    NodeNamespace {
        /// The endpoint.
        endpoint: Name,
        /// The file.
        path: PathBuf,
        /// The other instance whose node it is.
        other: Option<Name>,
    },
    /// The container has an interface of that name already.
    InterfaceTaken {
        /// The endpoint.
        endpoint: Name,
        /// The name.
        interface: IfName,
        /// The namespace.
        path: PathBuf,
    },
    /// The container has a default route of its own.
    OtherDefaultRoute {
        /// The endpoint.
        endpoint: Name,
        /// The route's family.
        family: Family,
        /// Through which device.
        device: String,
    },
    /// The name of the veth is taken.
    DeviceTaken {
        /// The endpoint.
        endpoint: Name,
        /// The name.
        device: IfName,
        /// The other instance that made it.
        owner: Option<Name>,
    },
    /// Two endpoints' names lead to the same device name.
    SameDeviceName {
        /// The endpoint.
        endpoint: Name,
        /// The name.
        device: IfName,
    },
}

/// Whose an address of a network is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// An endpoint of this node has it.
    Endpoint(Name),
    /// An endpoint of this node may have it.
    Own,
    /// An endpoint of a peer may have it.
    Peer(Name),
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
