//! The entries that lead to the peers: routes, neighbours, forwarding entries and map entries.
//!
//! With many peers this is nearly everything, and nearly always the same as before: then what
//! was made before is used again.

mod some;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;
use overlay_common::wire::{OVERHEAD_V4, OVERHEAD_V6};

use super::{Derived, Full, Problem, Tunnel, guard, slots, spread, wireguard};
use crate::{
    model::{Family, IfName, Mac, Network, Peer, Range, Vni},
    objects::{
        Capacity, GuardSenders, LinkRef, Outer, PeerEntries, PeerEntry, PeerObjects, Route,
        RouteKey, Scope,
    },
    shared::Shared,
    surroundings::Way,
};

pub use some::{Few, OfSome, of_some};

/// How many peers are told by name that share a problem.
const NAMED: usize = 10;

/// The peers' objects, and what they follow from.
#[derive(Debug)]
pub struct ForPeers {
    cause: Cause,
    pub(super) objects: Shared<PeerObjects>,
    pub(super) problems: Vec<Problem>,
    /// The allowed senders into the tunnels.
    pub(super) senders: Arc<GuardSenders>,
    /// Networks of which not all peers are in the maps.
    pub(super) crowded: BTreeSet<Vni>,
}

#[derive(Debug, PartialEq)]
struct Cause {
    networks: Vec<OfNetwork>,
    ways: Shared<BTreeMap<IpAddr, Way>>,
    capacity: Capacity,
}

#[derive(Debug, PartialEq)]
struct OfNetwork {
    network: Network,
    mtu: u16,
    fast: bool,
    tunnels: Vec<(IfName, IpAddr)>,
    refused: BTreeMap<IpNet, IpNet>,
    closed: BTreeSet<IpAddr>,
    /// Whose packets go by the second device that encrypts.
    by_second: BTreeSet<IpAddr>,
}

/// The peers' objects; those from before if nothing differs from then.
pub(super) fn build(
    derived: &[Derived<'_>],
    ways: &Shared<BTreeMap<IpAddr, Way>>,
    capacity: &Capacity,
    kept: &PeerEntries,
    before: Option<&Arc<ForPeers>>,
) -> Arc<ForPeers> {
    let of_network = |derived: &Derived<'_>| OfNetwork {
        network: derived.network.clone(),
        mtu: derived.mtu,
        fast: derived.fast,
        tunnels: derived
            .tunnels
            .iter()
            .map(|tunnel| (tunnel.device, tunnel.local))
            .collect(),
        refused: derived.hooks.refused.clone(),
        closed: derived.hooks.closed.clone(),
        by_second: derived
            .second
            .as_ref()
            .map(|second| second.carries.clone())
            .unwrap_or_default(),
    };
    let cause = Cause {
        networks: derived.iter().map(of_network).collect(),
        ways: ways.clone(),
        capacity: *capacity,
    };
    if let Some(before) = before.filter(|before| before.cause == cause) {
        return Arc::clone(before);
    }
    let mut made = Made::with_room(
        derived
            .iter()
            .map(|derived| derived.network.peers.len())
            .sum(),
    );
    for derived in derived {
        made.add_network(derived, ways, capacity);
    }
    slots::assign_to_peers(kept, &mut made.vteps);
    Arc::new(ForPeers {
        cause,
        problems: std::mem::take(&mut made.problems),
        senders: guard::senders(derived).into(),
        crowded: std::mem::take(&mut made.crowded),
        objects: made.into_objects().into(),
    })
}

/// The largest inner packet on the way to a VTEP: its route may have an MTU, by which the kernel cuts up
/// what leaves. Over IPv6, which routers never fragment, the kernel has learned how narrow the path is.
fn path_mtu(mtu: u16, vtep: IpAddr, way: Option<&Way>) -> u16 {
    let overhead = match Family::of(vtep) {
        Family::V4 => OVERHEAD_V4,
        Family::V6 => OVERHEAD_V6,
    };
    let learned = way
        .and_then(|way| way.path_mtu)
        .and_then(|path| u16::try_from(path.saturating_sub(overhead.into())).ok());
    learned.map_or(mtu, |learned| mtu.min(learned))
}

