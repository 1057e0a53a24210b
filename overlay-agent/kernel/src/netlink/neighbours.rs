//! Neighbours (address → MAC) and forwarding entries (MAC → outer address).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use overlay_core::model::{Family, Mac};
use rtnetlink::{
    packet_core::{NLM_F_CREATE, NLM_F_REPLACE},
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        neighbour::{
            NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
        },
    },
};

use super::{Bulk, Netlink, Request, address_family};
use crate::Result;

/// A neighbour as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeighbourInfo {
    /// Its address.
    pub address: IpAddr,
    /// Its MAC, where that is known.
    pub mac: Option<Mac>,
    /// Set by somebody, not resolved.
    pub permanent: bool,
}

/// A forwarding entry as the kernel has it.
///
/// On a VXLAN device only the zero MAC can have several destinations; they are
/// several entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FdbInfo {
    /// Inner destination; zeros: the destination of all that no entry matches.
    pub mac: [u8; 6],
    /// Outer destination, for a VXLAN device.
    pub dst: Option<IpAddr>,
    /// Set by somebody, not learned.
    pub permanent: bool,
    /// The device's own (`self`), not its bridge's.
    pub own: bool,
    /// `ifindex` of the device by which packets leave for it, whatever the routes.
    pub via: Option<u32>,
    /// It has a port or VNI other than the VXLAN device's.
    pub detour: bool,
}

impl Netlink {
    /// Neighbours of a device, of both families.
    pub async fn neighbours(&self, index: u32) -> Result<Vec<NeighbourInfo>> {
        let operation = format!("list neighbours of ifindex {index}");
        self.dump(&operation, neighbours_of(index), NeighbourInfo::of)
            .await
    }

    /// Sets a permanent neighbour, in the place of one with the same address.
    pub async fn replace_neighbour(&self, index: u32, address: IpAddr, mac: Mac) -> Result<()> {
        let Request { message, flags } = Request::replace_neighbour(index, address, mac);
        let operation = |device: &str| format!("add neighbour {address} dev {device}");
        self.change(message, flags, index, operation).await
    }

    /// Removes a neighbour.
    pub async fn delete_neighbour(&self, index: u32, address: IpAddr) -> Result<()> {
        let Request { message, flags } = Request::delete_neighbour(index, address);
        let operation = |device: &str| format!("delete neighbour {address} dev {device}");
        self.change(message, flags, index, operation).await
    }

    /// Forwarding entries of a device.
    pub async fn fdb(&self, index: u32) -> Result<Vec<FdbInfo>> {
        let operation = format!("list forwarding entries of ifindex {index}");
        self.dump(&operation, fdb_of(index), FdbInfo::of).await
    }

    /// Sets the one destination of a MAC on a VXLAN device, for good.
    pub async fn replace_fdb(&self, index: u32, mac: Mac, dst: IpAddr) -> Result<()> {
        let Request { message, flags } = Request::replace_fdb(index, mac, dst, None);
        let operation = |device: &str| format!("add forwarding entry {mac} dst {dst} dev {device}");
        self.change(message, flags, index, operation).await
    }

    /// Removes a MAC from a VXLAN device.
    pub async fn delete_fdb(&self, index: u32, mac: Mac) -> Result<()> {
        let Request { message, flags } = Request::delete_fdb(index, mac);
        let operation = |device: &str| format!("delete forwarding entry {mac} dev {device}");
        self.change(message, flags, index, operation).await
    }

    /// Removes one destination of a MAC, zeros included, from a VXLAN device.
    pub async fn delete_fdb_entry(
        &self,
        index: u32,
        mac: [u8; 6],
        dst: Option<IpAddr>,
    ) -> Result<()> {
        let message = RouteNetlinkMessage::DelNeighbour(entry(index, mac, dst));
        let operation = |device: &str| format!("delete forwarding entry {mac:02x?} dev {device}");
        self.change(message, 0, index, operation).await
    }
}

impl Request {
    /// As [`Netlink::replace_neighbour`].
    pub fn replace_neighbour(index: u32, address: IpAddr, mac: Mac) -> Self {
        let mut message = neighbour(index, address);
        message.header.state = NeighbourState::Permanent;
        let mac = NeighbourAttribute::LinkLayerAddress(mac.octets().to_vec());
        message.attributes.push(mac);
        Self {
            message: RouteNetlinkMessage::NewNeighbour(message),
            flags: NLM_F_CREATE | NLM_F_REPLACE,
        }
    }

    /// As [`Netlink::delete_neighbour`].
    pub fn delete_neighbour(index: u32, address: IpAddr) -> Self {
        Self {
            message: RouteNetlinkMessage::DelNeighbour(neighbour(index, address)),
            flags: 0,
        }
    }

    /// As [`Netlink::replace_fdb`]; packets leave by the device with the index `via`, if there is one.
    pub fn replace_fdb(index: u32, mac: Mac, dst: IpAddr, via: Option<u32>) -> Self {
        let mut message = entry(index, mac.octets(), Some(dst));
        message
            .attributes
            .extend(via.map(NeighbourAttribute::IfIndex));
        message.header.state = NeighbourState::Permanent;
        Self {
            message: RouteNetlinkMessage::NewNeighbour(message),
            flags: NLM_F_CREATE | NLM_F_REPLACE,
        }
    }

