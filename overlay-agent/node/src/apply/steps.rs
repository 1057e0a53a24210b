//! How each step is carried out.

use ipnet::IpNet;
use overlay_core::{
    desired::last_resort_metric,
    model::{IfName, Model, Name},
    objects::{
        Address, FilterRules, Link, LinkId, LinkKind, ROUTE_PROTOCOL, Route, RouteKey, Scope,
        filter_table,
    },
    plan::{Change, Returning, Step},
};
use overlay_kernel::{
    self as kernel, KernelError, bpf, conntrack,
    netlink::{Netlink, RouteSpec, VethPeerSpec},
    netns, nft, sysctl,
};
use tracing::{debug, warn};

use super::{
    ApplyError, bulk, encryption,
    insides::{Insides, netns_of},
};
use crate::{node::Node, store::Store};

pub(super) type Result<T> = std::result::Result<T, ApplyError>;

pub(super) async fn run(
    step: &Step,
    node: &mut Node,
    insides: &mut Insides,
    model: Option<&Model>,
    store: &mut Store,
) -> Result<()> {
    match step {
        Step::CreateNamespace { name } => create_namespace(name, store),
        Step::DeleteNamespace { name } => {
            insides.close();
            delete_namespace(name, store)
        }
        Step::SetSysctl { key, from, to } => set_sysctl(key, from.as_deref(), to, store),
        Step::CreateLink { id, link, inside } => {
            store.begins_to_make(id.name)?;
            let made = create_link(node, model, id, link, inside.as_deref()).await;
            store.has_made()?;
            made
        }
        Step::DeleteLink { id } => {
            let Place { netlink, index } = place(node, insides, model, id).await?;
            let deleted = match id.scope {
                Scope::Node => netlink.delete_link_behind(index).await,
                Scope::Endpoint(_) => netlink.delete_link(index).await,
            };
            Ok(gone_is_fine(deleted)?)
        }
        Step::ChangeLink { id, change } => change_link(node, insides, model, id, change).await,
        Step::AddAddress { address } => add_address(node, insides, model, address).await,
        Step::DeleteAddress { address } => {
            let place = place(node, insides, model, &address.link).await?;
            Ok(gone_is_fine(
                place.netlink.delete_address(place.index, address.net).await,
            )?)
        }
        Step::SetRoute { key, route } => set_route(node, insides, model, key, route).await,
        Step::DeleteRoute { key, dev } => {
            let id = LinkId {
                scope: key.scope.clone(),
                name: *dev,
            };
            let place = place(node, insides, model, &id).await?;
            let deleted = place
                .netlink
                .delete_route(
                    key.destination,
                    key.metric,
                    Some(place.index),
                    ROUTE_PROTOCOL,
                )
                .await;
            Ok(gone_is_fine(deleted)?)
        }
        Step::AddLastResort { cidr } => add_last_resort(node, *cidr, store).await,
        Step::DeleteLastResort { cidr } => delete_last_resort(node, *cidr, store).await,
        Step::DeleteStrayFdb { entry } => {
            let index = index(node, entry.link).await?;
            let deleted = node.netlink.delete_fdb_entry(index, entry.mac, entry.dst);
            Ok(gone_is_fine(deleted.await)?)
        }
        Step::SetWireguard { .. }
        | Step::SetWireguardPeer { .. }
        | Step::SetWireguardKeepalive { .. }
        | Step::DeleteWireguardPeer { .. } => encryption::run(step, node).await,
        Step::LetReturn { flows } => let_return(flows),
        Step::PinMap { map } => {
            let dataplane = node.dataplane.as_mut().ok_or(ApplyError::NoMaps)?;
            Ok(dataplane.pin(map)?)
        }
        Step::SetFilter { rules } => set_filter(rules, store),
        Step::DeleteFilter => {
            let instance = store.content().instance();
            nft::delete(&filter_table(instance), instance)?;
            Ok(store.update(|content| content.packet_filter = false)?)
        }
        Step::SetGuard { rules } => {
            let instance = store.content().instance();
            Ok(node.guard.set(instance, rules)?)
        }
        Step::DeleteGuard => {
            let instance = store.content().instance();
            Ok(node.guard.delete(instance)?)
        }
        Step::Attach { link, hook } => {
            let index = index(node, *link).await?;
            let dataplane = node.dataplane.as_mut().ok_or(ApplyError::NoMaps)?;
            Ok(dataplane.attach(*link, index, *hook)?)
        }
        Step::Detach { link, hook } => {
            let index = index_if_there(node, *link).await?;
            Ok(bpf::detach(&node.pins, *link, index, *hook)?)
        }
        Step::DeleteQdisc { link } => {
            let index = index_if_there(node, *link).await?;
            Ok(bpf::remove_qdisc(&node.pins, *link, index)?)
        }
        Step::DeleteLayout { abi } => Ok(bpf::remove_layout(&node.pins, *abi)?),
        // Those of which there can be very many.
        step => bulk::run(std::slice::from_ref(step), node)
            .await
            .pop()
            .unwrap_or(Ok(())),
    }
}

