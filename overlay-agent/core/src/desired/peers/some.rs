//! Peers that come and go while all else of the node stays as it is.
//!
//! Architecture Invariant: what is made here of some peers is what [`build`](super::build) would make
//! of them among all. Whatever could make a difference elsewhere has no outcome here, and is left to
//! that.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use super::{Cause, ForPeers, Made, OfNetwork, metric};
use ipnet::IpNet;

use crate::{
    desired::{
        Derived, Desired, Inputs, Node, cut_off, guard, in_the_way, networks, slots, underlay,
    },
    model::{Family, Name, Network, Peer, Peers, Vni},
    objects::{GuardSenders, LinkId, Objects, PeerObjects, RouteKey, Scope},
    shared::Shared,
    surroundings::Way,
};

/// Observed and desired objects of some peers.
#[derive(Debug)]
pub struct OfSome {
    /// Objects of those that have gone or change.
    pub there: Objects,
    /// Objects for those that have come or are others now.
    pub wanted: Objects,
    senders: Arc<GuardSenders>,
}

/// Few of the peers of a network.
#[derive(Clone, Copy, Debug)]
pub struct Few<'a> {
    /// The network.
    pub network: &'a Name,
    /// Those that it had, as they were.
    pub gone: &'a [Peer],
    /// Those that it has, as they are.
    pub come: &'a [Peer],
    /// The ways to these.
    pub ways: &'a BTreeMap<IpAddr, Way>,
}

/// The objects of some peers; `None` where others could be concerned.
pub fn of_some(inputs: Inputs<'_>, some: Few<'_>) -> Option<OfSome> {
    let before = inputs.before?;
    let mut obstacles = Vec::new();
    let node = underlay::node(inputs, &mut obstacles)?;
    let all = inputs.model.networks.iter();
    let derived: Vec<Derived<'_>> = all
        .filter_map(|network| networks::derive(&node, network, &mut obstacles))
        .collect();
    if !before.is_plain(&derived, &inputs, some.network) || concerns_others(&node, &derived, some) {
        return None;
    }
    cut_off::find(&node, &derived, &mut obstacles);
    let this = derived
        .iter()
        .find(|derived| derived.network.name == *some.network)
        // Keys are told beside.
        .filter(|derived| derived.wireguard.is_none())?;
    let there = there(this, &before.objects, some.gone)?;
    let wanted = wanted(this, &before.objects, &there, &inputs, some)?;
    let mut routes = wanted.routes.keys();
    if !obstacles.is_empty() || routes.any(|key| in_the_way::stands_in_way(&node, key)) {
        return None;
    }
    let senders = before.senders.changed(
        &guard::of_peers(this.network.vni, some.gone),
        guard::of_peers(this.network.vni, some.come),
    );
    let senders = Arc::new(senders);
    let mut desired = Desired::default();
    guard::build(&node, &derived, &senders, &mut desired);
    let observed = &inputs.observed.objects;
    if !desired.problems.is_empty() || desired.objects.guard.is_some() != observed.guard.is_some() {
        return None;
    }
    // Devices that stay, so that what is on them is changed.
    let devices = this
        .tunnels
        .iter()
        .map(|tunnel| LinkId::node(tunnel.device));
    let links: BTreeMap<_, _> = devices
        .map(|id| Some((id.clone(), observed.links.get(&id)?.clone())))
        .collect::<Option<_>>()?;
    Some(OfSome {
        there: Objects {
            links: links.clone(),
            guard: observed.guard.clone(),
            peers: there.into(),
            ..Objects::default()
        },
        wanted: Objects {
            links,
            guard: desired.objects.guard,
            peers: wanted.into(),
            ..Objects::default()
        },
        senders,
    })
}

