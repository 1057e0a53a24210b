//! A look into the namespaces of the endpoints.
//!
//! The sockets are closed at once: an open one would keep a namespace alive that
//! its owner has removed.

use std::collections::{BTreeMap, BTreeSet};

use overlay_core::{
    desired::owner,
    model::{Endpoint, Family, IfName, Model, Name},
    objects::{Address, LinkId, Objects, ROUTE_PROTOCOL, Route, RouteKey, Scope},
    state::Content,
    surroundings::{EndpointPlace, Surroundings},
};
use overlay_kernel::{
    self as kernel,
    netlink::{AddressInfo, LinkInfo, Netlink},
};
use tracing::debug;

use super::{MAIN_TABLE, is_set, route};
use crate::node::Node;

/// The container's side of one of our veths.
#[derive(Clone)]
pub(super) struct Inside {
    /// The node's side.
    pub(super) host: IfName,
    /// Which endpoint's it is, and its name.
    pub(super) id: LinkId,
    /// As netlink describes it.
    pub(super) info: LinkInfo,
}

/// The state of an endpoint's namespace.
#[derive(Clone)]
pub(super) struct Look {
    place: EndpointPlace,
    inside: Option<Inside>,
    addresses: Vec<Address>,
    routes: Vec<(RouteKey, Route)>,
}

/// The state of the namespaces of attached endpoints.
#[derive(Default)]
pub(super) struct Insides {
    seen: BTreeMap<Name, Seen>,
}

struct Seen {
    endpoint: Endpoint,
    /// The node's side of its veth as it was then.
    host: LinkInfo,
    look: Look,
}

impl Insides {
    pub(super) fn forget(&mut self, endpoint: &Name) {
        self.seen.remove(endpoint);
    }

    pub(super) fn forget_all(&mut self) {
        self.seen.clear();
    }

    /// Forgets those that are gone, and those in whose namespaces something has changed:
    /// these are known by numbers, or else all may have.
    pub(super) fn follow(&mut self, model: Option<&Model>, changed: Option<&BTreeSet<i32>>) {
        let Some(changed) = changed else {
            self.forget_all();
            return;
        };
        let endpoints = model.iter().flat_map(|model| &model.endpoints);
        let names: BTreeSet<&Name> = endpoints.map(|endpoint| &endpoint.name).collect();
        self.seen.retain(|name, seen| {
            let quiet = |number: i32| !changed.contains(&number);
            names.contains(name) && seen.host.link_netnsid.is_some_and(quiet)
        });
    }

    /// What was found in an endpoint that has not changed since, as far as it can be seen from
    /// outside.
    fn unchanged(&self, endpoint: &Endpoint, ours: &BTreeMap<u32, &LinkInfo>) -> Option<&Look> {
        let seen = self.seen.get(&endpoint.name)?;
        let same = seen.endpoint == *endpoint && ours.get(&seen.host.index) == Some(&&seen.host);
        same.then_some(&seen.look)
    }

    fn note(&mut self, endpoint: &Endpoint, look: &Look, ours: &BTreeMap<u32, &LinkInfo>) {
        let host = look.inside.as_ref().map(|inside| inside.host);
        let host = ours.values().find(|link| Some(link.name) == host);
        if let Some(host) = host {
            let seen = Seen {
                endpoint: endpoint.clone(),
                host: (*host).clone(),
                look: look.clone(),
            };
            self.seen.insert(endpoint.name.clone(), seen);
        }
    }
}

pub(super) async fn observe(
    node: &Node,
    model: Option<&Model>,
    store: &Content,
    ours: &BTreeMap<u32, &LinkInfo>,
    known: &mut Insides,
    objects: &mut Objects,
    around: &mut Surroundings,
) -> kernel::Result<BTreeMap<IfName, Inside>> {
    let mut insides = BTreeMap::new();
    for endpoint in model.iter().flat_map(|model| &model.endpoints) {
        let look = if let Some(look) = known.unchanged(endpoint, ours) {
            look.clone()
        } else {
            let look = look(node, store, endpoint, ours).await?;
            known.note(endpoint, &look, ours);
            look
        };
        let (place, inside) = look.into_objects(objects);
        insides.extend(inside.map(|inside| (inside.host, inside)));
        around.endpoints.insert(endpoint.name.clone(), place);
    }
    Ok(insides)
}

