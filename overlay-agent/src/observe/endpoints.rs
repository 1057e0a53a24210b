//! A look into the namespaces of the endpoints.
//!
//! The sockets are closed at once: an open one would keep a namespace alive that
//! its owner has removed.

use std::{collections::BTreeMap, path::Path};

use super::{MAIN_TABLE, on_link, route};
use crate::{
    kernel::{
        self,
        netlink::{LinkInfo, Netlink},
        netns,
    },
    model::{Endpoint, Family, IfName, Model},
    node::Node,
    objects::{LinkId, Objects, ROUTE_PROTOCOL, Scope},
    store::Content,
    surroundings::{EndpointPlace, Surroundings},
};

/// The container's side of one of our veths.
pub(super) struct Inside {
    /// The node's side.
    pub(super) host: IfName,
    /// Which endpoint's it is, and its name.
    pub(super) id: LinkId,
    /// As netlink describes it.
    pub(super) info: LinkInfo,
}

pub(super) async fn observe(
    node: &Node,
    model: Option<&Model>,
    store: &Content,
    ours: &[&LinkInfo],
    objects: &mut Objects,
    around: &mut Surroundings,
) -> kernel::Result<Vec<Inside>> {
    let mut insides = Vec::new();
    for endpoint in model.iter().flat_map(|model| &model.endpoints) {
        let path = endpoint.netns.path();
        let place = match netns::id(&path)? {
            None => EndpointPlace::Absent,
            Some(id) if !store.means(endpoint, id) => EndpointPlace::Absent,
            Some(id) if id == node.netns => EndpointPlace::Node,
            Some(_) => match look_inside(&path, endpoint, ours, objects, &mut insides).await {
                Ok(place) => place,
                // It can vanish at any moment; a look that comes too late finds nothing.
                Err(error) if error.not_there() => EndpointPlace::Absent,
                Err(error) => return Err(error),
            },
        };
        around.endpoints.insert(endpoint.name.clone(), place);
    }
    Ok(insides)
}

async fn look_inside(
    path: &Path,
    endpoint: &Endpoint,
    ours: &[&LinkInfo],
    objects: &mut Objects,
    insides: &mut Vec<Inside>,
) -> kernel::Result<EndpointPlace> {
    let netlink = Netlink::open_in(path)?;
    let links = netlink.links().await?;
    let names: BTreeMap<u32, IfName> = links.iter().map(|link| (link.index, link.name)).collect();
    let interface = links.iter().find(|link| link.name == endpoint.interface);
    let host = interface.and_then(|inside| {
        ours.iter().find(|host| {
            host.peer_index == Some(inside.index) && inside.peer_index == Some(host.index)
        })
    });
    let scope = Scope::Endpoint(endpoint.name.clone());
    let index = match (interface, host) {
        (Some(info), Some(host)) => {
            let id = LinkId {
                scope: scope.clone(),
                name: info.name,
            };
            let addresses = netlink.addresses().await?;
            objects
                .addresses
                .extend(on_link(&addresses, info.index, &id));
            insides.push(Inside {
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
                objects.routes.extend(route(info, scope.clone(), &names));
            } else if info.destination.prefix_len() == 0 && info.oif != index {
                let device = info.oif.and_then(|index| names.get(&index));
                let device = device.map_or_else(|| "no device".to_owned(), ToString::to_string);
                default_routes.insert(family, device);
            }
        }
    }
    Ok(EndpointPlace::There {
        interface_taken: interface.is_some() && index.is_none(),
        default_routes,
    })
}
