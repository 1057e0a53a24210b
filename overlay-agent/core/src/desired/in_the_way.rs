//! Finds the obstacles, but for those of the underlay and of MTUs.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::{
    Derived, Node, cut_off, default_metric, needs_filter,
    obstacles::{Obstacle, OtherRoute},
    peers,
};
use crate::{
    model::{Family, IfName, Name},
    objects::{PeerObjects, RouteKey, Scope, filter_table},
    surroundings::NodeLink,
};

/// Finds what stands in the way of the networks.
pub(super) fn find(
    node: &Node<'_>,
    networks: &[Derived<'_>],
    peers: &PeerObjects,
    obstacles: &mut Vec<Obstacle>,
) {
    let mut owners = BTreeSet::new();
    for derived in networks {
        find_peers(node, derived, obstacles);
        // Port, addresses and routes of a network that is another instance's are so, too.
        let others = find_devices(node, derived, obstacles);
        if others.is_empty() {
            find_port(node, derived, obstacles);
            find_gateways(node, derived, obstacles);
        }
        owners.extend(others);
    }
    find_routes(node, networks, peers, &owners, obstacles);
    cut_off::find(node, networks, obstacles);
    find_filter(node, networks, obstacles);
}

/// Devices of others that have the names of a network's; the instances that have any of them.
fn find_devices(
    node: &Node<'_>,
    derived: &Derived<'_>,
    obstacles: &mut Vec<Obstacle>,
) -> BTreeSet<Name> {
    let devices = derived.devices().chain([derived.headroom]);
    let devices = devices.chain(derived.encrypting());
    let taken = devices.filter(|device| node.is_of_others(*device));
    let mut by_owner: BTreeMap<Name, Vec<IfName>> = BTreeMap::new();
    for device in taken {
        match node.owner_of(device) {
            Some(owner) => by_owner.entry(owner).or_default().push(device),
            None => obstacles.push(Obstacle::DeviceTaken { device }),
        }
    }
    let owners = by_owner.keys().cloned().collect();
    obstacles.extend(by_owner.into_iter().map(|(owner, devices)| {
        let network = derived.network.name.clone();
        Obstacle::NetworkTaken {
            network,
            devices,
            owner,
        }
    }));
    owners
}

fn find_port(node: &Node<'_>, derived: &Derived<'_>, obstacles: &mut Vec<Obstacle>) {
    let network = derived.network;
    let on_port = node
        .others()
        .filter(|(_, link)| link.vxlan_port == Some(network.port));
    let (named, on_port): (Vec<_>, Vec<_>) =
        on_port.partition(|(name, _)| derived.devices().any(|device| device == *name));
    let busy = |family| node.around.busy_ports.contains(&(family, network.port));
    if let Some((device, link)) = on_port.into_iter().next() {
        obstacles.push(Obstacle::PortTaken {
            network: network.name.clone(),
            port: network.port,
            device,
            owner: link.owner.clone(),
        });
    } else if named.is_empty() && derived.tunnels.iter().any(|tunnel| busy(tunnel.family())) {
        obstacles.push(Obstacle::PortBusy {
            network: network.name.clone(),
            port: network.port,
        });
    }
}

fn find_gateways(node: &Node<'_>, derived: &Derived<'_>, obstacles: &mut Vec<Obstacle>) {
    for address in derived
        .network
        .ranges
        .iter()
        .map(crate::model::Range::gateway)
    {
        let has = |link: &NodeLink| link.addresses.iter().any(|net| net.addr() == address);
        for (device, link) in node.others().filter(|(_, link)| has(link)) {
            obstacles.push(Obstacle::AddressTaken {
                network: derived.network.name.clone(),
                address,
                bridge: derived.bridge,
                device,
                owner: link.owner.clone(),
            });
        }
    }
}

fn find_peers(node: &Node<'_>, derived: &Derived<'_>, obstacles: &mut Vec<Obstacle>) {
    for peer in &derived.network.peers {
        if node.vteps.contains(&peer.vtep) {
            obstacles.push(Obstacle::OwnVtep {
                network: derived.network.name.clone(),
                peer: peer.name.clone(),
                vtep: peer.vtep,
            });
        }
    }
}

/// Routes of others that ours would replace, or that would go before ours.
fn find_routes(
    node: &Node<'_>,
    networks: &[Derived<'_>],
    peers: &PeerObjects,
    told: &BTreeSet<Name>,
    obstacles: &mut Vec<Obstacle>,
) {
    let plain = node.around.routes.keys();
    let in_place = node
        .around
        .in_place
        .keys()
        .map(|(destination, _)| destination);
    let destinations: BTreeSet<IpNet> = plain.chain(in_place).copied().collect();
    for destination in destinations {
        let key = RouteKey {
            scope: Scope::Node,
            destination,
            metric: peers::metric(destination),
        };
        let taken = peers.routes.contains_key(&key);
        let other = node.route_of_others(&key).filter(|_| taken);
        let is_told = |other: &OtherRoute| other.owner.as_ref().is_some_and(|of| told.contains(of));
        let Some(other) = other.filter(|other| !is_told(other)) else {
            continue;
        };
        let all = networks.iter().flat_map(|derived| &derived.network.peers);
        let mut owners = all.filter(|peer| peer.subnets.contains(&destination));
        obstacles.extend(owners.next().map(|peer| Obstacle::RouteTaken {
            peer: peer.name.clone(),
            destination,
            other: other.clone(),
        }));
    }
}

/// Whether there is a route, whoever's it is, that one of ours would replace, or that would go before it.
pub(super) fn stands_in_way(node: &Node<'_>, key: &RouteKey) -> bool {
    let RouteKey {
        destination,
        metric,
        ..
    } = *key;
    node.around.routes.contains_key(&destination)
        || node.around.in_place.contains_key(&(destination, metric))
}

fn find_filter(node: &Node<'_>, networks: &[Derived<'_>], obstacles: &mut Vec<Obstacle>) {
    let (use_for, instead) = if networks.len() > 1 {
        ("keeping networks apart", "one network a node")
    } else {
        ("masquerade", "masquerade = false")
    };
    if let Some(cause) = &node.around.no_filter {
        obstacles.push(Obstacle::NoFilter {
            use_for,
            cause: cause.clone(),
            instead,
        });
    }
    if let Some(owner) = &node.around.filter_of
        && needs_filter(node.inputs.model)
    {
        obstacles.push(Obstacle::TableTaken {
            table: filter_table(node.instance),
            use_for,
            owner: owner.clone(),
        });
    }
}

impl Node<'_> {
    /// Devices that this instance did not make.
    pub(super) fn others(&self) -> impl Iterator<Item = (IfName, &NodeLink)> {
        let links = self.around.links.iter();
        links
            .filter(|(_, link)| !link.ours)
            .map(|(name, link)| (*name, link))
    }

    /// The other instance that made a device.
    pub(super) fn owner_of(&self, device: IfName) -> Option<Name> {
        self.around.links.get(&device)?.owner.clone()
    }

    pub(super) fn is_of_others(&self, device: IfName) -> bool {
        let link = self.around.links.get(&device);
        link.is_some_and(|link| !link.ours)
    }

    /// A route of somebody else that stands in the way of one of ours.
    pub(super) fn route_of_others(&self, key: &RouteKey) -> Option<OtherRoute> {
        // What is on a device of ours is ours, and is put right.
        let of_others =
            |device: &Option<IfName>| device.is_none_or(|device| self.is_of_others(device));
        let in_place = self.around.in_place.get(&(key.destination, key.metric));
        let in_place = in_place.filter(|device| of_others(device));
        let observed = &self.inputs.observed.objects;
        let same_metric = key.metric == default_metric(Family::of(key.destination.addr()));
        let ours = same_metric
            && (observed.routes.contains_key(key) || observed.peers.routes.contains_key(key));
        let plain = self.around.routes.get(&key.destination);
        let plain = plain.filter(|device| of_others(device));
        let device = *in_place.or(plain).filter(|_| !ours)?;
        Some(OtherRoute {
            device,
            owner: device.and_then(|device| self.owner_of(device)),
        })
    }
}