fn let_return(flows: &Returning) -> Result<()> {
    let loosened = conntrack::loosen(|one, other| flows.has(one, other))?;
    debug!("connection tracking goes on with {loosened} connections that come back");
    Ok(())
}

fn set_filter(rules: &FilterRules, store: &mut Store) -> Result<()> {
    // Noted before, so that an agent that is stopped in between still looks for it.
    store.update(|content| content.packet_filter = true)?;
    let instance = store.content().instance();
    Ok(nft::set(&filter_table(instance), instance, rules)?)
}

async fn add_last_resort(node: &Node, cidr: IpNet, store: &Store) -> Result<()> {
    let metric = last_resort_metric(store.content().instance());
    let netlink = &node.netlink;
    let added = netlink.add_unreachable(cidr, metric, ROUTE_PROTOCOL);
    Ok(added.await?)
}

async fn delete_last_resort(node: &Node, cidr: IpNet, store: &Store) -> Result<()> {
    let metric = last_resort_metric(store.content().instance());
    let netlink = &node.netlink;
    let deleted = netlink.delete_unreachable(cidr, metric, ROUTE_PROTOCOL);
    Ok(gone_is_fine(deleted.await)?)
}

fn create_namespace(name: &Name, store: &mut Store) -> Result<()> {
    if let Some(Some(made)) = store.content().namespaces.get(name) {
        // We were stopped while making it.
        netns::clear_unfinished(name, made)?;
    }
    let unnamed = netns::create()?;
    // Noted before, so that an agent that is stopped in between still knows it as its own.
    let made = Some(unnamed.made.clone());
    store.update(|content| content.namespaces.insert(name.clone(), made))?;
    if let Err(error) = unnamed.name(name) {
        store.update(|content| content.namespaces.remove(name))?;
        return Err(error.into());
    }
    Ok(())
}

fn delete_namespace(name: &Name, store: &mut Store) -> Result<()> {
    if let Some(Some(made)) = store.content().namespaces.get(name)
        && !netns::delete(name, made)?
        && netns::id(&netns::path_of(name))?.is_some()
    {
        warn!("namespace {name} is not the one that this instance made any more: left alone");
    }
    store.update(|content| content.namespaces.remove(name))?;
    Ok(())
}

fn set_sysctl(key: &str, from: Option<&str>, to: &str, store: &mut Store) -> Result<()> {
    store.update(|content| {
        // The first value is the one before us; putting it back ends the matter.
        if content.sysctls.get(key).is_some_and(|before| before == to) {
            return;
        }
        if let Some(from) = from {
            content
                .sysctls
                .entry(key.to_owned())
                .or_insert_with(|| from.to_owned());
        }
    })?;
    Ok(sysctl::write(key, to)?)
}

/// The socket and index for a device.
struct Place {
    netlink: Netlink,
    index: u32,
}

async fn place(
    node: &Node,
    insides: &mut Insides,
    model: Option<&Model>,
    id: &LinkId,
) -> Result<Place> {
    let netlink = match &id.scope {
        Scope::Node => node.netlink.clone(),
        Scope::Endpoint(name) => insides.of(model, name)?,
    };
    let link = netlink.link_by_name(id.name.as_str()).await?;
    let index = link.ok_or_else(|| ApplyError::Gone(id.to_string()))?.index;
    Ok(Place { netlink, index })
}

