//! The node's devices, and whose they are.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use overlay_core::{
    desired::last_resort_metric,
    model::{IfName, Name},
    objects::{ROUTE_PROTOCOL, Route, RouteKey, Scope},
};
use overlay_kernel::netlink::{LinkInfo, RouteInfo, RouteKind};

use super::{MAIN_TABLE, route};

/// The devices as they are now.
pub(super) struct Nodes<'a> {
    by_index: BTreeMap<u32, &'a LinkInfo>,
    ours: BTreeSet<u32>,
    pub(super) names: &'a BTreeMap<u32, IfName>,
    last_resort_metric: u32,
}

impl<'a> Nodes<'a> {
    pub(super) fn new(
        all: &'a [LinkInfo],
        ours: &[&LinkInfo],
        names: &'a BTreeMap<u32, IfName>,
        instance: &Name,
    ) -> Self {
        Self {
            by_index: all.iter().map(|link| (link.index, link)).collect(),
            ours: ours.iter().map(|link| link.index).collect(),
            names,
            last_resort_metric: last_resort_metric(instance),
        }
    }

    pub(super) fn link(&self, index: u32) -> Option<&'a LinkInfo> {
        self.by_index.get(&index).copied()
    }

    pub(super) fn is_ours(&self, index: u32) -> bool {
        self.ours.contains(&index)
    }

    /// Devices of others that are up and have a carrier.
    pub(super) fn carriers(&self) -> BTreeSet<u32> {
        let others = self
            .by_index
            .iter()
            .filter(|(index, link)| link.up && link.running && !self.is_ours(**index));
        others.map(|(index, _)| *index).collect()
    }

    pub(super) fn is_tunnel(&self, link: &LinkInfo) -> bool {
        link.vxlan.is_some() && self.ours.contains(&link.index)
    }

    pub(super) fn tunnels(&self) -> impl Iterator<Item = &'a LinkInfo> {
        let links = self.ours.iter().filter_map(|index| self.link(*index));
        links.filter(|link| self.is_tunnel(link))
    }

    pub(super) fn is_bridge(&self, link: &LinkInfo) -> bool {
        link.kind.as_deref() == Some("bridge") && self.ours.contains(&link.index)
    }

    pub(super) fn bridges(&self) -> impl Iterator<Item = &'a LinkInfo> {
        let links = self.ours.iter().filter_map(|index| self.link(*index));
        links.filter(|link| self.is_bridge(link))
    }

    /// A route of ours through a tunnel.
    pub(super) fn of_tunnel(&self, info: &RouteInfo) -> Option<(RouteKey, Route)> {
        let link = self.link(info.oif?)?;
        self.of_ours(info).filter(|_| self.is_tunnel(link))
    }

    pub(super) fn is_last_resort_metric(&self, metric: u32) -> bool {
        metric == self.last_resort_metric
    }

    /// A range that a route of ours makes unreachable.
    pub(super) fn of_last_resort(&self, info: &RouteInfo) -> Option<IpNet> {
        let ours = info.table == MAIN_TABLE
            && info.protocol == ROUTE_PROTOCOL
            && info.kind == RouteKind::Unreachable
            && self.is_last_resort_metric(info.metric);
        ours.then_some(info.destination)
    }

    /// A route of ours through a device.
    pub(super) fn of_ours(&self, info: &RouteInfo) -> Option<(RouteKey, Route)> {
        let ours = info.table == MAIN_TABLE
            && info.protocol == ROUTE_PROTOCOL
            && self.ours.contains(&info.oif?);
        ours.then(|| route(info, Scope::Node, self.names))?
    }
}