impl ForPeers {
    /// Whether nothing but the peers of one network is another, and nothing was out of the ordinary.
    fn is_plain(&self, derived: &[Derived<'_>], inputs: &Inputs<'_>, network: &Name) -> bool {
        let cause = &self.cause;
        let alike = |(before, now): (&OfNetwork, &Derived<'_>)| {
            let tunnels = now.tunnels.iter();
            before.mtu == now.mtu
                && before.fast == now.fast
                && before.refused.is_empty()
                && before.closed.is_empty()
                && now.hooks.refused.is_empty()
                && now.hooks.closed.is_empty()
                && before
                    .tunnels
                    .iter()
                    .copied()
                    .eq(tunnels.map(|tunnel| (tunnel.device, tunnel.local)))
                && (before.network == *now.network
                    || before.network.name == *network && alike(&before.network, now.network))
        };
        self.problems.is_empty()
            && self.crowded.is_empty()
            && cause.capacity == inputs.capacity
            && cause.ways == inputs.observed.around.ways
            && inputs.observed.around.policies.is_empty()
            && !inputs.observed.around.tells_peers_apart
            && self.objects.is_same(&inputs.observed.objects.peers)
            && cause.networks.len() == derived.len()
            && cause.networks.iter().zip(derived).all(alike)
    }

    /// Without the objects, so that they can be changed where they are.
    #[must_use]
    pub fn emptied(self) -> Self {
        Self {
            objects: Shared::default(),
            cause: Cause {
                ways: Shared::default(),
                ..self.cause
            },
            ..self
        }
    }

    /// With the objects that all peers have now, after some were made.
    #[must_use]
    pub fn with(
        mut self,
        network: &Network,
        of_some: OfSome,
        objects: Shared<PeerObjects>,
        ways: Shared<BTreeMap<IpAddr, Way>>,
    ) -> Self {
        let mut networks = self.cause.networks.iter_mut();
        if let Some(before) = networks.find(|before| before.network.name == network.name) {
            before.network.clone_from(network);
        }
        self.cause.ways = ways;
        self.objects = objects;
        self.senders = of_some.senders;
        self
    }
}

/// Whether two networks differ in peers alone, and nothing that follows from all of these.
fn alike(one: &Network, other: &Network) -> bool {
    let without = |network: &Network| Network {
        peers: Peers::default(),
        ..network.clone()
    };
    let lengths = |family| one.peers.prefix_lengths(family) == other.peers.prefix_lengths(family);
    one.peers.vtep_families() == other.peers.vtep_families()
        && Family::ALL.into_iter().all(lengths)
        && without(one) == without(other)
}

/// Whether an outer address is this node's, or one that ranges of networks are around, or somebody
/// refuses a part of what such a peer has.
fn concerns_others(node: &Node<'_>, derived: &[Derived<'_>], some: Few<'_>) -> bool {
    let around = &node.around;
    let mut refused = around.named.keys().chain(around.refused.keys());
    let has_part = |net: &IpNet| {
        let mut subnets = some.come.iter().flat_map(|peer| &peer.subnets);
        subnets.any(|subnet| subnet.contains(net) || net.contains(subnet))
    };
    if refused.any(has_part) {
        return true;
    }
    let ranges = derived.iter().flat_map(|derived| &derived.network.ranges);
    let come = || {
        some.come
            .iter()
            .flat_map(|peer| &peer.subnets)
            .copied()
            .collect()
    };
    if ranges
        .clone()
        .any(|range| !around.routing.refused(range.cidr, come).is_empty())
    {
        return true;
    }
    let mut vteps = some.gone.iter().chain(some.come).map(|peer| peer.vtep);
    vteps.any(|vtep| {
        node.vteps.contains(&vtep) || ranges.clone().any(|range| range.cidr.contains(&vtep))
    })
}

/// Objects of peers that go.
fn there(derived: &Derived<'_>, all: &PeerObjects, gone: &[Peer]) -> Option<PeerObjects> {
    let vni = derived.network.vni;
    let mut there = PeerObjects::default();
    for peer in gone {
        let device = derived.tunnel_to(peer.vtep)?.device;
        note(&mut there.fdb, &all.fdb, (device, peer.mac));
        note(
            &mut there.entries.vteps,
            &all.entries.vteps,
            (vni, peer.vtep),
        );
        for &subnet in &peer.subnets {
            let key = RouteKey {
                scope: Scope::Node,
                destination: subnet,
                metric: metric(subnet),
            };
            note(&mut there.routes, &all.routes, key);
            note(
                &mut there.neighbours,
                &all.neighbours,
                (device, subnet.network()),
            );
            note(
                &mut there.entries.subnets,
                &all.entries.subnets,
                (vni, subnet),
            );
        }
    }
    Some(there)
}

fn note<K: Ord, V: Clone>(into: &mut BTreeMap<K, V>, from: &BTreeMap<K, V>, key: K) {
    if let Some(value) = from.get(&key) {
        into.insert(key, value.clone());
    }
}

/// Objects for peers that come.
fn wanted(
    derived: &Derived<'_>,
    all: &PeerObjects,
    there: &PeerObjects,
    inputs: &Inputs<'_>,
    some: Few<'_>,
) -> Option<PeerObjects> {
    let mut made = Made {
        used_subnets: left(
            all.entries.subnets.keys().map(|(_, net)| net.addr()),
            there.entries.subnets.keys().map(|(_, net)| net.addr()),
        ),
        used_vteps: left(
            all.entries.vteps.keys().map(|(_, vtep)| *vtep),
            there.entries.vteps.keys().map(|(_, vtep)| *vtep),
        ),
        ..Made::default()
    };
    for peer in some.come {
        let tunnel = derived.tunnel_to(peer.vtep)?;
        let way = some.ways.get(&peer.vtep)?;
        made.add_to_kernel(derived, tunnel, peer, Some(way));
        let capacity = &inputs.capacity;
        if derived.fast && !made.add_entries(derived, peer, Some(way), capacity) {
            return None;
        }
    }
    let gone: BTreeSet<(Vni, IpAddr)> = there.entries.vteps.keys().copied().collect();
    slots::assign_to_some_peers(&all.entries.vteps, &gone, &mut made.vteps);
    Some(made.into_objects())
}

/// How many of each family are left without some.
fn left(all: impl Iterator<Item = IpAddr>, gone: impl Iterator<Item = IpAddr>) -> [usize; 2] {
    let mut left = [0; 2];
    for address in all {
        left[Family::of(address) as usize] += 1;
    }
    for address in gone {
        left[Family::of(address) as usize] -= 1;
    }
    left
}
