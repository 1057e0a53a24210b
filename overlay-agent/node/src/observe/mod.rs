//! Observes the kernel: our objects, and their surroundings. Nothing is changed here.
//!
//! Architecture Invariant: an object counts as ours only by a mark that we put
//! on it: the alias of a device, the protocol of a route, a pin in our folder, a
//! namespace's identity in the state file. What is on a device of ours is ours. A device
//! that this agent has made, or that had our alias when it last looked, is ours without it:
//! its index is its own.

mod devices;
mod echoes;
mod endpoints;
mod exits;
mod hooks;
mod known;
mod links;
mod loaded;
mod meant;
mod nodes;
mod one;
mod refusals;
mod rules;
mod tables;
mod ways;
mod wireguard;

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    net::IpAddr,
};

use overlay_core::{
    desired::{is_ours, owner},
    identity::Made,
    model::{IfName, Model, Name},
    objects::{Address, LinkId, Objects, Route, RouteKey, Scope},
    state::Content,
    surroundings::{MAIN_TABLE, NodeLink, Observed, Surroundings, Vrf},
};
use overlay_kernel::{
    self as kernel,
    netlink::{AddressInfo, Bulk, Changes, Event, Lifetime, LinkInfo, Place, RouteInfo},
    netns,
};

use crate::node::Node;

use self::{
    loaded::{busy_ports, filter, guard, programs, settings},
    nodes::Nodes,
    tables::Tables,
};

pub use echoes::are_echoes;
pub use known::Known;
pub use one::{Found, observe_endpoint};

/// One look at the node, as far as it matters for `model`; `changes` are all that there were
/// since the look before, if that can be told.
pub async fn observe(
    node: &Node,
    model: Option<&Model>,
    store: &Content,
    known: &mut Known,
    changes: Option<Changes>,
) -> kernel::Result<Observed> {
    // After an error they are listed again.
    let mut devices = mem::take(&mut known.devices);
    if devices.update(&node.netlink, changes.as_ref()).await? {
        known.pins = None;
    }
    let (all, addresses) = (&devices.links, &devices.addresses);
    let names: BTreeMap<u32, IfName> = all.iter().map(|link| (link.index, link.name)).collect();
    let ours: Vec<&LinkInfo> = all
        .iter()
        .filter(|link| is_marked(link, node, store))
        .collect();
    let mut objects = Objects::default();
    let mut around = Surroundings {
        links: node_links(addresses, all, &ours),
        ..Surroundings::default()
    };
    let by_index: BTreeMap<u32, &LinkInfo> = ours.iter().map(|link| (link.index, *link)).collect();
    for address in addresses.iter().filter(|address| is_set(address)) {
        if let Some(link) = by_index.get(&address.index) {
            let (link, net) = (LinkId::node(link.name), address.net);
            objects.addresses.insert(Address { link, net });
        }
    }
    let nodes = Nodes::new(all, &ours, &names, store.instance());
    let mut bulk = Bulk::open()?;
    let (events, inside) = match changes {
        Some(Changes {
            events, namespaces, ..
        }) => (Some(events), Some(namespaces)),
        None => (None, None),
    };
    known.follow_filters(events.as_deref());
    follow(&mut bulk, known, events, &nodes)?;
    namespaces(&store.namespaces, &mut objects)?;
    known.insides.follow(model, inside.as_ref());
    let insides = endpoints::observe(
        node,
        model,
        store,
        &by_index,
        &mut known.insides,
        &mut objects,
        &mut around,
    )
    .await?;
    links::observe(&ours, &names, &insides, &mut objects);
    let heard = &mut known.heard;
    wireguard::observe(node, model, &ours, heard, &mut objects, &mut around)?;
    if let Some(model) = model {
        let known = &mut known.hooks;
        hooks::observe(node, model, &ours, known, &mut around).await?;
    }
    settings(model, store, &mut objects, &mut around)?;
    if let Some(model) = model {
        if let Some(tables) = &mut known.tables {
            let locals: Vec<IpAddr> = ours
                .iter()
                .filter_map(|link| link.vxlan.as_ref()?.local)
                .collect();
            let sources = ways::sources(model, store, &locals, &around);
            known
                .ways
                .update(&mut bulk, model, sources, tables, &nodes)?;
        }
        around.ways = known.ways.found.clone();
        around.asked = known.ways.asked.clone();
        around.busy_ports = busy_ports(model, &ours)?;
        rules::observe(model, store, &ours, known, &mut around);
    }
    programs(node, all, &names, known, &mut objects)?;
    if let Some(tables) = &known.tables {
        from_tables(tables, model, &nodes, &names, &mut objects, &mut around);
    }
    filter(model, store, &mut objects, &mut around)?;
    guard(node, model, store, &mut objects, &mut around)?;
    known.devices = devices;
    Ok(Observed { objects, around })
}