/// The kernel looks for an equal next hop among all that share a metric, one by one (IPv4's
/// `fib_find_info`): with one metric for all, the time to add routes grows with the square of
/// their number. No two routes have the same destination, so a metric decides nothing else.
const METRICS: u32 = 4096;

/// The metric of the route to a peer's subnet.
pub fn metric(subnet: IpNet) -> u32 {
    match subnet {
        IpNet::V4(net) => {
            let number = net.network().to_bits() >> (32 - net.prefix_len().max(1));
            1 + number % METRICS
        }
        IpNet::V6(_) => super::default_metric(Family::V6),
    }
}

#[derive(Default)]
struct Made {
    routes: Vec<(RouteKey, Route)>,
    neighbours: Vec<((IfName, IpAddr), Mac)>,
    fdb: Vec<((IfName, Mac), Outer)>,
    subnets: Vec<((Vni, IpNet), PeerEntry)>,
    /// Which of the VTEPs each of the subnets is behind.
    owners: Vec<usize>,
    vteps: Vec<((Vni, IpAddr), u32)>,
    /// Entries so far, by family.
    used_subnets: [usize; 2],
    used_vteps: [usize; 2],
    problems: Vec<Problem>,
    crowded: BTreeSet<Vni>,
}

impl Made {
    fn with_room(peers: usize) -> Self {
        Self {
            routes: Vec::with_capacity(peers),
            neighbours: Vec::with_capacity(peers),
            fdb: Vec::with_capacity(peers),
            subnets: Vec::with_capacity(peers),
            owners: Vec::with_capacity(peers),
            vteps: Vec::with_capacity(peers),
            ..Self::default()
        }
    }

    fn add_network(
        &mut self,
        derived: &Derived<'_>,
        ways: &BTreeMap<IpAddr, Way>,
        capacity: &Capacity,
    ) {
        let mut without_way = 0;
        let mut left_out = 0;
        for peer in &derived.network.peers {
            let Some(tunnel) = derived.tunnel_to(peer.vtep) else {
                self.problems.push(Problem::NoTunnel {
                    peer: peer.name.clone(),
                    vtep: peer.vtep,
                    family: Family::of(peer.vtep),
                });
                continue;
            };
            let way = wireguard::way(derived, peer.vtep, ways.get(&peer.vtep));
            let way = way.as_deref();
            self.add_to_kernel(derived, tunnel, peer, way);
            if derived.fast {
                left_out += usize::from(!self.add_entries(derived, peer, way, capacity));
            }
            if way.is_none() {
                without_way += 1;
                if without_way <= NAMED {
                    self.problems.push(Problem::NoWay {
                        peer: peer.name.clone(),
                        vtep: peer.vtep,
                    });
                }
            }
        }
        if without_way > NAMED {
            self.problems.push(Problem::NoWayToMore {
                network: derived.network.name.clone(),
                peers: without_way - NAMED,
            });
        }
        if left_out > 0 {
            self.crowded.insert(derived.network.vni);
            self.problems.push(Problem::PeersLeftOut {
                network: derived.network.name.clone(),
                peers: left_out,
                full: self.full(capacity),
            });
        }
    }

    fn add_to_kernel(
        &mut self,
        derived: &Derived<'_>,
        tunnel: &Tunnel,
        peer: &Peer,
        way: Option<&Way>,
    ) {
        let path_mtu = path_mtu(derived.mtu, peer.vtep, way);
        let outer = Outer {
            vtep: peer.vtep,
            via: wireguard::device(derived, peer.vtep),
        };
        self.fdb.push(((tunnel.device, peer.mac), outer));
        for &subnet in &peer.subnets {
            // As flannel does it: the subnet's first address stands for the peer's VTEP.
            let next_hop = subnet.network();
            self.neighbours.push(((tunnel.device, next_hop), peer.mac));
            let range = derived.network.range(Family::of(next_hop));
            let key = RouteKey {
                scope: Scope::Node,
                destination: subnet,
                metric: metric(subnet),
            };
            let route = Route {
                dev: tunnel.device,
                via: next_hop,
                onlink: true,
                // The node's own packets carry an address that the peer knows to be behind this VTEP.
                source: range.map(Range::gateway),
                // The kernel forwards by it, and tells who sends more; it ignores what it has
                // learned of the tunnel's path.
                mtu: (path_mtu < derived.mtu).then_some(path_mtu.into()),
            };
            self.routes.push((key, route));
        }
    }