    /// As [`Netlink::delete_fdb`].
    pub fn delete_fdb(index: u32, mac: Mac) -> Self {
        Self {
            message: RouteNetlinkMessage::DelNeighbour(entry(index, mac.octets(), None)),
            flags: 0,
        }
    }
}

impl Bulk {
    /// As [`Netlink::neighbours`].
    pub fn neighbours(&mut self, index: u32) -> Result<Vec<NeighbourInfo>> {
        let operation = format!("list neighbours of ifindex {index}");
        self.dump(&operation, &neighbours_of(index), NeighbourInfo::of)
    }

    /// As [`Netlink::fdb`].
    pub fn fdb(&mut self, index: u32) -> Result<Vec<FdbInfo>> {
        let operation = format!("list forwarding entries of ifindex {index}");
        self.dump(&operation, &fdb_of(index), FdbInfo::of)
    }
}

pub(super) fn neighbours_of(index: u32) -> RouteNetlinkMessage {
    let mut message = NeighbourMessage::default();
    message.attributes = vec![NeighbourAttribute::IfIndex(index)];
    RouteNetlinkMessage::GetNeighbour(message)
}

fn fdb_of(index: u32) -> RouteNetlinkMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = index;
    RouteNetlinkMessage::GetNeighbour(message)
}

impl NeighbourInfo {
    fn of(answer: RouteNetlinkMessage) -> Option<Self> {
        match answer {
            RouteNetlinkMessage::NewNeighbour(neighbour) => Self::from_message(&neighbour),
            _ => None,
        }
    }

    pub(super) fn from_message(message: &NeighbourMessage) -> Option<Self> {
        let found = parse(message);
        Some(Self {
            address: found.address?,
            mac: found.mac.and_then(Mac::unicast),
            permanent: message.header.state == NeighbourState::Permanent,
        })
    }
}

impl FdbInfo {
    fn of(answer: RouteNetlinkMessage) -> Option<Self> {
        match answer {
            RouteNetlinkMessage::NewNeighbour(entry) => Self::from_message(&entry),
            _ => None,
        }
    }

    pub(super) fn from_message(message: &NeighbourMessage) -> Option<Self> {
        let found = parse(message);
        Some(Self {
            mac: found.mac?,
            dst: found.address,
            permanent: message.header.state == NeighbourState::Permanent,
            own: message.header.flags.contains(NeighbourFlags::Own),
            detour: message.attributes.iter().any(|attribute| {
                matches!(
                    attribute,
                    NeighbourAttribute::Port(_) | NeighbourAttribute::Vni(_)
                )
            }),
            via: message
                .attributes
                .iter()
                .find_map(|attribute| match attribute {
                    NeighbourAttribute::IfIndex(index) => Some(*index),
                    _ => None,
                }),
        })
    }

    /// What an event tells. Until Linux 6.12 at least, each change is told of twice: by the
    /// VXLAN device, and after that by `rtnl_fdb_notify()`, which knows no destination.
    pub(super) fn from_event(message: &NeighbourMessage) -> Option<Self> {
        let by_device = message
            .attributes
            .iter()
            .any(|attribute| matches!(attribute, NeighbourAttribute::CacheInfo(_)));
        Self::from_message(message).filter(|entry| by_device || !entry.own)
    }
}

struct Parsed {
    address: Option<IpAddr>,
    mac: Option<[u8; 6]>,
}

fn parse(message: &NeighbourMessage) -> Parsed {
    let mut parsed = Parsed {
        address: None,
        mac: None,
    };
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(found) => parsed.address = address(found),
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                parsed.mac = bytes.as_slice().try_into().ok();
            }
            _ => {}
        }
    }
    parsed
}

/// In entries of bridges and VXLAN devices, only its length tells an address's family.
fn address(address: &NeighbourAddress) -> Option<IpAddr> {
    match address {
        NeighbourAddress::Inet(address) => Some((*address).into()),
        NeighbourAddress::Inet6(address) => Some((*address).into()),
        NeighbourAddress::Other(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(bytes.as_slice())
                .ok()
                .map(|v4| Ipv4Addr::from(v4).into()),
            _ => <[u8; 16]>::try_from(bytes.as_slice())
                .ok()
                .map(|v6| Ipv6Addr::from(v6).into()),
        },
        _ => None,
    }
}

fn neighbour(index: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = address_family(Family::of(address));
    message.header.ifindex = index;
    message.attributes = vec![NeighbourAttribute::Destination(address.into())];
    message
}

fn entry(index: u32, mac: [u8; 6], dst: Option<IpAddr>) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = index;
    message.header.flags = NeighbourFlags::Own;
    message.attributes = vec![NeighbourAttribute::LinkLayerAddress(mac.to_vec())];
    message
        .attributes
        .extend(dst.map(|dst| NeighbourAttribute::Destination(dst.into())));
    message
}
