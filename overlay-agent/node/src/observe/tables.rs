//! Routes, neighbours and forwarding entries: read once, and followed from then on.
//!
//! With many peers these tables are large, and the kernel announces each change of them. A
//! change that was missed, or that the kernel does not announce, has them read again.

mod rows;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use overlay_core::{
    desired::{default_metric, metric_to},
    model::{Family, IfName, Mac},
    objects::{PeerObjects, ROUTE_PROTOCOL, Route, RouteKey, StrayFdb},
    shared::Shared,
    surroundings::MAIN_TABLE,
};
use overlay_kernel::{
    self as kernel,
    netlink::{Bulk, Event, FdbInfo, NeighbourInfo, RouteInfo},
};

use self::rows::{key, other, stray};
use super::Nodes;

pub(super) use self::rows::{Entry, OtherRoute, entry, neighbour};

/// The tables of a node.
#[derive(Default)]
pub(super) struct Tables {
    /// The entries of our VXLAN devices, and the map rows that go with them.
    pub(super) peers: Shared<PeerObjects>,
    /// Our routes through other devices of ours.
    pub(super) routes: BTreeMap<RouteKey, Route>,
    /// The ranges that routes of ours make unreachable.
    pub(super) last_resorts: BTreeSet<IpNet>,
    /// Everybody else's, of all tables.
    pub(super) others: BTreeSet<OtherRoute>,
    /// Permanent neighbours on our bridges.
    pub(super) stray_neighbours: BTreeSet<(IfName, IpAddr)>,
    /// Other entries in the tables of our VXLAN devices.
    pub(super) stray_fdb: BTreeSet<StrayFdb>,
    /// Whether the kernel may lead to a peer otherwise since this was last reset.
    pub(super) others_changed: bool,
    /// Whom those ways lead to: of all the routes of a router, few concern one.
    pub(super) vteps: BTreeSet<IpAddr>,
    /// Devices of others that are up and have a carrier.
    carriers: BTreeSet<u32>,
    /// Devices on which something is whose end is not announced: name and state.
    devices: BTreeMap<u32, (IfName, bool)>,
}

impl Tables {
    pub(super) fn read(bulk: &mut Bulk, nodes: &Nodes<'_>) -> kernel::Result<Self> {
        let mut tables = Self {
            others_changed: true,
            carriers: nodes.carriers(),
            ..Self::default()
        };
        let mut ours = Vec::new();
        for family in Family::ALL {
            for info in bulk.routes(family)? {
                tables.note_device(info.oif, &info, nodes);
                match nodes.of_tunnel(&info) {
                    Some((key, route)) => ours.push((key, route)),
                    None => tables.set_elsewhere(&info, nodes),
                }
            }
        }
        let mut peers = PeerObjects {
            // At once, because trees that grow entry by entry are half empty.
            routes: ours.into_iter().collect(),
            ..PeerObjects::default()
        };
        let mut neighbours = Vec::new();
        let mut fdb = Vec::new();
        for tunnel in nodes.tunnels() {
            tables
                .devices
                .insert(tunnel.index, (tunnel.name, tunnel.up));
            let found = bulk.neighbours(tunnel.index)?.into_iter();
            neighbours.extend(found.filter_map(|found| neighbour(tunnel, &found)));
            for found in bulk.fdb(tunnel.index)? {
                match entry(tunnel, &found, nodes) {
                    Some(Entry::Plain(key, outer)) => fdb.push((key, outer)),
                    Some(Entry::Stray(stray)) => drop(tables.stray_fdb.insert(stray)),
                    None => {}
                }
            }
        }
        for bridge in nodes.bridges() {
            tables
                .devices
                .insert(bridge.index, (bridge.name, bridge.up));
            let found = bulk.neighbours(bridge.index)?.into_iter();
            let set = found.filter(|found| found.permanent);
            let keys = set.map(|found| (bridge.name, found.address));
            tables.stray_neighbours.extend(keys);
        }
        peers.neighbours = neighbours.into_iter().collect();
        peers.fdb = fdb.into_iter().collect();
        tables.peers = peers.into();
        Ok(tables)
    }

