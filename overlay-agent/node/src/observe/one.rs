//! A look at one endpoint, whatever else is on the node.

use std::{collections::BTreeMap, net::IpAddr};

use overlay_core::{
    desired::{owner, veth_name},
    model::{Endpoint, IfName, NetnsRef, Vni},
    objects::Objects,
    state::Content,
    surroundings::{EndpointPlace, NodeLink, Surroundings},
};
use overlay_kernel::{self as kernel, netlink::LinkInfo};

use super::{endpoints, is_marked, links, namespaces};
use crate::node::Node;

/// The observed state of one endpoint.
#[derive(Debug)]
pub struct Found {
    /// Its objects, without what is attached to its device.
    pub objects: Objects,
    /// Its namespace.
    pub place: EndpointPlace,
    /// The device that has its device's name.
    pub device: Option<(IfName, NodeLink)>,
}

impl Found {
    /// The device, by name and index, where it is ours.
    pub fn ours(&self) -> Option<(IfName, u32)> {
        let (name, link) = self.device.as_ref().filter(|(_, link)| link.ours)?;
        Some((*name, link.index))
    }
}

/// Looks at an endpoint of a network, at its device, its namespace and its entries in the maps.
pub async fn observe_endpoint(
    node: &Node,
    endpoint: &Endpoint,
    vni: Vni,
    store: &Content,
    around: &Surroundings,
) -> kernel::Result<Found> {
    let found = match veth_name(&endpoint.name) {
        Some(name) => node.netlink.link_by_name(name.as_str()).await?,
        None => None,
    };
    let ours: Vec<&LinkInfo> = found
        .iter()
        .filter(|link| is_marked(link, node, store))
        .collect();
    let by_index = ours.iter().map(|link| (link.index, *link)).collect();
    let look = endpoints::look(node, store, endpoint, &by_index).await?;
    let mut objects = Objects::default();
    if let NetnsRef::Name(name) = &endpoint.netns {
        let made = store.namespaces.get_key_value(name);
        namespaces(made, &mut objects)?;
    }
    let (place, inside) = look.into_objects(&mut objects);
    let insides = inside.map(|inside| (inside.host, inside));
    let masters = found.iter().filter_map(|link| link.master);
    let names: BTreeMap<u32, IfName> = masters
        .filter_map(|master| Some((master, around.device(master)?)))
        .collect();
    links::observe(&ours, &names, &insides.into_iter().collect(), &mut objects);
    if let Some(link) = &found {
        let given = store.allocations.get(&endpoint.name);
        let addresses = given.into_iter().flat_map(|given| &given.addresses);
        let keys: Vec<(Vni, IpAddr)> = addresses.map(|address| (vni, *address)).collect();
        let read = node.with_maps(|maps| maps.endpoint_entries(keys, (link.name, link.index)))?;
        objects.entries = read.unwrap_or_default();
    }
    let ours = !ours.is_empty();
    let device = found.map(|link| {
        let described = NodeLink {
            index: link.index,
            mtu: link.mtu,
            kind: link.kind.unwrap_or_default(),
            owner: link.alias.as_deref().and_then(owner),
            ours,
            ..NodeLink::default()
        };
        (link.name, described)
    });
    Ok(Found {
        objects,
        place,
        device,
    })
}
