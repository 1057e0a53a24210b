//! What the kernel has: ours, and what it stands among. Nothing is changed here.
//!
//! Architecture Invariant: an object counts as ours only by a mark that we put
//! on it: the alias of a device, the protocol of a route, a pin in our folder, a
//! namespace's identity in the state file. What is on a device of ours is ours. A device
//! that had our alias when this agent last looked is ours without it: its index is its own.

mod endpoints;
mod links;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

use crate::{
    desired::{is_ours, needs_filter, observed_settings},
    kernel::{
        self, bpf,
        netlink::{AddressInfo, Lifetime, LinkInfo, RouteInfo, VxlanInfo},
        netns, nft, sysctl, udp,
    },
    model::{Family, IfName, Mac, Model, NetnsRef},
    node::Node,
    objects::{
        Address, LinkId, Objects, ROUTE_PROTOCOL, Route, RouteKey, Scope, StrayFdb, filter_table,
    },
    store::Content,
    surroundings::{NodeLink, Observed, Surroundings, Way},
};

/// `RT_TABLE_MAIN`.
const MAIN_TABLE: u32 = 254;

/// One look at the node, as far as it matters for `model`.
pub async fn observe(
    node: &Node,
    model: Option<&Model>,
    store: &Content,
) -> kernel::Result<Observed> {
    let all = node.netlink.links().await?;
    let names: BTreeMap<u32, IfName> = all.iter().map(|link| (link.index, link.name)).collect();
    let ours: Vec<&LinkInfo> = all
        .iter()
        .filter(|link| {
            let alias = link.alias.as_deref();
            alias.is_some_and(|alias| is_ours(store.instance(), alias)) || node.knows(link.index)
        })
        .collect();
    let mut objects = Objects::default();
    let addresses = node.netlink.addresses().await?;
    let mut around = Surroundings {
        links: node_links(&addresses, &all, &ours),
        ..Surroundings::default()
    };
    for link in &ours {
        let id = LinkId::node(link.name);
        objects
            .addresses
            .extend(on_link(&addresses, link.index, &id));
    }
    routes(node, model, &ours, &names, &mut objects, &mut around).await?;
    for link in &ours {
        if link.vxlan.is_some() || link.kind.as_deref() == Some("bridge") {
            neighbours(node, link, &mut objects).await?;
        }
        if link.vxlan.is_some() {
            fdb(node, link, &mut objects).await?;
        }
    }
    namespaces(model, store, &mut objects)?;
    let insides = endpoints::observe(node, model, store, &ours, &mut objects, &mut around).await?;
    links::observe(&ours, &names, &insides, &mut objects);
    settings(model, store, &mut objects, &mut around)?;
    if let Some(model) = model {
        around.ways = ways(node, model, &names).await?;
        around.busy_ports = busy_ports(model, &ours)?;
    }
    programs(node, &all, &names, &mut objects)?;
    filter(model, store, &mut objects, &mut around)?;
    Ok(Observed { objects, around })
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
    let mut link = |info: &LinkInfo| {
        let mut addresses = by_link.remove(&info.index).unwrap_or_default();
        addresses.sort_by_key(|address| address.secondary);
        NodeLink {
            index: info.index,
            mtu: info.mtu,
            kind: info.kind.clone().unwrap_or_default(),
            ours: ours.iter().any(|ours| ours.index == info.index),
            vxlan_port: info.vxlan.as_ref().map(|vxlan| vxlan.port),
            addresses: addresses.into_iter().map(|address| address.net).collect(),
        }
    };
    all.iter().map(|info| (info.name, link(info))).collect()
}

/// The addresses of a device of ours that somebody has set: the kernel's own, and what routers
/// announce, come and go by themselves.
fn on_link(addresses: &[AddressInfo], index: u32, id: &LinkId) -> impl Iterator<Item = Address> {
    let set = move |address: &&AddressInfo| {
        address.index == index && address.global && address.lifetime == Lifetime::Permanent
    };
    addresses.iter().filter(set).map(|address| Address {
        link: id.clone(),
        net: address.net,
    })
}

async fn routes(
    node: &Node,
    model: Option<&Model>,
    ours: &[&LinkInfo],
    names: &BTreeMap<u32, IfName>,
    objects: &mut Objects,
    around: &mut Surroundings,
) -> kernel::Result<()> {
    let behind = model
        .iter()
        .flat_map(|model| &model.endpoints)
        .flat_map(|endpoint| &endpoint.allowed_sources);
    let wanted: BTreeSet<IpNet> = model
        .iter()
        .flat_map(|model| &model.networks)
        .flat_map(|network| &network.peers)
        .flat_map(|peer| &peer.subnets)
        .chain(behind)
        .copied()
        .collect();
    for family in Family::ALL {
        for info in node.netlink.routes(family).await? {
            if info.table != MAIN_TABLE {
                continue;
            }
            let on_ours = ours.iter().any(|link| Some(link.index) == info.oif);
            if info.protocol == ROUTE_PROTOCOL && on_ours {
                objects.routes.extend(route(&info, Scope::Node, names));
            } else if info.metric == default_metric(family) && wanted.contains(&info.destination) {
                let device = info.oif.and_then(|index| names.get(&index)).copied();
                around.routes.insert(info.destination, device);
            }
        }
    }
    Ok(())
}

/// The metric of a route that is made without one (`IP6_RT_PRIO_USER`): ours would replace it.
const fn default_metric(family: Family) -> u32 {
    match family {
        Family::V4 => 0,
        Family::V6 => 1024,
    }
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
        },
        route,
    ))
}