    /// Takes changes in; whether they are all that there were.
    pub(super) fn follow(&mut self, events: Vec<Event>, nodes: &Nodes<'_>) -> bool {
        for event in events {
            match event {
                Event::RouteSet { route, replaces } => self.set_route(&route, replaces, nodes),
                Event::RouteGone(route) => self.remove_route(&route, nodes),
                Event::NeighbourSet { index, neighbour } => {
                    self.set_neighbour(index, &neighbour, nodes);
                }
                Event::NeighbourGone { index, address } => {
                    if let Some((name, _)) = self.devices.get(&index) {
                        let key = (*name, address);
                        if self.peers.neighbours.contains_key(&key) {
                            self.peers.neighbours.remove(&key);
                        }
                        self.stray_neighbours.remove(&key);
                    }
                }
                Event::FdbSet { index, entry } => self.set_entry(index, &entry, nodes),
                Event::FdbGone { index, entry } => {
                    self.remove_entry(index, &entry);
                }
                Event::Lessened { index } if self.devices.contains_key(&index) => return false,
                // Of other devices; and filters are in no table.
                Event::Lessened { .. } | Event::Filters => {}
                Event::Ways => self.others_changed = true,
            }
        }
        self.note_carriers(nodes);
        let agrees = |(index, device): (&u32, &(IfName, bool))| {
            nodes.link(*index).map(|link| (link.name, link.up)) == Some(*device)
        };
        self.devices.iter().all(agrees)
    }

    /// The kernel passes over routes of devices without a carrier, or whose next hops went with
    /// it, and announces no route for it.
    fn note_carriers(&mut self, nodes: &Nodes<'_>) {
        let carriers = nodes.carriers();
        if self.carriers != carriers {
            self.carriers = carriers;
            self.others_changed = true;
        }
    }

    /// The destinations of others in the main table that have no metric of their own.
    pub(super) fn plain_routes(&self) -> impl Iterator<Item = &OtherRoute> {
        self.others.iter().filter(|route| {
            let family = Family::of(route.destination.addr());
            route.table == MAIN_TABLE && route.metric == default_metric(family)
        })
    }