/// The known routes, neighbours and forwarding entries.
fn from_tables(
    tables: &Tables,
    model: Option<&Model>,
    nodes: &Nodes<'_>,
    names: &BTreeMap<u32, IfName>,
    objects: &mut Objects,
    around: &mut Surroundings,
) {
    objects.peers = tables.peers.clone();
    objects.routes.extend(tables.routes.clone());
    objects.last_resorts.clone_from(&tables.last_resorts);
    objects
        .stray_neighbours
        .clone_from(&tables.stray_neighbours);
    objects.stray_fdb.clone_from(&tables.stray_fdb);
    around.refused = tables.refused().collect();
    if let Some(model) = model {
        around.routing.tables = tables.asked(&around.routing.rules, model);
    }
    for other in tables.plain_routes() {
        let device = other.device.and_then(|index| names.get(&index)).copied();
        around.routes.insert(other.destination, device);
    }
    let exits = tables.exits().into_iter();
    around.exits = exits
        .filter_map(|((device, family), nets)| Some(((*names.get(&device)?, family), nets)))
        .collect();
    for other in tables.routes_in_place(nodes) {
        let device = other.device.and_then(|index| names.get(&index)).copied();
        let key = (other.destination, other.metric);
        around.in_place.insert(key, device);
    }
}

/// Whether a device is ours.
fn is_marked(link: &LinkInfo, node: &Node, store: &Content) -> bool {
    let alias = link.alias.as_deref();
    alias.is_some_and(|alias| is_ours(store.instance(), alias))
        || node.knows(link.index)
        || store.was_making(link.name, alias)
}

fn node_links(
    addresses: &[AddressInfo],
    all: &[LinkInfo],
    ours: &[&LinkInfo],
) -> BTreeMap<IfName, NodeLink> {
    let mut by_link: BTreeMap<u32, Vec<&AddressInfo>> = BTreeMap::new();
    for address in addresses
        .iter()
        .filter(|address| address.global && address.usable)
    {
        by_link.entry(address.index).or_default().push(address);
    }
    let ours: BTreeSet<u32> = ours.iter().map(|link| link.index).collect();
    let vrfs = all.iter().filter_map(|link| {
        let (name, table) = (link.name, link.vrf_table?);
        Some((link.index, Vrf { name, table }))
    });
    let vrfs: BTreeMap<u32, Vrf> = vrfs.collect();
    let mut link = |info: &LinkInfo| {
        let mut addresses = by_link.remove(&info.index).unwrap_or_default();
        addresses.sort_by_key(|address| address.place);
        NodeLink {
            index: info.index,
            alternatives: info.alternatives.clone(),
            mac: info.mac,
            layer: info.layer,
            mtu: info.mtu,
            kind: info.kind.clone().unwrap_or_default(),
            ours: ours.contains(&info.index),
            owner: info.alias.as_deref().and_then(owner),
            vxlan_port: info.vxlan.as_ref().map(|vxlan| vxlan.port),
            vrf: info.master.and_then(|index| vrfs.get(&index).copied()),
            passing: addresses
                .iter()
                .filter(|address| address.place == Place::Passing)
                .map(|address| address.net.addr())
                .collect(),
            addresses: addresses.into_iter().map(|address| address.net).collect(),
        }
    };
    all.iter().map(|info| (info.name, link(info))).collect()
}

/// Whether somebody has set an address: the kernel's own, and what routers announce, come and
/// go by themselves.
fn is_set(address: &AddressInfo) -> bool {
    address.global && address.lifetime == Lifetime::Permanent
}

/// Brings what is known of the tables up to date.
fn follow(
    bulk: &mut Bulk,
    known: &mut Known,
    events: Option<Vec<Event>>,
    nodes: &Nodes<'_>,
) -> kernel::Result<()> {
    let before = known.tables.take();
    let mut followed = None;
    let mut old = None;
    if let Some(mut tables) = before {
        if events.is_some_and(|events| tables.follow(events, nodes)) {
            followed = Some(tables);
        } else {
            old = Some(tables.peers);
        }
    }
    if followed.is_none() {
        let mut tables = Tables::read(bulk, nodes)?;
        if old.is_none() {
            known.peer_strays = None;
        }
        if let Some(mut old) = old {
            let read = &mut tables.peers;
            let same = old.routes == read.routes
                && old.neighbours == read.neighbours
                && old.fdb == read.fdb;
            if same {
                mem::swap(read, &mut old);
            } else {
                read.entries = old.entries.clone();
            }
        }
        followed = Some(tables);
    }
    known.tables = followed;
    Ok(())
}

/// A route of ours; `None` for one without a next hop, which we never make.
fn route(
    info: &RouteInfo,
    scope: Scope,
    names: &BTreeMap<u32, IfName>,
) -> Option<(RouteKey, Route)> {
    let route = Route {
        dev: *names.get(&info.oif?)?,
        via: info.gateway?,
        onlink: info.onlink,
        source: info.source,
        mtu: info.mtu,
    };
    Some((
        RouteKey {
            scope,
            destination: info.destination,
            metric: info.metric,
        },
        route,
    ))
}

/// The namespaces that we made, if they are still the same. What nobody noted as ours is somebody
/// else's, whatever its name.
fn namespaces<'a>(
    noted: impl IntoIterator<Item = (&'a Name, &'a Option<Made>)>,
    objects: &mut Objects,
) -> kernel::Result<()> {
    for (name, made) in noted {
        if let Some(made) = made
            && let Some(there) = netns::id(&netns::path_of(name))?
            && made.is(there).map_err(|error| netns::untold(&error))?
        {
            objects.namespaces.insert(name.clone());
        }
    }
    Ok(())
}
