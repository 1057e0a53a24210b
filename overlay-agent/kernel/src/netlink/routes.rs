//! Routes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use overlay_core::model::Family;
use rtnetlink::{
    packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE},
    packet_route::{
        RouteNetlinkMessage,
        route::{
            RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric,
            RouteProtocol, RouteScope, RouteType, RouteVia,
        },
        rule::{RuleAttribute, RuleMessage},
    },
};

use super::{Bulk, Netlink, Request, address_family};
use crate::Result;

/// A route as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteInfo {
    /// Its destination.
    pub destination: IpNet,
    /// Number of its table; 254 is `main`.
    pub table: u32,
    /// Its origin (`rtm_protocol`).
    pub protocol: u8,
    /// `ifindex` of its device; `None` with several next hops.
    pub oif: Option<u32>,
    /// `ifindex` of each device, with several next hops.
    pub hops: Vec<u32>,
    /// Next hop; `None` when the destination is on the link, and with several next hops.
    pub gateway: Option<IpAddr>,
    /// The next hop is taken to be on the link.
    pub onlink: bool,
    /// Preferred source address.
    pub source: Option<IpAddr>,
    /// In bytes; `None`: the device's.
    pub mtu: Option<u32>,
    /// Of two routes to the same destination, the one with less is taken.
    pub metric: u32,
    /// Its type.
    pub kind: RouteKind,
}

/// The type of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteKind {
    /// Sends them on.
    Unicast,
    /// Delivers them on this node.
    Local,
    /// Answers with ICMP: unreachable.
    Unreachable,
    /// Drops them.
    Blackhole,
    /// Answers with ICMP: administratively prohibited.
    Prohibit,
    /// Something else: broadcast, multicast, throw …
    Other,
}

impl RouteKind {
    /// As `ip route` calls it, of one that refuses packets.
    pub const fn refuses(self) -> Option<&'static str> {
        match self {
            Self::Unreachable => Some("unreachable"),
            Self::Blackhole => Some("blackhole"),
            Self::Prohibit => Some("prohibit"),
            Self::Unicast | Self::Local | Self::Other => None,
        }
    }
}

/// A unicast route of the main table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteSpec {
    /// Its destination.
    pub destination: IpNet,
    /// `ifindex` of its device.
    pub oif: u32,
    /// Next hop; `None`: the destination is on the link.
    pub via: Option<IpAddr>,
    /// The next hop is taken to be on the link without an address in its subnet.
    pub onlink: bool,
    /// Preferred source address.
    pub source: Option<IpAddr>,
    /// In bytes, in the place of the device's.
    pub mtu: Option<u32>,
    /// Of two routes to the same destination, the one with less is taken.
    pub metric: u32,
    /// Its origin (`rtm_protocol`).
    pub protocol: u8,
}

impl Netlink {
    /// Every route of every table of one family.
    pub async fn routes(&self, family: Family) -> Result<Vec<RouteInfo>> {
        let message = question(family, RouteFlags::empty());
        self.dump("list routes", message, |answer| {
            RouteInfo::of(answer, family)
        })
        .await
    }

    /// Makes a route, in the place of one with the same destination, table and metric.
    ///
    /// The kernel replaces that route whoever made it: a caller that must not touch
    /// what is not its own looks first.
    pub async fn replace_route(&self, route: &RouteSpec) -> Result<()> {
        let destination = route.destination;
        let operation = |device: &str| format!("add route {destination} dev {device}");
        let Request { message, flags } = Request::replace_route(route);
        self.change(message, flags, route.oif, operation).await
    }

    /// Makes a destination of the main table unreachable for what no better route leads to.
    ///
    /// Fails when there is a route with that destination and metric, whoever made it.
    pub async fn add_unreachable(
        &self,
        destination: IpNet,
        metric: u32,
        protocol: u8,
    ) -> Result<()> {
        let message = unreachable(destination, metric, protocol);
        let operation = |_: &str| format!("add unreachable route {destination} metric {metric}");
        let message = RouteNetlinkMessage::NewRoute(message);
        self.change(message, NLM_F_CREATE | NLM_F_EXCL, 0, operation)
            .await
    }

