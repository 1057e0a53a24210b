//! Routes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use nix::errno::Errno;
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

use super::{Bulk, Netlink, Request, refusal::Refusal};
use crate::{kernel::Result, model::Family};

/// `IPPROTO_UDP`.
const UDP: u8 = 17;

/// A route as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteInfo {
    /// Its destination.
    pub destination: IpNet,
    /// Number of its table; 254 is `main`.
    pub table: u32,
    /// Who made it (`rtm_protocol`).
    pub protocol: u8,
    /// `ifindex` of its device; `None` with several next hops.
    pub oif: Option<u32>,
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
    /// What becomes of packets.
    pub kind: RouteKind,
}

/// What a route does with packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteKind {
    /// Sends them on.
    Unicast,
    /// Delivers them on this node.
    Local,
    /// Answers with ICMP: unreachable.
    Unreachable,
    /// Something else: broadcast, multicast, blackhole, prohibit …
    Other,
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
    /// Who makes it (`rtm_protocol`).
    pub protocol: u8,
}

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

impl Netlink {
    /// Every route of every table of one family.
    pub async fn routes(&self, family: Family) -> Result<Vec<RouteInfo>> {
        let message = question(family, RouteFlags::empty());
        self.dump("list routes", message, |answer| {
            RouteInfo::of(answer, family)
        })
        .await
    }

    /// The way to a destination (`ip route get`); `None` when there is none.
    ///
    /// `from` must be an address of this node.
    pub async fn route_to(
        &self,
        destination: IpAddr,
        from: Option<IpAddr>,
    ) -> Result<Option<NextHop>> {
        let message = way_to(destination, from);
        match self.get(RouteNetlinkMessage::GetRoute(message)).await {
            Ok(answer) => Ok(NextHop::of(answer)),
            Err(refusal) => no_way(refusal, destination),
        }
    }

    /// The way that packets of a tunnel take; `None` when there is none.
    pub async fn way_of(&self, question: Question) -> Result<Option<NextHop>> {
        let message = RouteNetlinkMessage::GetRoute(question.message());
        match self.get(message).await {
            Ok(answer) => Ok(NextHop::of(answer)),
            Err(refusal) => no_way(refusal, question.to),
        }
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

    /// As [`Netlink::way_of`], for each of many questions.
    pub fn ways_of(&mut self, questions: &[Question]) -> Result<Vec<Option<NextHop>>> {
        let ask = |question: &Question| Request {
            message: RouteNetlinkMessage::GetRoute(question.message()),
            flags: 0,
        };
        let answers = self.ask(questions.iter().map(ask).collect());
        let hops = questions.iter().zip(answers);
        hops.map(|(question, answer)| match answer {
            Ok(answer) => Ok(answer.and_then(NextHop::of)),
            Err(refusal) => no_way(refusal, question.to),
        })
        .collect()
    }

    /// The destinations that rules tell apart.
    pub fn rules(&mut self, family: Family) -> Result<Vec<IpNet>> {
        let mut message = RuleMessage::default();
        message.header.family = family.into();
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
    message.header.address_family = family.into();
    message.header.flags = flags;
    RouteNetlinkMessage::GetRoute(message)
}

impl Question {
    fn message(self) -> RouteMessage {
        let mut message = way_to(self.to, self.from);
        // For rules that tell by them, and for the hash among next hops.
        message.attributes.extend([
            RouteAttribute::IpProto(UDP),
            RouteAttribute::Dport(self.port),
        ]);
        message
    }
}

fn way_to(destination: IpAddr, from: Option<IpAddr>) -> RouteMessage {
    let whole = IpNet::from(destination).prefix_len();
    let mut message = RouteMessage::default();
    message.header.address_family = Family::of(destination).into();
    message.header.destination_prefix_length = whole;
    let attributes = &mut message.attributes;
    attributes.push(RouteAttribute::Destination(destination.into()));
    if let Some(from) = from {
        message.header.source_prefix_length = whole;
        attributes.push(RouteAttribute::Source(from.into()));
    }
    message
}

/// Nothing, if that is what a refusal means.
fn no_way(refusal: Refusal, destination: IpAddr) -> Result<Option<NextHop>> {
    match refusal.errno {
        // The last is the answer of a `prohibit` route.
        Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::EACCES => Ok(None),
        _ => Err(refusal.during(format!("look up the route to {destination}"))),
    }
}

impl RouteInfo {
    fn of(answer: RouteNetlinkMessage, family: Family) -> Option<Self> {
        match answer {
            // A kernel without this family answers with the routes of others.
            RouteNetlinkMessage::NewRoute(route)
                if route.header.address_family == family.into() =>
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

impl NextHop {
    fn of(answer: RouteNetlinkMessage) -> Option<Self> {
        match answer {
            RouteNetlinkMessage::NewRoute(route) => Self::from_message(&route),
            _ => None,
        }
    }

    fn from_message(message: &RouteMessage) -> Option<Self> {
        let mut oif = None;
        let mut gateway = None;
        let mut source = None;
        let mut path = None;
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Oif(index) => oif = Some(*index),
                RouteAttribute::Gateway(found) => gateway = address(found),
                RouteAttribute::Via(found) => gateway = via(found),
                RouteAttribute::PrefSource(found) => source = address(found),
                RouteAttribute::Metrics(metrics) => path = mtu(metrics),
                _ => {}
            }
        }
        Some(Self {
            oif: oif?,
            gateway,
            local: message.header.kind == RouteType::Local,
            source,
            mtu: path,
        })
    }
}

fn mtu(metrics: &[RouteMetric]) -> Option<u32> {
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
            _ => Self::Other,
        }
    }
}

fn message(destination: IpNet, protocol: u8) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: Family::of(destination.addr()).into(),
        destination_prefix_length: destination.prefix_len(),
        table: RouteHeader::RT_TABLE_MAIN,
        protocol: RouteProtocol::from(protocol),
        ..RouteHeader::default()
    };
    message.attributes = vec![RouteAttribute::Destination(destination.network().into())];
    message
}

fn address(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

fn via(via: &RouteVia) -> Option<IpAddr> {
    match via {
        RouteVia::Inet(address) => Some((*address).into()),
        RouteVia::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}
