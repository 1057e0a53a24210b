//! Which way packets take.

use std::net::IpAddr;

/// What a VXLAN device asks before it sends (`udp_tunnel_dst_lookup` of Linux).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Question {
    /// The outer destination.
    pub to: IpAddr,
    /// The outer source, an address of this node; `None`: the kernel's choice.
    pub from: Option<IpAddr>,
    /// UDP destination port.
    pub port: u16,
}

/// Where the kernel sends packets for a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// `ifindex` of the device; loopback for a local destination.
    pub oif: u32,
    /// Next hop; `None` when the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// The destination is an address of this node.
    pub local: bool,
    /// The source address that the kernel would take.
    pub source: Option<IpAddr>,
    /// MTU of the path in bytes, if the route has one or a router has told it.
    pub mtu: Option<u32>,
}

/// One of several next hops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hop {
    /// `ifindex` of its device.
    pub oif: u32,
    /// The neighbour; `None` when the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// Its share, next to those of the others.
    pub weight: u16,
}
