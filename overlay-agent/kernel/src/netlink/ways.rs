//! Which way packets take.

use std::net::IpAddr;

use ipnet::IpNet;
use nix::errno::Errno;
use overlay_core::{
    model::Family,
    surroundings::{NextHop, Question},
};
use rtnetlink::packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAttribute, RouteMessage, RouteType},
};

use super::{
    Bulk, Netlink, Request, address_family,
    refusal::Refusal,
    routes::{address, mtu, via},
};
use crate::Result;

/// `IPPROTO_UDP`.
const UDP: u8 = 17;

impl Netlink {
    /// The way to a destination, whatever its source (`ip route get`); `None` when there is none.
    pub async fn route_to(&self, destination: IpAddr) -> Result<Option<NextHop>> {
        self.ask_way(way_to(destination, None), destination).await
    }

    /// The way that packets of a tunnel take; `None` when there is none.
    ///
    /// Its source, if it has one, must be an address of this node.
    pub async fn way_of(&self, question: Question) -> Result<Option<NextHop>> {
        self.ask_way(asking(question), question.to).await
    }

    async fn ask_way(&self, message: RouteMessage, to: IpAddr) -> Result<Option<NextHop>> {
        match self.get(RouteNetlinkMessage::GetRoute(message)).await {
            Ok(answer) => Ok(next_hop(answer)),
            Err(refusal) => no_way(refusal, to),
        }
    }
}

impl Bulk {
    /// As [`Netlink::way_of`], for each of many questions.
    pub fn ways_of(&mut self, questions: &[Question]) -> Result<Vec<Option<NextHop>>> {
        let ask = |question: &Question| Request {
            message: RouteNetlinkMessage::GetRoute(asking(*question)),
            flags: 0,
        };
        let answers = self.ask(questions.iter().map(ask).collect());
        let hops = questions.iter().zip(answers);
        hops.map(|(question, answer)| match answer {
            Ok(answer) => Ok(answer.and_then(next_hop)),
            Err(refusal) => no_way(refusal, question.to),
        })
        .collect()
    }
}

pub(super) fn asking(question: Question) -> RouteMessage {
    let mut message = way_to(question.to, question.from);
    // For rules that tell by them, and for the hash among next hops.
    message.attributes.extend([
        RouteAttribute::IpProto(UDP),
        RouteAttribute::Dport(question.port),
    ]);
    message
}

fn way_to(destination: IpAddr, from: Option<IpAddr>) -> RouteMessage {
    let whole = IpNet::from(destination).prefix_len();
    let mut message = RouteMessage::default();
    message.header.address_family = address_family(Family::of(destination));
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
pub(super) fn no_way(refusal: Refusal, destination: IpAddr) -> Result<Option<NextHop>> {
    match refusal.errno {
        // The last two are the answers of `prohibit` and `blackhole` routes.
        Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::EACCES | Errno::EINVAL => Ok(None),
        _ => Err(refusal.during(format!("look up the route to {destination}"))),
    }
}

fn next_hop(answer: RouteNetlinkMessage) -> Option<NextHop> {
    match answer {
        RouteNetlinkMessage::NewRoute(route) => from_message(&route),
        _ => None,
    }
}

fn from_message(message: &RouteMessage) -> Option<NextHop> {
    let mut oif = None;
    let mut gateway = None;
    let mut source = None;
    let mut path = None;
    let mut expires = false;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => oif = Some(*index),
            RouteAttribute::Gateway(found) => gateway = address(found),
            RouteAttribute::Via(found) => gateway = via(found),
            RouteAttribute::PrefSource(found) => source = address(found),
            RouteAttribute::Metrics(metrics) => path = mtu(metrics),
            RouteAttribute::CacheInfo(info) => expires = info.expires != 0,
            _ => {}
        }
    }
    Some(NextHop {
        oif: oif?,
        gateway,
        local: message.header.kind == RouteType::Local,
        source,
        // What a router has told of a path over IPv4 is nothing to a tunnel: it fragments. What
        // somebody has written into the route stays.
        mtu: path.filter(|_| !expires || message.header.address_family != AddressFamily::Inet),
    })
}