/// Runtimes switch IPv6 off in containers that they know no IPv6 network of, as Docker does: it is switched on
/// for the interface that gets an address of it.
async fn add_address(
    node: &Node,
    insides: &mut Insides,
    model: Option<&Model>,
    address: &Address,
) -> Result<()> {
    let place = place(node, insides, model, &address.link).await?;
    let added = place.netlink.add_address(place.index, address.net).await;
    let (Err(error), Scope::Endpoint(endpoint)) = (&added, &address.link.scope) else {
        return Ok(added?);
    };
    if !error.not_permitted() || address.net.addr().is_ipv4() {
        return Ok(added?);
    }
    let key = format!("net/ipv6/conf/{}/disable_ipv6", address.link.name);
    netns::run_in(&netns_of(model, endpoint)?, || sysctl::write(&key, "0")).flatten()?;
    Ok(place.netlink.add_address(place.index, address.net).await?)
}

pub(super) async fn index(node: &Node, name: IfName) -> Result<u32> {
    let index = index_if_there(node, name).await?;
    index.ok_or_else(|| ApplyError::Gone(name.to_string()))
}

async fn index_if_there(node: &Node, name: IfName) -> Result<Option<u32>> {
    let link = node.netlink.link_by_name(name.as_str()).await?;
    Ok(link.map(|link| link.index))
}

async fn create_link(
    node: &mut Node,
    model: Option<&Model>,
    id: &LinkId,
    link: &Link,
    inside: Option<&Link>,
) -> Result<()> {
    let (LinkKind::Veth { peer }, Some(inside)) = (&link.kind, inside) else {
        let index = node.netlink.create(&id.name, link, None).await?;
        node.remember(index);
        return Ok(());
    };
    let Scope::Endpoint(endpoint) = &peer.scope else {
        return Err(ApplyError::Gone(format!("endpoint of {id}")));
    };
    let netns = netns_of(model, endpoint)?;
    let spec = VethPeerSpec {
        name: peer.name,
        mac: inside.mac,
        mtu: inside.mtu,
        netns: &netns,
    };
    let index = node.netlink.create(&id.name, link, Some(spec)).await?;
    node.remember(index);
    Ok(())
}

async fn change_link(
    node: &Node,
    insides: &mut Insides,
    model: Option<&Model>,
    id: &LinkId,
    change: &Change,
) -> Result<()> {
    let Place { netlink, index } = place(node, insides, model, id).await?;
    match change {
        Change::Mac(mac) => netlink.set_mac(index, *mac).await?,
        Change::Mtu(mtu) => netlink.set_mtu(index, *mtu).await?,
        Change::Up(up) => netlink.set_up(index, *up).await?,
        Change::Alias(alias) => netlink.set_alias(index, alias).await?,
        Change::Settings => netlink.reset(index).await?,
        Change::Sizes => netlink.limit_sizes(index).await?,
        Change::Master(None) => netlink.set_master(index, None).await?,
        Change::Master(Some(bridge)) => {
            let bridge = self::index(node, *bridge).await?;
            netlink.set_master(index, Some(bridge)).await?;
        }
    }
    Ok(())
}

async fn set_route(
    node: &Node,
    insides: &mut Insides,
    model: Option<&Model>,
    key: &RouteKey,
    route: &Route,
) -> Result<()> {
    let id = LinkId {
        scope: key.scope.clone(),
        name: route.dev,
    };
    let Place { netlink, index } = place(node, insides, model, &id).await?;
    Ok(netlink
        .replace_route(&route_spec(key, route, index))
        .await?)
}

/// A route of ours, through the device with this index.
pub(super) fn route_spec(key: &RouteKey, route: &Route, index: u32) -> RouteSpec {
    RouteSpec {
        destination: key.destination,
        oif: index,
        via: Some(route.via),
        onlink: route.onlink,
        source: route.source,
        mtu: route.mtu,
        metric: key.metric,
        protocol: ROUTE_PROTOCOL,
    }
}

/// Removing what somebody else has removed already is no failure.
pub(super) fn gone_is_fine(result: kernel::Result<()>) -> kernel::Result<()> {
    match result {
        Err(error) if KernelError::not_there(&error) => Ok(()),
        other => other,
    }
}
