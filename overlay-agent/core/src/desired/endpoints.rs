//! An endpoint's veth, addresses, routes and map entries.

mod problem;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{
    Derived, Desired, Full, Node, Problem, Room, address_of, default_metric, hooks, names, values,
};
use crate::{
    model::{Clash, Endpoint, Family, IfName, Mac, Name, NetnsRef, Network, Range},
    objects::{
        Address, AttachmentState, EndpointEntry, Hook, Link, LinkId, LinkKind, LinkRef, Objects,
        Route, RouteKey, Scope,
    },
    surroundings::EndpointPlace,
};

pub(super) use problem::problem;

/// An endpoint with what was derived for it.
struct Attached<'a> {
    node: &'a Node<'a>,
    derived: &'a Derived<'a>,
    endpoint: &'a Endpoint,
    /// Its addresses, each with the network's range that it is in.
    addresses: Vec<(&'a Range, IpAddr)>,
    mac: Mac,
    /// The node's side of its veth.
    host: IfName,
    /// The container's side.
    inside: LinkId,
}

/// The identity of an endpoint in its network.
pub(super) struct Identity<'a> {
    /// Its addresses, each with the network's range that it is in.
    pub(super) addresses: Vec<(&'a Range, IpAddr)>,
    pub(super) mac: Mac,
    /// The node's side of its veth.
    pub(super) host: IfName,
}

impl<'a> Identity<'a> {
    /// `None` while it lacks an address: half an endpoint would be harder to understand than none.
    pub(super) fn of(node: &Node<'_>, network: &'a Network, endpoint: &Endpoint) -> Option<Self> {
        let addresses = network.ranges.iter().map(|range| {
            let address = address_of(node.inputs.store, endpoint, range.family())?;
            Some((range, address))
        });
        let addresses: Vec<_> = addresses.collect::<Option<_>>()?;
        let derived_mac = |&(_, first): &(&Range, IpAddr)| names::endpoint_mac(first);
        Some(Self {
            mac: endpoint.mac.or(addresses.first().and_then(derived_mac))?,
            host: names::veth_name(&endpoint.name)?,
            addresses,
        })
    }
}

/// Addresses that are in no map, by network and the map that is full.
type LeftOut = BTreeMap<(Name, Full), usize>;