    /// Removes what [`add_unreachable`](Self::add_unreachable) has made.
    pub async fn delete_unreachable(
        &self,
        destination: IpNet,
        metric: u32,
        protocol: u8,
    ) -> Result<()> {
        let message = unreachable(destination, metric, protocol);
        let operation = |_: &str| format!("delete unreachable route {destination} metric {metric}");
        let message = RouteNetlinkMessage::DelRoute(message);
        self.change(message, 0, 0, operation).await
    }

    /// Removes the route of the main table to a destination that `protocol` made,
    /// through any device or only through `oif`; with metric 0 the one that has the least.
    pub async fn delete_route(
        &self,
        destination: IpNet,
        metric: u32,
        oif: Option<u32>,
        protocol: u8,
    ) -> Result<()> {
        let Request { message, flags } = Request::delete_route(destination, metric, oif, protocol);
        let operation = |device: &str| match oif {
            Some(_) => format!("delete route {destination} dev {device}"),
            None => format!("delete route {destination}"),
        };
        self.change(message, flags, oif.unwrap_or_default(), operation)
            .await
    }
}

impl Request {
    /// As [`Netlink::replace_route`].
    pub fn replace_route(route: &RouteSpec) -> Self {
        let mut message = message(route.destination, route.protocol);
        message.header.kind = RouteType::Unicast;
        message.header.scope = if route.via.is_some() {
            RouteScope::Universe
        } else {
            RouteScope::Link
        };
        if route.onlink {
            message.header.flags = RouteFlags::Onlink;
        }
        let attributes = &mut message.attributes;
        attributes.push(RouteAttribute::Oif(route.oif));
        attributes.extend(route.via.map(|via| RouteAttribute::Gateway(via.into())));
        let source = route.source;
        attributes.extend(source.map(|source| RouteAttribute::PrefSource(source.into())));
        let metrics = route.mtu.map(|mtu| vec![RouteMetric::Mtu(mtu)]);
        attributes.extend(metrics.map(RouteAttribute::Metrics));
        attributes.extend(priority(route.metric));
        Self {
            message: RouteNetlinkMessage::NewRoute(message),
            flags: NLM_F_CREATE | NLM_F_REPLACE,
        }
    }

    /// As [`Netlink::delete_route`].
    pub fn delete_route(destination: IpNet, metric: u32, oif: Option<u32>, protocol: u8) -> Self {
        let mut message = message(destination, protocol);
        message.header.scope = RouteScope::NoWhere;
        message.attributes.extend(oif.map(RouteAttribute::Oif));
        message.attributes.extend(priority(metric));
        Self {
            message: RouteNetlinkMessage::DelRoute(message),
            flags: 0,
        }
    }
}

fn unreachable(destination: IpNet, metric: u32, protocol: u8) -> RouteMessage {
    let mut message = message(destination, protocol);
    message.header.kind = RouteType::Unreachable;
    message.attributes.extend(priority(metric));
    message
}

fn priority(metric: u32) -> Option<RouteAttribute> {
    (metric != 0).then_some(RouteAttribute::Priority(metric))
}

impl Bulk {
    /// As [`Netlink::routes`].
    pub fn routes(&mut self, family: Family) -> Result<Vec<RouteInfo>> {
        self.dump(
            "list routes",
            &question(family, RouteFlags::empty()),
            |answer| RouteInfo::of(answer, family),
        )
    }

    /// Destinations of which the kernel knows something that no route says: what a router has
    /// told it of their paths.
    pub fn exceptions(&mut self, family: Family) -> Result<Vec<RouteInfo>> {
        self.dump(
            "list learned routes",
            &question(family, RouteFlags::Cloned),
            |answer| RouteInfo::of(answer, family),
        )
    }