impl Look {
    pub(super) fn into_objects(self, objects: &mut Objects) -> (EndpointPlace, Option<Inside>) {
        objects.addresses.extend(self.addresses);
        objects.routes.extend(self.routes);
        (self.place, self.inside)
    }
}

/// Looks into the namespace of one endpoint, whose side on the node can be among `ours`.
pub(super) async fn look(
    node: &Node,
    store: &Content,
    endpoint: &Endpoint,
    ours: &BTreeMap<u32, &LinkInfo>,
) -> kernel::Result<Look> {
    let path = endpoint.netns.path();
    let nothing = |place| Look {
        place,
        inside: None,
        addresses: Vec::new(),
        routes: Vec::new(),
    };
    debug!("looking into {}", path.display());
    match Netlink::visit(&path)? {
        None => Ok(nothing(EndpointPlace::Absent)),
        Some((id, _)) if !store.means(endpoint, id) => Ok(nothing(EndpointPlace::Absent)),
        Some((id, _)) if id == node.netns => Ok(nothing(EndpointPlace::Node)),
        Some((_, netlink)) => match look_inside(&netlink, endpoint, store, ours).await {
            Ok(look) => Ok(look),
            // It can vanish at any moment; a look that comes too late finds nothing.
            Err(error) if error.not_there() => Ok(nothing(EndpointPlace::Absent)),
            Err(error) => Err(error),
        },
    }
}

/// Whether an address inside is ours to keep or remove. An operator, or a plugin that a runtime
/// calls after us, may give the container others.
fn is_ours(address: &AddressInfo, endpoint: &Endpoint, store: &Content) -> bool {
    let given = store.allocations.get(&endpoint.name);
    let mut given = given.into_iter().flat_map(|given| &given.addresses);
    address.protocol == ROUTE_PROTOCOL || given.any(|given| *given == address.net.addr())
}

async fn look_inside(
    netlink: &Netlink,
    endpoint: &Endpoint,
    store: &Content,
    ours: &BTreeMap<u32, &LinkInfo>,
) -> kernel::Result<Look> {
    let links = netlink.links().await?;
    let names: BTreeMap<u32, IfName> = links.iter().map(|link| (link.index, link.name)).collect();
    let interface = links.iter().find(|link| link.name == endpoint.interface);
    let host = interface.and_then(|inside| {
        let host = ours.get(&inside.peer_index?)?;
        (host.peer_index == Some(inside.index)).then_some(*host)
    });
    let mut found = Look {
        place: EndpointPlace::Absent,
        inside: None,
        addresses: Vec::new(),
        routes: Vec::new(),
    };
    let scope = Scope::Endpoint(endpoint.name.clone());
    let index = match (interface, host) {
        (Some(info), Some(host)) => {
            let id = LinkId {
                scope: scope.clone(),
                name: info.name,
            };
            let addresses = netlink.addresses().await?;
            let of_link = addresses
                .iter()
                .filter(|address| address.index == info.index && is_set(address))
                .filter(|address| is_ours(address, endpoint, store));
            found.addresses.extend(of_link.map(|address| Address {
                link: id.clone(),
                net: address.net,
            }));
            found.inside = Some(Inside {
                host: host.name,
                id,
                info: info.clone(),
            });
            Some(info.index)
        }
        _ => None,
    };
    let mut default_routes = BTreeMap::new();
    for family in Family::ALL {
        let routes = netlink.routes(family).await?;
        for info in routes.iter().filter(|info| info.table == MAIN_TABLE) {
            if info.protocol == ROUTE_PROTOCOL && info.oif.is_some() && info.oif == index {
                found.routes.extend(route(info, scope.clone(), &names));
            } else if info.destination.prefix_len() == 0 && info.oif != index {
                let device = info.oif.and_then(|index| names.get(&index));
                let device = device.map_or_else(|| "no device".to_owned(), ToString::to_string);
                default_routes.insert(family, device);
            }
        }
    }
    // What is attached stays: an agent may have been started in a container of another one.
    let other = links.iter().filter(|_| index.is_none());
    let other = other.filter_map(|link| owner(link.alias.as_deref()?));
    found.place = match other.min() {
        Some(other) => EndpointPlace::OtherNode(other),
        None => EndpointPlace::There {
            interface_taken: interface.is_some() && index.is_none(),
            default_routes,
        },
    };
    Ok(found)
}
