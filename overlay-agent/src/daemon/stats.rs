//! The node's counters, as the API tells them.

use std::{
    net::IpAddr,
    time::{SystemTime, UNIX_EPOCH},
};

use overlay_common::maps::{self, MAX_FLOWS, NODE_SLOT};
use overlay_control::{
    Reply, SCHEMA, rfc3339,
    stats::{Counter, Export, MapFill, PathCounts, Reload, Stats},
};
use overlay_core::{
    desired::{veth_name, vxlan_name},
    model::{Endpoint, Family, Vni},
    objects::LinkRef,
};
use overlay_insight::stats::{Counted, Owners, with_drops_of_kernel, with_kernel};
use overlay_kernel::{
    self as kernel,
    nft::{self, Dropped},
    statistics,
};

use super::Reconciler;

impl Reconciler {
    /// What Prometheus is given: a series that appears with its first packet has no rate for it,
    /// so peers without traffic are there, too, unless there are very many.
    pub(super) fn export(&mut self) -> Reply {
        const MOST: usize = 1000;
        match self.stats(self.model.peer_count() <= MOST) {
            Reply::Stats(stats) => Reply::Export(Box::new(Export {
                stats: *stats,
                mesh: self.mesh(MOST),
            })),
            refused => refused,
        }
    }

    /// As of now; peers and endpoints as of the last round.
    pub(super) fn stats(&mut self, all: bool) -> Reply {
        let read = self.node.with_maps(|maps| Counted::read(maps.counters()));
        let counted = match read {
            Ok(counted) => counted.unwrap_or_default(),
            Err(error) => return Reply::Failed(error.to_string()),
        };
        let dropped_by_kernel = match self.dropped_by_kernel() {
            Ok(dropped) => dropped,
            Err(error) => return Reply::Failed(error.to_string()),
        };
        let problems = self.problems_now();
        let owners = self.owners();
        let mut networks = counted.networks(&owners, all);
        match self.by_kernel() {
            Ok(by_kernel) => {
                for (network, counts) in networks.iter_mut().zip(by_kernel) {
                    network.kernel = counts;
                }
            }
            Err(error) => return Reply::Failed(error.to_string()),
        }
        Reply::Stats(Box::new(Stats {
            schema: SCHEMA,
            time: rfc3339(SystemTime::now()),
            time_ms: milliseconds(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            abi: overlay_kernel::hooks::abi(),
            instance: self.store.content().instance().clone(),
            node: self.model.node.name.clone(),
            fastpath: self.fastpath_state(),
            healthy: problems.is_empty(),
            cluster: self.cluster_status(),
            problems,
            programs: with_kernel(counted.programs(), &dropped_by_kernel),
            repairs: self.repairs.count,
            reload: Reload {
                successful: self.refused.is_none() && self.refused_fragments.is_empty(),
                time: rfc3339(self.read_at),
            },
            networks,
            endpoints: counted.endpoints(&owners),
            host: counted.host(),
            former: counted.former(&owners),
            drops: with_drops_of_kernel(counted.drops(&owners), &dropped_by_kernel),
            passes: counted.passes(&owners),
            maps: self.fill(),
        }))
    }

    /// Drops of the guard of the tunnels' ports.
    fn dropped_by_kernel(&self) -> kernel::Result<Dropped> {
        if self.observed.objects.guard.is_none() {
            return Ok(Dropped::new());
        }
        nft::dropped_by_guard(self.store.content().instance())
    }

    /// Whose the slots are.
    fn owners(&self) -> Owners<'_> {
        let vteps = &self.observed.objects.peers.entries.vteps;
        let slot_of = |vni: Vni, vtep: IpAddr| vteps.get(&(vni, vtep)).copied();
        let networks = self.model.networks.iter().map(|network| {
            let peers = network.peers.iter();
            let slots = peers.map(|peer| (peer, slot_of(network.vni, peer.vtep)));
            (network, slots.collect())
        });
        let endpoints = self.model.endpoints.iter();
        Owners {
            networks: networks.collect(),
            endpoints: endpoints
                .map(|endpoint| (endpoint, self.slot_of(endpoint)))
                .collect(),
        }
    }

    /// Traffic of the kernel's VXLAN devices, by network.
    pub(super) fn by_kernel(&self) -> kernel::Result<Vec<PathCounts>> {
        let devices = statistics::traffic()?;
        let networks = self.model.networks.iter();
        Ok(networks
            .map(|network| {
                let mut sum = PathCounts::default();
                let tunnels = Family::ALL.into_iter();
                let tunnels = tunnels.filter_map(|family| vxlan_name(network.vni, family));
                for counts in tunnels.filter_map(|device| devices.get(&device)) {
                    sum.tx += counter(counts.tx);
                    sum.rx += counter(counts.rx);
                }
                sum
            })
            .collect())
    }

    fn slot_of(&self, endpoint: &Endpoint) -> Option<u32> {
        let device = veth_name(&endpoint.name)?;
        let ports = &self.observed.objects.entries.ports;
        let slot = ports.get(&LinkRef::Name(device))?.slot;
        // Without one of its own it counts as the node itself.
        (slot != NODE_SLOT).then_some(slot)
    }

    /// How full the maps are: those that are not of counters alone.
    fn fill(&self) -> Vec<MapFill> {
        if self.observed.objects.pins.is_empty() {
            return Vec::new();
        }
        let capacity = self.capacity();
        let entries = &self.observed.objects.entries;
        let peers = &self.observed.objects.peers.entries;
        let by_family = |addresses: &mut dyn Iterator<Item = bool>| {
            addresses.fold(
                [0, 0],
                |[v4, v6], is_v4| {
                    if is_v4 { [v4 + 1, v6] } else { [v4, v6 + 1] }
                },
            )
        };
        let subnets = by_family(&mut peers.subnets.keys().map(|(_, net)| net.addr().is_ipv4()));
        let vteps = by_family(&mut peers.vteps.keys().map(|(_, vtep)| vtep.is_ipv4()));
        let endpoints = by_family(&mut entries.endpoints.keys().map(|(_, ip)| ip.is_ipv4()));
        let fills = [
            (maps::NETWORKS, entries.networks.len(), capacity.networks),
            (maps::PEERS4, subnets[0], capacity.peers[0]),
            (maps::PEERS6, subnets[1], capacity.peers[1]),
            (maps::VTEPS4, vteps[0], capacity.vteps[0]),
            (maps::VTEPS6, vteps[1], capacity.vteps[1]),
            (maps::PEER_STATS, peers.vteps.len(), capacity.slots),
            (maps::ENDPOINTS4, endpoints[0], capacity.endpoints[0]),
            (maps::ENDPOINTS6, endpoints[1], capacity.endpoints[1]),
            (maps::PORTS, entries.ports.len(), capacity.ports),
            (maps::SOURCES, entries.sources.len(), capacity.sources),
            (maps::CIDRS, entries.cidrs.len(), capacity.cidrs),
            (maps::FLOWS, self.flows.translated(), MAX_FLOWS),
        ];
        let fill = |(map, entries, capacity): (&str, usize, usize)| MapFill {
            map: map.to_owned(),
            entries,
            capacity,
        };
        fills.map(fill).into()
    }
}

fn counter((packets, bytes): (u64, u64)) -> Counter {
    Counter { packets, bytes }
}

/// Since 1970, UTC.
pub(super) fn milliseconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}