    /// The objects, once each VTEP has its slot.
    fn into_objects(mut self) -> PeerObjects {
        for ((_, entry), &peer) in self.subnets.iter_mut().zip(&self.owners) {
            entry.index = self.vteps[peer].1;
        }
        PeerObjects {
            // At once, because trees that grow entry by entry are half empty.
            routes: self.routes.into_iter().collect(),
            neighbours: self.neighbours.into_iter().collect(),
            fdb: self.fdb.into_iter().collect(),
            entries: PeerEntries {
                subnets: self.subnets.into_iter().collect(),
                vteps: self.vteps.into_iter().collect(),
            },
        }
    }

    /// All entries of a peer or, when a map has no room for them, none.
    fn add_entries(
        &mut self,
        derived: &Derived<'_>,
        peer: &Peer,
        way: Option<&Way>,
        capacity: &Capacity,
    ) -> bool {
        let vni = derived.network.vni;
        let mut subnets = self.used_subnets;
        let mut vteps = self.used_vteps;
        vteps[Family::of(peer.vtep) as usize] += 1;
        let refused = derived.hooks.refused.iter();
        let parts = refused.filter(|(_, subnet)| peer.subnets.contains(*subnet));
        let parts: BTreeSet<IpNet> = parts.map(|(part, _)| *part).collect();
        let others = peer.subnets.iter();
        let others = others.filter(|subnet| !parts.contains(*subnet));
        let rows: Vec<(IpNet, bool)> = others
            .map(|subnet| (*subnet, !derived.hooks.closed.contains(&peer.vtep)))
            .chain(parts.iter().map(|part| (*part, false)))
            .collect();
        for (subnet, _) in &rows {
            subnets[Family::of(subnet.addr()) as usize] += 1;
        }
        let more = |used: [usize; 2], room: [usize; 2]| used[0] > room[0] || used[1] > room[1];
        let slots = vteps.iter().sum::<usize>();
        if more(subnets, capacity.peers) || more(vteps, capacity.vteps) || slots > capacity.slots {
            return false;
        }
        self.used_subnets = subnets;
        self.used_vteps = vteps;
        let owner = self.vteps.len();
        // Slots are given out once all peers are known.
        self.vteps.push(((vni, peer.vtep), 0));
        for (subnet, open) in rows {
            let way = way.filter(|_| open);
            let entry = PeerEntry {
                vtep: peer.vtep,
                // An entry without a way still tells whose subnet it is; index 0 is no device.
                next_hop: way.map_or(peer.vtep, |way| way.next_hop),
                underlay: way.map_or(LinkRef::Gone(0), |way| LinkRef::Name(way.link)),
                mac: peer.mac,
                index: 0,
                mtu: path_mtu(derived.mtu, peer.vtep, way),
                needs_checksum: peer.udp6_checksum,
                spread: way.and_then(spread::of),
                hooked: !open,
            };
            self.subnets.push(((vni, subnet), entry));
            self.owners.push(owner);
        }
        true
    }

    /// The map that has the least room left, with its size.
    fn full(&self, capacity: &Capacity) -> Full {
        use overlay_common::maps::{PEER_STATS, PEERS4, PEERS6, VTEPS4, VTEPS6};
        let [peers4, peers6] = capacity.peers;
        let [vteps4, vteps6] = capacity.vteps;
        let maps = [
            (PEERS4, peers4, self.used_subnets[0]),
            (PEERS6, peers6, self.used_subnets[1]),
            (VTEPS4, vteps4, self.used_vteps[0]),
            (VTEPS6, vteps6, self.used_vteps[1]),
            (PEER_STATS, capacity.slots, self.used_vteps.iter().sum()),
        ];
        let room = |&(_, size, used): &(&str, usize, usize)| size.saturating_sub(used);
        let fullest = maps.into_iter().min_by_key(room);
        fullest.map_or((PEERS4, peers4), |(map, size, _)| (map, size))
    }
}
