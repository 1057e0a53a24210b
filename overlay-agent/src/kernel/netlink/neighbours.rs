//! Neighbours (address → MAC) and forwarding entries (MAC → outer address).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rtnetlink::{
    packet_core::{NLM_F_CREATE, NLM_F_REPLACE},
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        neighbour::{
            NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
        },
    },
};

use super::Netlink;
use crate::{
    kernel::Result,
    model::{Family, Mac},
};

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
    /// It has a port, VNI or device other than the VXLAN device's.
    pub detour: bool,
}

impl Netlink {
    /// Neighbours of a device, of both families.
    pub async fn neighbours(&self, index: u32) -> Result<Vec<NeighbourInfo>> {
        let mut message = NeighbourMessage::default();
        message.attributes = vec![NeighbourAttribute::IfIndex(index)];
        let message = RouteNetlinkMessage::GetNeighbour(message);
        self.dump(
            &format!("list neighbours of ifindex {index}"),
            message,
            |answer| match answer {
                RouteNetlinkMessage::NewNeighbour(neighbour) => {
                    NeighbourInfo::from_message(&neighbour)
                }
                _ => None,
            },
        )
        .await
    }

    /// Sets a permanent neighbour, in the place of one with the same address.
    pub async fn replace_neighbour(&self, index: u32, address: IpAddr, mac: Mac) -> Result<()> {
        let mut message = neighbour(index, address);
        message.header.state = NeighbourState::Permanent;
        message
            .attributes
            .push(NeighbourAttribute::LinkLayerAddress(mac.octets().to_vec()));
        let message = RouteNetlinkMessage::NewNeighbour(message);
        let operation = |device: &str| format!("add neighbour {address} dev {device}");
        self.change(message, NLM_F_CREATE | NLM_F_REPLACE, index, operation)
            .await
    }

    /// Removes a neighbour.
    pub async fn delete_neighbour(&self, index: u32, address: IpAddr) -> Result<()> {
        let message = RouteNetlinkMessage::DelNeighbour(neighbour(index, address));
        let operation = |device: &str| format!("delete neighbour {address} dev {device}");
        self.change(message, 0, index, operation).await
    }

    /// Forwarding entries of a device.
    pub async fn fdb(&self, index: u32) -> Result<Vec<FdbInfo>> {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Bridge;
        message.header.ifindex = index;
        let message = RouteNetlinkMessage::GetNeighbour(message);
        let operation = format!("list forwarding entries of ifindex {index}");
        self.dump(&operation, message, |answer| match answer {
            RouteNetlinkMessage::NewNeighbour(entry) => FdbInfo::from_message(&entry),
            _ => None,
        })
        .await
    }

    /// Sets the one destination of a MAC on a VXLAN device, for good.
    pub async fn replace_fdb(&self, index: u32, mac: Mac, dst: IpAddr) -> Result<()> {
        let mut message = entry(index, mac.octets(), Some(dst));
        message.header.state = NeighbourState::Permanent;
        let message = RouteNetlinkMessage::NewNeighbour(message);
        let operation = |device: &str| format!("add forwarding entry {mac} dst {dst} dev {device}");
        self.change(message, NLM_F_CREATE | NLM_F_REPLACE, index, operation)
            .await
    }

    /// Removes a MAC from a VXLAN device.
    pub async fn delete_fdb(&self, index: u32, mac: Mac) -> Result<()> {
        let message = RouteNetlinkMessage::DelNeighbour(entry(index, mac.octets(), None));
        let operation = |device: &str| format!("delete forwarding entry {mac} dev {device}");
        self.change(message, 0, index, operation).await
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

impl NeighbourInfo {
    fn from_message(message: &NeighbourMessage) -> Option<Self> {
        let found = parse(message);
        Some(Self {
            address: found.address?,
            mac: found.mac.and_then(Mac::unicast),
            permanent: message.header.state == NeighbourState::Permanent,
        })
    }
}

impl FdbInfo {
    fn from_message(message: &NeighbourMessage) -> Option<Self> {
        let found = parse(message);
        Some(Self {
            mac: found.mac?,
            dst: found.address,
            permanent: message.header.state == NeighbourState::Permanent,
            own: message.header.flags.contains(NeighbourFlags::Own),
            detour: message.attributes.iter().any(|attribute| {
                matches!(
                    attribute,
                    NeighbourAttribute::Port(_)
                        | NeighbourAttribute::Vni(_)
                        | NeighbourAttribute::IfIndex(_)
                )
            }),
        })
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
    message.header.family = Family::of(address).into();
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
