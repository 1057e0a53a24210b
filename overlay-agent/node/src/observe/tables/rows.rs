//! Rows of the tables, from what the kernel tells.

use std::net::IpAddr;

use ipnet::IpNet;
use overlay_core::{
    model::{IfName, Mac},
    objects::{Outer, RouteKey, Scope, StrayFdb},
};
use overlay_kernel::netlink::{FdbInfo, LinkInfo, NeighbourInfo, RouteInfo, RouteKind};

use super::Nodes;

/// A route that is not ours.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) struct OtherRoute {
    pub(in super::super) destination: IpNet,
    pub(in super::super) table: u32,
    pub(in super::super) metric: u32,
    pub(in super::super) protocol: u8,
    pub(in super::super) device: Option<u32>,
    /// Whether it leads to several next hops.
    pub(in super::super) many: bool,
    /// The devices that it sends packets on by.
    pub(in super::super) exits: Vec<u32>,
    /// As `ip route` calls it, if it refuses packets.
    pub(in super::super) refuses: Option<&'static str>,
}

pub(super) fn key(info: &RouteInfo) -> RouteKey {
    RouteKey {
        scope: Scope::Node,
        destination: info.destination,
        metric: info.metric,
    }
}

pub(super) fn other(info: &RouteInfo) -> OtherRoute {
    OtherRoute {
        destination: info.destination,
        table: info.table,
        metric: info.metric,
        protocol: info.protocol,
        device: info.oif,
        many: info.oif.is_none() && info.kind == RouteKind::Unicast,
        exits: if info.kind == RouteKind::Unicast {
            info.oif.iter().chain(&info.hops).copied().collect()
        } else {
            Vec::new()
        },
        refuses: info.kind.refuses(),
    }
}

pub(in super::super) fn neighbour(
    tunnel: &LinkInfo,
    found: &NeighbourInfo,
) -> Option<((IfName, IpAddr), Mac)> {
    let mac = found.mac.filter(|_| found.permanent)?;
    Some(((tunnel.name, found.address), mac))
}

/// An entry in the table of a VXLAN device.
pub(in super::super) enum Entry {
    /// As we make them: one destination for a MAC, for good.
    Plain((IfName, Mac), Outer),
    /// As we never do.
    Stray(StrayFdb),
}

/// `None` for what is in its bridge's table, of which it is a port.
pub(in super::super) fn entry(
    tunnel: &LinkInfo,
    found: &FdbInfo,
    nodes: &Nodes<'_>,
) -> Option<Entry> {
    if !found.own {
        return None;
    }
    let via = found.via.map(|index| nodes.names.get(&index).copied());
    // By a device that is gone nothing leaves.
    let plain = found.permanent && !found.detour && via != Some(None);
    let via = via.flatten();
    Some(match (Mac::unicast(found.mac), found.dst) {
        (Some(mac), Some(vtep)) if plain => Entry::Plain((tunnel.name, mac), Outer { vtep, via }),
        _ => Entry::Stray(stray(tunnel.name, found)),
    })
}

pub(super) fn stray(link: IfName, found: &FdbInfo) -> StrayFdb {
    StrayFdb {
        link,
        mac: found.mac,
        dst: found.dst,
    }
}