    /// Those of the main table with a metric that a route of ours to the same destination would
    /// have: the kernel has one of them, or the other.
    pub(super) fn routes_in_place<'a>(
        &'a self,
        nodes: &'a Nodes<'_>,
    ) -> impl Iterator<Item = &'a OtherRoute> {
        self.others.iter().filter(|route| {
            let metric = route.metric;
            route.table == MAIN_TABLE
                && (metric == metric_to(route.destination) || nodes.is_last_resort_metric(metric))
        })
    }

    fn set_route(&mut self, info: &RouteInfo, replaces: bool, nodes: &Nodes<'_>) {
        if replaces {
            self.remove_replaced(info, nodes);
        }
        self.note_device(info.oif, info, nodes);
        match nodes.of_tunnel(info) {
            Some((key, route)) => {
                if self.peers.routes.get(&key) != Some(&route) {
                    self.peers.routes.insert(key, route);
                }
            }
            None => self.set_elsewhere(info, nodes),
        }
    }

    fn set_elsewhere(&mut self, info: &RouteInfo, nodes: &Nodes<'_>) {
        if let Some(cidr) = nodes.of_last_resort(info) {
            self.last_resorts.insert(cidr);
        } else if let Some((key, route)) = nodes.of_ours(info) {
            self.routes.insert(key, route);
        } else {
            let leads = self.leads_to_peer(&info.destination);
            self.others_changed |= self.others.insert(other(info)) && leads;
        }
    }

    /// One that takes the place of others has an end for them, too.
    fn remove_replaced(&mut self, info: &RouteInfo, nodes: &Nodes<'_>) {
        let key = key(info);
        if info.table == MAIN_TABLE {
            if self.peers.routes.contains_key(&key) && info.protocol != ROUTE_PROTOCOL {
                self.peers.routes.remove(&key);
            }
            self.routes.remove(&key);
            if nodes.is_last_resort_metric(info.metric) {
                self.last_resorts.remove(&info.destination);
            }
        }
        let first = OtherRoute {
            destination: info.destination,
            table: info.table,
            metric: info.metric,
            protocol: 0,
            device: None,
            many: false,
            exits: Vec::new(),
            refuses: None,
        };
        let same = |route: &&OtherRoute| {
            (route.destination, route.table, route.metric)
                == (info.destination, info.table, info.metric)
        };
        let replaced: Vec<OtherRoute> = self
            .others
            .range(first..)
            .take_while(same)
            .cloned()
            .collect();
        let leads = self.leads_to_peer(&info.destination);
        for route in replaced {
            self.others.remove(&route);
            self.others_changed |= leads;
        }
    }

    /// Whether a route with this destination can be the way to a peer.
    fn leads_to_peer(&self, destination: &IpNet) -> bool {
        let inside = destination.network()..=destination.broadcast();
        self.vteps.range(inside).next().is_some()
    }

    fn remove_route(&mut self, info: &RouteInfo, nodes: &Nodes<'_>) {
        if let Some((key, route)) = nodes.of_tunnel(info) {
            if self
                .peers
                .routes
                .get(&key)
                .is_some_and(|there| there.dev == route.dev)
            {
                self.peers.routes.remove(&key);
            }
        } else if let Some(cidr) = nodes.of_last_resort(info) {
            self.last_resorts.remove(&cidr);
        } else if let Some((key, _)) = nodes.of_ours(info) {
            self.routes.remove(&key);
        } else {
            let leads = self.leads_to_peer(&info.destination);
            self.others_changed |= self.others.remove(&other(info)) && leads;
        }
    }

    fn set_neighbour(&mut self, index: u32, found: &NeighbourInfo, nodes: &Nodes<'_>) {
        let Some(link) = nodes.link(index) else {
            return;
        };
        if nodes.is_bridge(link) && found.permanent {
            self.stray_neighbours.insert((link.name, found.address));
        }
        if !nodes.is_tunnel(link) {
            return;
        }
        let tunnel = link;
        self.devices.insert(index, (tunnel.name, tunnel.up));
        match neighbour(tunnel, found) {
            Some((key, mac)) if self.peers.neighbours.get(&key) != Some(&mac) => {
                self.peers.neighbours.insert(key, mac);
            }
            Some(_) => {}
            None => {
                let key = (tunnel.name, found.address);
                if self.peers.neighbours.contains_key(&key) {
                    self.peers.neighbours.remove(&key);
                }
            }
        }
    }

    fn set_entry(&mut self, index: u32, found: &FdbInfo, nodes: &Nodes<'_>) {
        let Some(tunnel) = nodes.link(index).filter(|link| nodes.is_tunnel(link)) else {
            return;
        };
        self.devices.insert(index, (tunnel.name, tunnel.up));
        let Some(entry) = entry(tunnel, found, nodes) else {
            return;
        };
        // A MAC has one destination; what was there before is gone, as it was or as a stray.
        let replaced = Mac::unicast(found.mac).map(|mac| (tunnel.name, mac));
        if replaced.is_some() {
            self.stray_fdb
                .retain(|stray| (stray.link, stray.mac) != (tunnel.name, found.mac));
        }
        match entry {
            Entry::Plain(key, outer) => {
                if self.peers.fdb.get(&key) != Some(&outer) {
                    self.peers.fdb.insert(key, outer);
                }
            }
            Entry::Stray(stray) => {
                if let Some(key) = replaced.filter(|key| self.peers.fdb.contains_key(key)) {
                    self.peers.fdb.remove(&key);
                }
                self.stray_fdb.insert(stray);
            }
        }
    }

    fn remove_entry(&mut self, index: u32, gone: &FdbInfo) {
        let Some(&(name, _)) = self.devices.get(&index).filter(|_| gone.own) else {
            return;
        };
        self.stray_fdb.remove(&stray(name, gone));
        if let Some(mac) = Mac::unicast(gone.mac)
            && self.peers.fdb.get(&(name, mac)).map(|outer| outer.vtep) == gone.dst
        {
            self.peers.fdb.remove(&(name, mac));
        }
    }

    /// The end of IPv6 routes is announced.
    fn note_device(&mut self, index: Option<u32>, info: &RouteInfo, nodes: &Nodes<'_>) {
        let ours = nodes.of_tunnel(info).or_else(|| nodes.of_ours(info));
        if info.destination.addr().is_ipv6() && ours.is_none() {
            return;
        }
        if let Some(link) = index.and_then(|index| nodes.link(index)) {
            self.devices.insert(link.index, (link.name, link.up));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Tables;

    #[test]
    fn few_routes_concern_a_peer() {
        let tables = Tables {
            vteps: ["192.0.2.7", "2001:db8::7"]
                .map(|vtep| vtep.parse().unwrap())
                .into(),
            ..Tables::default()
        };
        for (destination, leads) in [
            ("0.0.0.0/0", true),
            ("192.0.2.0/24", true),
            ("192.0.2.7/32", true),
            ("192.0.2.8/29", false),
            ("198.51.100.0/24", false),
            ("::/0", true),
            ("2001:db8::/32", true),
            ("fe80::/64", false),
            ("ff00::/8", false),
        ] {
            let net = destination.parse().unwrap();
            assert_eq!(tables.leads_to_peer(&net), leads, "{destination}");
        }
    }
}