pub(super) fn build(
    node: &Node<'_>,
    networks: &[Derived<'_>],
    room: &mut Room,
    desired: &mut Desired,
) {
    let mut left_out = LeftOut::new();
    // A new one does not take the place of one that is there.
    let ports = &node.inputs.observed.objects.entries.ports;
    let is_there = |endpoint: &&Endpoint| {
        let device = names::veth_name(&endpoint.name);
        device.is_some_and(|device| ports.contains_key(&LinkRef::Name(device)))
    };
    let endpoints = node.inputs.model.endpoints.iter();
    let (there, new): (Vec<_>, Vec<_>) = endpoints.partition(is_there);
    // What we made stays for as long as the configuration names it, whatever else is wrong.
    let made = &node.inputs.observed.objects.namespaces;
    let model = node.inputs.model;
    let waiting = model.clashes.iter().filter_map(Clash::waiting);
    let waiting = waiting.map(|(_, netns)| netns);
    let named = model.endpoints.iter().map(|endpoint| &endpoint.netns);
    for netns in named.chain(waiting) {
        if let NetnsRef::Name(netns) = netns
            && made.contains(netns)
        {
            desired.objects.namespaces.insert(netns.clone());
        }
    }
    let clashes = model.clashes.iter().cloned();
    desired.problems.extend(clashes.map(Problem::Clash));
    for endpoint in there.into_iter().chain(new) {
        let mut networks = networks.iter();
        let network = networks.find(|derived| derived.network.name == endpoint.network);
        if let Some(derived) = network {
            build_one(node, derived, endpoint, room, &mut left_out, desired);
        }
    }
    desired.problems.extend(told(left_out));
}

/// One endpoint, on a node that has the others.
pub(super) fn build_alone(
    node: &Node<'_>,
    derived: &Derived<'_>,
    endpoint: &Endpoint,
    room: &mut Room,
    desired: &mut Desired,
) {
    let mut left_out = LeftOut::new();
    build_one(node, derived, endpoint, room, &mut left_out, desired);
    desired.problems.extend(told(left_out));
}

fn told(left_out: LeftOut) -> impl Iterator<Item = Problem> {
    let problem = |((network, full), addresses)| Problem::AddressesLeftOut {
        network,
        addresses,
        full,
    };
    left_out.into_iter().map(problem)
}

fn build_one(
    node: &Node<'_>,
    derived: &Derived<'_>,
    endpoint: &Endpoint,
    room: &mut Room,
    left_out: &mut LeftOut,
    desired: &mut Desired,
) {
    let name = &endpoint.name;
    let ranges = derived.network.ranges.iter();
    let lacking =
        ranges.filter(|range| address_of(node.inputs.store, endpoint, range.family()).is_none());
    let lacking = lacking.map(|range| Problem::NoAddress {
        endpoint: name.clone(),
        subnet: range.subnet,
    });
    desired.problems.extend(lacking);
    let Some(Identity {
        addresses,
        mac,
        host,
    }) = Identity::of(node, derived.network, endpoint)
    else {
        return;
    };
    match problem(node, endpoint, &LinkId::node(host), desired) {
        None => {}
        // A runtime's containers come and go; it is told when it asks.
        Some(Problem::NoNamespace { .. }) if endpoint.attachment.is_some() => return,
        Some(problem) => {
            desired.problems.push(problem);
            return;
        }
    }
    if derived.fast
        && let Err(full) = room.for_endpoint(endpoint.allowed_sources.len())
    {
        desired.problems.push(Problem::EndpointLeftOut {
            endpoint: name.clone(),
            full,
        });
        return;
    }
    let inside = LinkId {
        scope: Scope::Endpoint(name.clone()),
        name: endpoint.interface,
    };
    let attached = Attached {
        node,
        derived,
        endpoint,
        addresses,
        mac,
        host,
        inside,
    };
    attached.add_devices(&mut desired.objects);
    attached.add_default_routes(desired);
    attached.add_routes_behind(desired);
    attached.add_entries(room, left_out, desired);
}

impl Attached<'_> {
    fn add_devices(&self, objects: &mut Objects) {
        let places = &self.node.around.endpoints;
        let absent = !matches!(
            places.get(&self.endpoint.name),
            Some(EndpointPlace::There { .. } | EndpointPlace::Node | EndpointPlace::OtherNode(_))
        );
        // One that is there already is somebody's, or stays as ours with all of its endpoints.
        if let (NetnsRef::Name(netns), true) = (&self.endpoint.netns, absent) {
            objects.namespaces.insert(netns.clone());
        }
        let mtu = u32::from(self.derived.mtu);
        // Smaller packets do no harm.
        let kept = self.handed_over().map_or(mtu, |inside| inside.mtu.min(mtu));
        objects.links.insert(
            LinkId::node(self.host),
            Link {
                kind: LinkKind::Veth {
                    peer: self.inside.clone(),
                },
                mac: None,
                mtu,
                up: true,
                master: Some(self.derived.bridge),
                alias: Some(names::endpoint_alias(
                    self.node.instance,
                    &self.endpoint.name,
                )),
                altered: false,
                oversized: false,
            },
        );
        objects.links.insert(
            self.inside.clone(),
            Link {
                kind: LinkKind::VethPeer { host: self.host },
                mac: Some(self.mac),
                mtu: kept,
                up: true,
                master: None,
                alias: None,
                altered: false,
                oversized: false,
            },
        );
        let addresses = self.addresses.iter().map(|(range, address)| Address {
            link: self.inside.clone(),
            net: range.on_link(*address),
        });
        objects.addresses.extend(addresses);
    }

    /// The container's side, where it is there and what others have changed of it is theirs: those
    /// that a runtime calls after us may move routes to other tables, or make packets smaller.
    fn handed_over(&self) -> Option<&Link> {
        let inputs = self.node.inputs;
        let handed_over = inputs.store.is_handed_over(&self.endpoint.name);
        let links = &inputs.observed.objects.links;
        links.get(&self.inside).filter(|_| handed_over)
    }

    fn add_default_routes(&self, desired: &mut Desired) {
        let place = self.node.around.endpoints.get(&self.endpoint.name);
        for (range, _) in &self.addresses {
            let family = range.family();
            if let Some(EndpointPlace::There { default_routes, .. }) = place
                && let Some(device) = default_routes.get(&family)
            {
                // A runtime gives a container several networks, and the route to the first.
                if self.endpoint.attachment.is_some() {
                    continue;
                }
                desired.problems.push(Problem::OtherDefaultRoute {
                    endpoint: self.endpoint.name.clone(),
                    family,
                    device: device.clone(),
                });
                continue;
            }
            let key = default_route(self.inside.scope.clone(), family);
            let there = &self.node.inputs.observed.objects.routes;
            let attachment = self.endpoint.attachment.as_ref();
            let theirs = attachment.is_some_and(|it| it.routed_by_runtime);
            if (theirs || self.handed_over().is_some()) && !there.contains_key(&key) {
                continue;
            }
            let route = Route {
                dev: self.endpoint.interface,
                via: range.gateway(),
                onlink: false,
                source: None,
                mtu: None,
            };
            desired.objects.routes.insert(key, route);
        }
    }

    /// The node's routes to what is behind an endpoint that forwards.
    fn add_routes_behind(&self, desired: &mut Desired) {
        for &destination in &self.endpoint.allowed_sources {
            let family = Family::of(destination.addr());
            let of_family = |(range, _): &&(&Range, IpAddr)| range.family() == family;
            let Some(&(_, via)) = self.addresses.iter().find(of_family) else {
                continue;
            };
            let key = RouteKey {
                scope: Scope::Node,
                destination,
                metric: default_metric(family),
            };
            if let Some(other) = self.node.route_of_others(&key) {
                desired.problems.push(Problem::RouteTaken {
                    endpoint: self.endpoint.name.clone(),
                    destination,
                    other,
                });
                continue;
            }
            let route = Route {
                dev: self.derived.bridge,
                via,
                onlink: false,
                source: None,
                mtu: None,
            };
            desired.objects.routes.insert(key, route);
        }
    }

    fn add_entries(&self, room: &mut Room, left_out: &mut LeftOut, desired: &mut Desired) {
        let network = self.derived.network;
        let vni = network.vni;
        // Only a network that the programs carry is in the maps.
        let Some(&row) = desired.objects.entries.networks.get(&vni) else {
            return;
        };
        let hooked = hooks::of_endpoint(
            self.node,
            self.derived,
            self.endpoint,
            self.host,
            &self.addresses.iter().map(|(_, address)| *address),
            desired,
        );
        let late = self.node.inputs.is_late(self.endpoint);
        let hooked = hooked || late;
        let objects = &mut desired.objects;
        let link = LinkRef::Name(self.host);
        let entry = EndpointEntry {
            network: row,
            link,
            // Given out once all endpoints are known.
            slot: 0,
            mac: self.mac,
            forwarding: self.endpoint.forwarding,
            hooked,
        };
        let addresses = || self.addresses.iter().map(|(_, address)| *address);
        for address in addresses() {
            match room.for_address(Family::of(address)) {
                Ok(()) => {
                    let endpoints = &mut objects.entries.endpoints;
                    endpoints.insert((vni, address), entry.clone());
                }
                Err(full) => *left_out.entry((network.name.clone(), full)).or_default() += 1,
            }
        }
        let sources = self.endpoint.allowed_sources.iter();
        objects
            .entries
            .sources
            .extend(sources.map(|&prefix| (link, prefix)));
        let forwarding = entry.forwarding;
        let port = values::endpoint_port(row, addresses(), self.mac, forwarding, hooked);
        objects.entries.ports.insert(link, port);
        for hook in [Hook::FromEndpoint, Hook::ToEndpoint] {
            if !late {
                let attachments = &mut objects.attachments;
                attachments.insert((self.host, hook), AttachmentState::Current);
            }
        }
    }
}

/// The default route of a namespace that we give it.
pub fn default_route(scope: Scope, family: Family) -> RouteKey {
    RouteKey {
        scope,
        destination: everything(family),
        metric: default_metric(family),
    }
}

/// The destination of a default route.
fn everything(family: Family) -> IpNet {
    match family {
        Family::V4 => IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0)),
        Family::V6 => IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0)),
    }
}
