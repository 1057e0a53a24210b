//! Addresses of devices.

use std::net::IpAddr;

use ipnet::IpNet;
use nix::errno::Errno;
use overlay_core::{model::Family, objects::ROUTE_PROTOCOL};
use rtnetlink::{
    packet_core::{NLM_F_CREATE, NLM_F_REPLACE},
    packet_route::{
        RouteNetlinkMessage,
        address::{
            AddressAttribute, AddressHeaderFlags, AddressMessage, AddressProtocol, AddressScope,
        },
    },
};

use super::{Netlink, address_family};
use crate::Result;

/// An address as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressInfo {
    /// `ifindex` of its device.
    pub index: u32,
    /// Address and prefix length.
    pub net: IpNet,
    /// Whether it is valid beyond its link (`scope global`).
    pub global: bool,
    /// Which of several is used before it.
    pub place: Place,
    /// Its origin (`IFA_PROTO`); 0 where nobody says so, and before Linux 5.18.
    pub protocol: u8,
    /// How long it stays.
    pub lifetime: Lifetime,
    /// Whether it can be this node's: no other turned out to have it, and none is being asked.
    pub usable: bool,
}

/// Where an address stands among those of its device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Before others.
    Primary,
    /// Behind another one of the same subnet.
    Secondary,
    /// None that others should know this node by: nothing new should be sent from it
    /// (`preferred_lft 0`), or it is temporary, for privacy (RFC 8981).
    Passing,
}

/// How long an address stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// Until somebody removes it.
    Permanent,
    /// As long as a router announces it, or a lease lasts.
    Limited,
}

impl Netlink {
    /// Every address of every device, in the kernel's order: primary ones first.
    pub async fn addresses(&self) -> Result<Vec<AddressInfo>> {
        let message = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        self.dump("list addresses", message, |answer| match answer {
            RouteNetlinkMessage::NewAddress(address) => AddressInfo::from_message(&address),
            _ => None,
        })
        .await
    }

    /// Gives a device an address, as ours; having it already is fine (`ip addr replace`).
    ///
    /// An IPv6 address can be used at once, without asking for duplicates.
    pub async fn add_address(&self, index: u32, net: IpNet) -> Result<()> {
        let mut message = message(index, net);
        let protocol = AddressAttribute::Protocol(AddressProtocol::Other(ROUTE_PROTOCOL));
        message.attributes.push(protocol);
        if net.addr().is_ipv6() {
            message.header.flags = AddressHeaderFlags::Nodad;
        }
        let message = RouteNetlinkMessage::NewAddress(message);
        let operation = |device: &str| format!("add address {net} dev {device}");
        let added = self.change(message, NLM_F_CREATE | NLM_F_REPLACE, index, operation);
        added.await.map_err(|error| {
            if error.errno() == Some(Errno::EACCES as i32) {
                error.with_cure("allow IPv6 there: sysctl net.ipv6.conf.DEVICE.disable_ipv6=0")
            } else {
                error
            }
        })
    }

    /// Takes an address from a device.
    pub async fn delete_address(&self, index: u32, net: IpNet) -> Result<()> {
        let message = RouteNetlinkMessage::DelAddress(message(index, net));
        let operation = |device: &str| format!("delete address {net} dev {device}");
        self.change(message, 0, index, operation).await
    }
}

impl AddressInfo {
    fn from_message(message: &AddressMessage) -> Option<Self> {
        // On a point-to-point device, IFA_ADDRESS is the other side's.
        let local = |attribute: &AddressAttribute| match attribute {
            AddressAttribute::Local(address) => Some(*address),
            _ => None,
        };
        let any = |attribute: &AddressAttribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        };
        let protocol = |attribute: &AddressAttribute| match attribute {
            AddressAttribute::Protocol(protocol) => Some(u8::from(*protocol)),
            _ => None,
        };
        let attributes = &message.attributes;
        let flags = message.header.flags;
        let address: IpAddr = attributes
            .iter()
            .find_map(local)
            .or_else(|| attributes.iter().find_map(any))?;
        Some(Self {
            index: message.header.index,
            net: IpNet::new(address, message.header.prefix_len).ok()?,
            global: message.header.scope == AddressScope::Universe,
            place: if flags.contains(AddressHeaderFlags::Deprecated) {
                Place::Passing
            } else if !flags.contains(AddressHeaderFlags::Secondary) {
                Place::Primary
            } else if address.is_ipv6() {
                // `IFA_F_TEMPORARY` is IPv6's reading of the same bit.
                Place::Passing
            } else {
                Place::Secondary
            },
            protocol: attributes.iter().find_map(protocol).unwrap_or_default(),
            lifetime: if flags.contains(AddressHeaderFlags::Permanent) {
                Lifetime::Permanent
            } else {
                Lifetime::Limited
            },
            usable: !flags.intersects(AddressHeaderFlags::Dadfailed)
                && (!flags.contains(AddressHeaderFlags::Tentative)
                    || flags.contains(AddressHeaderFlags::Optimistic)),
        })
    }
}

fn message(index: u32, net: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.family = address_family(Family::of(net.addr()));
    message.header.prefix_len = net.prefix_len();
    message.attributes = vec![
        AddressAttribute::Local(net.addr()),
        AddressAttribute::Address(net.addr()),
    ];
    message
}
