//! The kernel's events about changes.

use std::{collections::BTreeSet, net::IpAddr};

use overlay_core::model::Family;
use rtnetlink::{
    packet_core::{NLM_F_REPLACE, NetlinkMessage, NetlinkPayload},
    packet_route::{AddressFamily, RouteNetlinkMessage, link::LinkFlags, route::RouteMessage},
};

use super::{FdbInfo, NeighbourInfo, RouteInfo};

/// The events since the last time.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// In this namespace, in their order.
    pub events: Vec<Event>,
    /// The devices of this namespace that are to be looked at again.
    pub touched: Touched,
    /// The others in which something has changed, by the numbers that this one has for them
    /// (`IFLA_LINK_NETNSID`).
    pub namespaces: BTreeSet<i32>,
}

/// Kinds of objects that have changed, without details.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Devices that came, went or changed, by index.
    pub links: BTreeSet<u32>,
    /// Whether addresses did.
    pub addresses: bool,
}

impl Touched {
    /// Takes in what a message tells of.
    pub(super) fn note(&mut self, message: &NetlinkMessage<RouteNetlinkMessage>) {
        let NetlinkPayload::InnerMessage(message) = &message.payload else {
            return;
        };
        match message {
            RouteNetlinkMessage::NewLink(link) => {
                self.links.insert(link.header.index);
            }
            RouteNetlinkMessage::DelLink(link) => {
                self.links.insert(link.header.index);
                // They go with it.
                self.addresses = true;
            }
            RouteNetlinkMessage::NewAddress(_) | RouteNetlinkMessage::DelAddress(_) => {
                self.addresses = true;
            }
            _ => {}
        }
    }
}

/// Something that has changed.
#[derive(Clone, Debug)]
pub enum Event {
    /// A route was made, in the place of others if it `replaces` them.
    RouteSet {
        /// The route.
        route: RouteInfo,
        /// Whether it replaces those of the same destination, table and metric.
        replaces: bool,
    },
    /// A route is gone.
    RouteGone(RouteInfo),
    /// A neighbour was made or changed.
    NeighbourSet {
        /// `ifindex` of its device.
        index: u32,
        /// The neighbour.
        neighbour: NeighbourInfo,
    },
    /// A neighbour is gone.
    NeighbourGone {
        /// `ifindex` of its device.
        index: u32,
        /// Its address.
        address: IpAddr,
    },
    /// A forwarding entry was made or changed.
    FdbSet {
        /// `ifindex` of its device.
        index: u32,
        /// The entry.
        entry: FdbInfo,
    },
    /// A forwarding entry is gone.
    FdbGone {
        /// `ifindex` of its device.
        index: u32,
        /// The entry.
        entry: FdbInfo,
    },
    /// A device is down or gone, or has an address less: IPv4 routes go with it unannounced.
    Lessened {
        /// `ifindex` of the device.
        index: u32,
    },
    /// Rules have changed, or what else chooses among routes.
    Ways,
    /// Filters or qdiscs have: all of a device's can go with one event that names none.
    Filters,
}

/// The device that carries nothing after what a message tells.
pub(super) fn cuts_off(message: &NetlinkMessage<RouteNetlinkMessage>) -> Option<u32> {
    match &message.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => {
            let carries = LinkFlags::Up | LinkFlags::LowerUp;
            (!link.header.flags.contains(carries)).then_some(link.header.index)
        }
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link)) => Some(link.header.index),
        _ => None,
    }
}

/// The event of a message whose details matter.
pub(super) fn event(message: NetlinkMessage<RouteNetlinkMessage>) -> Option<Event> {
    let replaces = message.header.flags & NLM_F_REPLACE != 0;
    let NetlinkPayload::InnerMessage(message) = message.payload else {
        return None;
    };
    match message {
        RouteNetlinkMessage::NewRoute(message) => {
            let route = route(&message)?;
            Some(Event::RouteSet { route, replaces })
        }
        RouteNetlinkMessage::DelRoute(message) => Some(Event::RouteGone(route(&message)?)),
        RouteNetlinkMessage::NewNeighbour(message) => {
            let index = message.header.ifindex;
            if message.header.family == AddressFamily::Bridge {
                let entry = FdbInfo::from_event(&message)?;
                return Some(Event::FdbSet { index, entry });
            }
            let neighbour = NeighbourInfo::from_message(&message)?;
            Some(Event::NeighbourSet { index, neighbour })
        }
        RouteNetlinkMessage::DelNeighbour(message) => {
            let index = message.header.ifindex;
            if message.header.family == AddressFamily::Bridge {
                let entry = FdbInfo::from_event(&message)?;
                return Some(Event::FdbGone { index, entry });
            }
            let address = NeighbourInfo::from_message(&message)?.address;
            Some(Event::NeighbourGone { index, address })
        }
        RouteNetlinkMessage::NewLink(message) => {
            let index = message.header.index;
            let up = message.header.flags.contains(LinkFlags::Up);
            (!up).then_some(Event::Lessened { index })
        }
        RouteNetlinkMessage::DelLink(message) => Some(Event::Lessened {
            index: message.header.index,
        }),
        RouteNetlinkMessage::DelAddress(message) => Some(Event::Lessened {
            index: message.header.index,
        }),
        RouteNetlinkMessage::NewRule(_) | RouteNetlinkMessage::DelRule(_) => Some(Event::Ways),
        RouteNetlinkMessage::NewTrafficFilter(_)
        | RouteNetlinkMessage::DelTrafficFilter(_)
        | RouteNetlinkMessage::NewTrafficChain(_)
        | RouteNetlinkMessage::DelTrafficChain(_)
        | RouteNetlinkMessage::NewQueueDiscipline(_)
        | RouteNetlinkMessage::DelQueueDiscipline(_) => Some(Event::Filters),
        _ => None,
    }
}

fn route(message: &RouteMessage) -> Option<RouteInfo> {
    let family = match message.header.address_family {
        AddressFamily::Inet => Family::V4,
        AddressFamily::Inet6 => Family::V6,
        _ => return None,
    };
    RouteInfo::from_message(message, family)
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_route::neighbour::{
        NeighbourAttribute, NeighbourCacheInfo, NeighbourFlags, NeighbourMessage, NeighbourState,
    };

    use super::*;

    /// As `vxlan_fdb_info()` tells of an entry, or as `nlmsg_populate_fdb_fill()` does.
    fn set(by_device: bool) -> Option<Event> {
        let mut entry = NeighbourMessage::default();
        entry.header.family = AddressFamily::Bridge;
        entry.header.ifindex = 7;
        entry.header.flags = NeighbourFlags::Own;
        entry.header.state = NeighbourState::Permanent;
        let mac = NeighbourAttribute::LinkLayerAddress(vec![2, 0, 0, 0, 0, 9]);
        entry.attributes.push(mac);
        if by_device {
            let age = NeighbourCacheInfo::parse(&[0; 16]).unwrap();
            entry.attributes.extend([
                NeighbourAttribute::Destination(IpAddr::from([192, 0, 2, 1]).into()),
                NeighbourAttribute::CacheInfo(age),
            ]);
        }
        event(RouteNetlinkMessage::NewNeighbour(entry).into())
    }

    #[test]
    fn an_entry_that_is_told_of_twice_is_set_once() {
        let Some(Event::FdbSet { index: 7, entry }) = set(true) else {
            panic!("the device's own event is none");
        };
        assert_eq!(entry.dst, Some(IpAddr::from([192, 0, 2, 1])));
        assert!(set(false).is_none());
    }
}