async fn neighbours(node: &Node, link: &LinkInfo, objects: &mut Objects) -> kernel::Result<()> {
    for neighbour in node.netlink.neighbours(link.index).await? {
        if let Some(mac) = neighbour.mac.filter(|_| neighbour.permanent) {
            objects
                .neighbours
                .insert((link.name, neighbour.address), mac);
        }
    }
    Ok(())
}

async fn fdb(node: &Node, link: &LinkInfo, objects: &mut Objects) -> kernel::Result<()> {
    // As a port of the bridge it is in the bridge's table, too.
    let entries = node.netlink.fdb(link.index).await?;
    for entry in entries.into_iter().filter(|entry| entry.own) {
        let plain = entry.permanent && !entry.detour;
        match (Mac::unicast(entry.mac), entry.dst) {
            (Some(mac), Some(vtep)) if plain => {
                objects.fdb.insert((link.name, mac), vtep);
            }
            (_, dst) => {
                objects.stray_fdb.insert(StrayFdb {
                    link: link.name,
                    mac: entry.mac,
                    dst,
                });
            }
        }
    }
    Ok(())
}

/// The namespaces that endpoints name, and those that we made, if they are still the same.
fn namespaces(model: Option<&Model>, store: &Content, objects: &mut Objects) -> kernel::Result<()> {
    let named = model
        .iter()
        .flat_map(|model| &model.endpoints)
        .filter_map(|endpoint| match &endpoint.netns {
            NetnsRef::Name(name) => Some(name),
            NetnsRef::Path(_) | NetnsRef::Pid(_) => None,
        });
    for name in named {
        if netns::id(&netns::path_of(name))?.is_some() {
            objects.namespaces.insert(name.clone());
        }
    }
    for (name, made) in &store.namespaces {
        let there = netns::id(&netns::path_of(name))?;
        // Without an identity we were stopped while making it: the name was free before.
        if there.is_some() && (made.is_none() || *made == there) {
            objects.namespaces.insert(name.clone());
        }
    }
    Ok(())
}

/// The settings that may have to be changed, or be put back.
fn settings(
    model: Option<&Model>,
    store: &Content,
    objects: &mut Objects,
    around: &mut Surroundings,
) -> kernel::Result<()> {
    let mut keys: BTreeSet<String> = store.sysctls.keys().cloned().collect();
    if let Some(model) = model {
        keys.extend(observed_settings(model, &around.links));
    }
    for key in keys {
        if let Some(value) = sysctl::read(&key)? {
            objects.sysctls.insert(key, value);
        }
    }
    around.sysctls.clone_from(&objects.sysctls);
    Ok(())
}

/// The way to every VTEP that the underlay has a route to.
async fn ways(
    node: &Node,
    model: &Model,
    names: &BTreeMap<u32, IfName>,
) -> kernel::Result<BTreeMap<IpAddr, Way>> {
    let vteps: BTreeSet<IpAddr> = model
        .networks
        .iter()
        .flat_map(|network| &network.peers)
        .map(|peer| peer.vtep)
        .collect();
    let mut ways = BTreeMap::new();
    for vtep in vteps {
        let Some(hop) = node.netlink.route_to(vtep, None).await? else {
            continue;
        };
        if let Some(&link) = names.get(&hop.oif).filter(|_| !hop.local) {
            ways.insert(
                vtep,
                Way {
                    link,
                    next_hop: hop.gateway.unwrap_or(vtep),
                    path_mtu: hop.mtu,
                },
            );
        }
    }
    Ok(ways)
}

/// Ports of ours that no VXLAN device has and that cannot be bound all the same.
fn busy_ports(model: &Model, ours: &[&LinkInfo]) -> kernel::Result<BTreeSet<(Family, u16)>> {
    let mut busy = BTreeSet::new();
    for port in model.networks.iter().map(|network| network.port) {
        for family in Family::ALL {
            let is_ours = |vxlan: &VxlanInfo| {
                vxlan.port == port && vxlan.local.map(Family::of) == Some(family)
            };
            let by_us = ours
                .iter()
                .filter_map(|link| link.vxlan.as_ref())
                .any(is_ours);
            if !by_us && udp::is_busy(family, port)? {
                busy.insert((family, port));
            }
        }
    }
    Ok(busy)
}

fn programs(
    node: &Node,
    all: &[LinkInfo],
    names: &BTreeMap<u32, IfName>,
    objects: &mut Objects,
) -> kernel::Result<()> {
    let entries = node.with_maps(|maps| maps.entries(|index| names.get(&index).copied()))?;
    objects.entries = entries.unwrap_or_default();
    objects.pins = node.pinned_maps()?;
    let devices: Vec<(IfName, u32)> = all.iter().map(|link| (link.name, link.index)).collect();
    objects.attachments = node.attachments(&devices)?;
    objects.qdiscs = bpf::qdiscs(&node.pins)?;
    objects.layouts = bpf::other_layouts(&node.pins)?;
    Ok(())
}

/// Looked at only when rules are needed, or may have been made: it takes a program to ask.
fn filter(
    model: Option<&Model>,
    store: &Content,
    objects: &mut Objects,
    around: &mut Surroundings,
) -> kernel::Result<()> {
    let needed = model.is_some_and(needs_filter);
    if !needed && !store.packet_filter {
        return Ok(());
    }
    match nft::read(&filter_table(store.instance())) {
        Ok(filter) => objects.filter = filter,
        // Rules of ours that cannot be removed are an error, those that cannot be made a reason.
        Err(error) if !needed => return Err(error),
        Err(error) => around.no_filter = Some(error.to_string()),
    }
    Ok(())
}