    /// The destinations that rules tell apart.
    pub fn rules(&mut self, family: Family) -> Result<Vec<IpNet>> {
        let mut message = RuleMessage::default();
        message.header.family = address_family(family);
        let message = RouteNetlinkMessage::GetRule(message);
        self.dump("list rules", &message, |answer| match answer {
            RouteNetlinkMessage::NewRule(rule) => {
                let address = rule
                    .attributes
                    .iter()
                    .find_map(|attribute| match attribute {
                        RuleAttribute::Destination(address) => Some(*address),
                        _ => None,
                    });
                IpNet::new(address?, rule.header.dst_len).ok()
            }
            _ => None,
        })
    }
}

fn question(family: Family, flags: RouteFlags) -> RouteNetlinkMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = address_family(family);
    message.header.flags = flags;
    RouteNetlinkMessage::GetRoute(message)
}

impl RouteInfo {
    fn of(answer: RouteNetlinkMessage, family: Family) -> Option<Self> {
        match answer {
            // A kernel without this family answers with the routes of others.
            RouteNetlinkMessage::NewRoute(route)
                if route.header.address_family == address_family(family) =>
            {
                Self::from_message(&route, family)
            }
            _ => None,
        }
    }

    pub(super) fn from_message(message: &RouteMessage, family: Family) -> Option<Self> {
        let header = &message.header;
        let everything = match family {
            Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Family::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let mut destination = everything;
        let mut info = Self {
            destination: everything.into(),
            table: header.table.into(),
            protocol: header.protocol.into(),
            oif: None,
            hops: Vec::new(),
            gateway: None,
            onlink: header.flags.contains(RouteFlags::Onlink),
            source: None,
            mtu: None,
            metric: 0,
            kind: header.kind.into(),
        };
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(found) => destination = address(found)?,
                RouteAttribute::Table(table) => info.table = *table,
                RouteAttribute::Oif(index) => info.oif = Some(*index),
                RouteAttribute::MultiPath(hops) => {
                    info.hops = hops.iter().map(|hop| hop.interface_index).collect();
                }
                RouteAttribute::Gateway(found) => info.gateway = address(found),
                RouteAttribute::Via(found) => info.gateway = via(found),
                RouteAttribute::PrefSource(found) => info.source = address(found),
                RouteAttribute::Metrics(metrics) => info.mtu = mtu(metrics),
                RouteAttribute::Priority(metric) => info.metric = *metric,
                _ => {}
            }
        }
        info.destination = IpNet::new(destination, header.destination_prefix_length).ok()?;
        Some(info)
    }
}

pub(super) fn mtu(metrics: &[RouteMetric]) -> Option<u32> {
    metrics.iter().find_map(|metric| match metric {
        RouteMetric::Mtu(mtu) => Some(*mtu),
        _ => None,
    })
}

impl From<RouteType> for RouteKind {
    fn from(kind: RouteType) -> Self {
        match kind {
            RouteType::Unicast => Self::Unicast,
            RouteType::Local => Self::Local,
            RouteType::Unreachable => Self::Unreachable,
            RouteType::BlackHole => Self::Blackhole,
            RouteType::Prohibit => Self::Prohibit,
            _ => Self::Other,
        }
    }
}

fn message(destination: IpNet, protocol: u8) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: address_family(Family::of(destination.addr())),
        destination_prefix_length: destination.prefix_len(),
        table: RouteHeader::RT_TABLE_MAIN,
        protocol: RouteProtocol::from(protocol),
        ..RouteHeader::default()
    };
    message.attributes = vec![RouteAttribute::Destination(destination.network().into())];
    message
}

pub(super) fn address(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

pub(super) fn via(via: &RouteVia) -> Option<IpAddr> {
    match via {
        RouteVia::Inet(address) => Some((*address).into()),
        RouteVia::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}
