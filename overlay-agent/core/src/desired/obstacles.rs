//! Obstacles for a whole node, with their cures.

use std::{fmt, net::IpAddr};

use ipnet::IpNet;

use crate::{
    model::{DeviceName, IfName, Name},
    surroundings::NoWireguard,
};

/// An obstacle for a whole node; nothing is changed while there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// A configured underlay device does not exist.
    NoSuchUnderlay {
        /// As configured.
        name: DeviceName,
        /// The devices that there are, but for those of overlays and the loopback.
        there: Vec<IfName>,
    },
    /// The underlay is a device that this instance has made itself.
    UnderlayInside {
        /// The device.
        name: IfName,
        /// The other devices, as there.
        there: Vec<IfName>,
    },
    /// No device has the configured outer address.
    NoSuchAddress {
        /// As configured.
        address: IpAddr,
        /// Those of its family that there are, but for addresses of overlays and of the machine alone.
        there: Vec<IpAddr>,
    },
    /// The underlay devices have no address.
    NoVtep {
        /// As configured.
        underlay: Vec<IfName>,
    },
    /// The address that this node has been known by is away.
    VtepGone {
        /// The address.
        address: IpAddr,
        /// The devices that should have it.
        underlay: Vec<IfName>,
        /// One that they have.
        instead: Option<IpAddr>,
    },
    /// No packet of another machine arrives by a device.
    NothingArrives {
        /// The device.
        name: IfName,
        /// An address of it.
        address: Option<IpAddr>,
    },
    /// The configured MTU does not fit.
    MtuTooBig {
        /// The network.
        network: Name,
        /// As configured, in bytes.
        mtu: u16,
        /// The largest MTU that fits, in bytes.
        room: u16,
        /// MTU of the underlay, in bytes.
        underlay: u32,
    },
    /// The MTU that fits is less than IPv6 asks for.
    MtuForIpv6 {
        /// The network.
        network: Name,
        /// The largest MTU that fits, in bytes.
        mtu: u16,
        /// MTU of the underlay, in bytes.
        underlay: u32,
        /// MTU that the underlay would need, in bytes.
        needed: u16,
    },
    /// There is no `WireGuard` here.
    NoWireguard {
        /// The network that needs it.
        network: Name,
        /// Why.
        why: NoWireguard,
    },
    /// Networks cannot be kept apart, or not be masqueraded.
    NoFilter {
        /// Its purpose.
        use_for: &'static str,
        /// Why it cannot be set.
        cause: String,
        /// The alternative that works without it.
        instead: &'static str,
    },
    /// A table of packet filter rules of somebody else has the name that ours would have.
    TableTaken {
        /// Its name.
        table: String,
        /// Its purpose.
        use_for: &'static str,
        /// The other instance that made it.
        owner: Option<Name>,
    },
    /// A device that no instance made has a name that we need.
    DeviceTaken {
        /// The name.
        device: IfName,
    },
    /// Another instance has devices that a network needs: perhaps this very node under the name
    /// that it had before.
    NetworkTaken {
        /// The network.
        network: Name,
        /// The devices.
        devices: Vec<IfName>,
        /// The other instance.
        owner: Name,
    },
    /// Another VXLAN device receives on the port.
    PortTaken {
        /// The network.
        network: Name,
        /// The port.
        port: u16,
        /// Whose it is.
        device: IfName,
        /// The other instance that made it.
        owner: Option<Name>,
    },
    /// A socket has the port.
    PortBusy {
        /// The network.
        network: Name,
        /// The port.
        port: u16,
    },
    /// An address of ours is on a device of somebody else.
    AddressTaken {
        /// The network.
        network: Name,
        /// The gateway's address.
        address: IpAddr,
        /// Our bridge.
        bridge: IfName,
        /// Where it is.
        device: IfName,
        /// The other instance that made that device.
        owner: Option<Name>,
    },
    /// A route of somebody else leads to a peer's subnet.
    RouteTaken {
        /// The peer.
        peer: Name,
        /// Its subnet.
        destination: IpNet,
        /// The route that is there.
        other: OtherRoute,
    },
    /// A subnet that packets would be sent into that have to reach a node.
    AroundUnderlay {
        /// The network.
        network: Name,
        /// The peer whose subnet it is; `None`: this node's.
        peer: Option<Name>,
        /// The subnet.
        subnet: IpNet,
        /// The object inside.
        inside: Inside,
    },
    /// A peer has this node's own outer address.
    OwnVtep {
        /// The network.
        network: Name,
        /// The peer.
        peer: Name,
        /// The address.
        vtep: IpAddr,
    },
}

/// An address of the underlay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inside {
    /// This node's, on a device of the underlay.
    Own(IpAddr, IfName),
    /// A peer's VTEP.
    Vtep(IpAddr, Name),
    /// A router on the way to peers.
    NextHop(IpAddr),
}

impl fmt::Display for Inside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own(address, device) => write!(f, "{address}, which this node has on {device}"),
            Self::Vtep(address, peer) => write!(f, "{address}, the VTEP of peer {peer}"),
            Self::NextHop(address) => write!(f, "{address}, the next hop to other nodes"),
        }
    }
}

/// A route of somebody else where one of ours should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherRoute {
    /// The device that it leads through, if it leads through one.
    pub device: Option<IfName>,
    /// The other instance that made that device, if one did.
    pub owner: Option<Name>,
}

impl Obstacle {
    /// Whether it may go by itself: what makes devices and addresses can be later than the agent.
    pub fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::NoSuchUnderlay { .. }
                | Self::NoSuchAddress { .. }
                | Self::NoVtep { .. }
                | Self::VtepGone { .. }
        )
    }
}

/// All obstacles at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacles(pub Vec<Obstacle>);

impl Obstacles {
    /// Whether all of them may go by themselves.
    pub fn may_pass(&self) -> bool {
        self.0.iter().all(Obstacle::may_pass)
    }
}

impl std::error::Error for Obstacles {}

impl fmt::Display for Obstacles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, obstacle) in self.0.iter().enumerate() {
            if number > 0 {
                writeln!(f)?;
            }
            write!(f, "{obstacle}")?;
        }
        Ok(())
    }
}

pub(super) fn list(names: &[IfName]) -> String {
    let names: Vec<&str> = names.iter().map(IfName::as_str).collect();
    names.join(", ")
}
