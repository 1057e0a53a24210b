//! Two sets of objects, and the steps from one to the other.
//!
//! Additions come first, bottom up: a device before its addresses, map entries
//! before the programs that read them. Removals follow, top down. So a change
//! never leaves a moment in which a packet finds neither the old nor the new.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Plan, Returning, entries,
    peers::Peers,
    step::{Change, Step},
    wireguard,
};
use crate::{
    model::{IfName, Mac},
    objects::{
        Address, AttachmentState, Filter, Guard, Link, LinkId, LinkKind, Objects, Route, RouteKey,
        Scope,
    },
};

/// The steps that turn what is observed into what is desired.
pub fn plan(observed: &Objects, desired: &Objects) -> Plan {
    let mut steps = Vec::new();
    let renewed = renewed_links(observed, desired);
    let peers = Peers::new(observed, desired, &renewed);
    for name in desired.namespaces.difference(&observed.namespaces) {
        steps.push(Step::CreateNamespace { name: name.clone() });
    }
    // Before anything can be asked to send to a peer.
    for &cidr in desired.last_resorts.difference(&observed.last_resorts) {
        steps.push(Step::AddLastResort { cidr });
    }
    add_links(observed, desired, &renewed, &mut steps);
    // Settings of a device need the device.
    set_sysctls(observed, desired, &mut steps);
    raise_links(desired, &renewed, &mut steps);
    set_filter(observed, desired, &mut steps);
    set_guard(observed, desired, &mut steps);
    wireguard::add(observed, desired, &renewed, &mut steps);
    add_addresses_and_routes(observed, desired, &renewed, &peers, &mut steps);
    // Before any packet comes back.
    if let Some(flows) = Returning::between(observed, desired) {
        let flows = Box::new(flows);
        steps.push(Step::LetReturn { flows });
    }
    for &map in desired.pins.difference(&observed.pins) {
        steps.push(Step::PinMap { map });
    }
    entries::add(
        &observed.entries,
        &desired.entries,
        &renewed,
        &peers,
        &mut steps,
    );
    attach(observed, desired, &renewed, &mut steps);

    // What is attached to a device that goes, goes with it: to take it off before would only
    // take longer. What remains of it is a pin or a note.
    let goes = |link: IfName| {
        let id = LinkId::node(link);
        observed.links.contains_key(&id) && !desired.links.contains_key(&id)
    };
    detach(observed, desired, |link| !goes(link), &mut steps);
    entries::delete(&observed.entries, &desired.entries, &peers, &mut steps);
    delete_qdiscs(observed, desired, |link| !goes(link), &mut steps);
    delete_addresses_and_routes(observed, desired, &renewed, &peers, &mut steps);
    for id in observed.links.keys().filter(|id| id.scope == Scope::Node) {
        if !desired.links.contains_key(id) {
            steps.push(Step::DeleteLink { id: id.clone() });
        }
    }
    detach(observed, desired, goes, &mut steps);
    delete_qdiscs(observed, desired, goes, &mut steps);
    // By their maps alone are programs of another build known to be ours.
    for &abi in observed.layouts.difference(&desired.layouts) {
        steps.push(Step::DeleteLayout { abi });
    }
    if observed.guard.is_some() && desired.guard.is_none() {
        steps.push(Step::DeleteGuard);
    }
    if observed.filter.is_some() && desired.filter.is_none() {
        steps.push(Step::DeleteFilter);
    }
    // When nobody is left who could send into the network.
    for &cidr in observed.last_resorts.difference(&desired.last_resorts) {
        steps.push(Step::DeleteLastResort { cidr });
    }
    for name in observed.namespaces.difference(&desired.namespaces) {
        steps.push(Step::DeleteNamespace { name: name.clone() });
    }
    Plan(steps)
}

/// Whether a device has settings of its own, which are to be made before it is up: some act
/// only then.
fn waits(id: &LinkId, desired: &Objects) -> bool {
    let own = format!("/conf/{}/", id.name);
    id.scope == Scope::Node && desired.sysctls.keys().any(|key| key.contains(&own))
}

fn raise_links(desired: &Objects, renewed: &BTreeSet<LinkId>, steps: &mut Vec<Step>) {
    for id in renewed.iter().filter(|id| waits(id, desired)) {
        if desired.links.get(id).is_some_and(|link| link.up) {
            steps.push(Step::ChangeLink {
                id: id.clone(),
                change: Change::Up(true),
            });
        }
    }
}

fn set_sysctls(observed: &Objects, desired: &Objects, steps: &mut Vec<Step>) {
    // Those of single devices first: a setting of all can act on what they say.
    let (of_all, of_one): (Vec<_>, Vec<_>) =
        missing(&observed.sysctls, &desired.sysctls).partition(|(key, _)| key.contains("/all/"));
    for (key, to) in of_one.into_iter().chain(of_all) {
        steps.push(Step::SetSysctl {
            key: key.clone(),
            from: observed.sysctls.get(key).cloned(),
            to: to.clone(),
        });
    }
}

/// Before a device has an address: what should be kept apart never meets.
fn set_filter(observed: &Objects, desired: &Objects, steps: &mut Vec<Step>) {
    if let Some(Filter::Rules(rules)) = &desired.filter
        && observed.filter != desired.filter
    {
        steps.push(Step::SetFilter {
            rules: rules.clone(),
        });
    }
}

/// Before a tunnel can be reached.
fn set_guard(observed: &Objects, desired: &Objects, steps: &mut Vec<Step>) {
    if let Some(Guard::Rules(rules)) = &desired.guard
        && !observed
            .guard
            .as_ref()
            .is_some_and(|there| there.does(rules))
    {
        steps.push(Step::SetGuard {
            rules: Box::new(rules.as_ref().clone()),
        });
    }
}

/// Devices of the node that are made in this plan, because they are missing or of another
/// kind, and the container's sides of those that are veths.
fn renewed_links(observed: &Objects, desired: &Objects) -> BTreeSet<LinkId> {
    let mut renewed = BTreeSet::new();
    for (id, link) in desired
        .links
        .iter()
        .filter(|(id, _)| id.scope == Scope::Node)
    {
        let keeps = |id: &LinkId, link: &Link| {
            observed
                .links
                .get(id)
                .is_some_and(|there| there.kind == link.kind)
        };
        let inside = match &link.kind {
            LinkKind::Veth { peer } => desired.links.get_key_value(peer),
            _ => None,
        };
        if !keeps(id, link) || inside.is_some_and(|(id, link)| !keeps(id, link)) {
            renewed.insert(id.clone());
            renewed.extend(inside.map(|(id, _)| id.clone()));
        }
    }
    renewed
}

fn add_links(
    observed: &Objects,
    desired: &Objects,
    renewed: &BTreeSet<LinkId>,
    steps: &mut Vec<Step>,
) {
    // Bridges first: their ports name them.
    let bridges_first = |kind: &LinkKind| u8::from(*kind != LinkKind::Bridge);
    let mut links: Vec<(&LinkId, &Link)> = desired.links.iter().collect();
    links.sort_by_key(|(id, link)| (bridges_first(&link.kind), *id));
    for (id, link) in links {
        let there = observed.links.get(id);
        if renewed.contains(id) {
            if matches!(link.kind, LinkKind::VethPeer { .. }) {
                continue;
            }
            if there.is_some() {
                steps.push(Step::DeleteLink { id: id.clone() });
            }
            let inside = match &link.kind {
                LinkKind::Veth { peer } => desired.links.get(peer).cloned(),
                _ => None,
            };
            let link = Link {
                up: link.up && !waits(id, desired),
                ..link.clone()
            };
            steps.push(Step::CreateLink {
                id: id.clone(),
                link: Box::new(link.clone()),
                inside: inside.clone().map(Box::new),
            });
            // A veth's inside is born with its MAC and MTU, but not up.
            if let (LinkKind::Veth { peer }, Some(true)) =
                (&link.kind, inside.map(|inside| inside.up))
            {
                steps.push(Step::ChangeLink {
                    id: peer.clone(),
                    change: Change::Up(true),
                });
            }
        } else if let Some(there) = there {
            steps.extend(
                changes(there, link)
                    .into_iter()
                    .map(|change| Step::ChangeLink {
                        id: id.clone(),
                        change,
                    }),
            );
        }
    }
}

fn changes(there: &Link, link: &Link) -> Vec<Change> {
    let mut changes = Vec::new();
    if let Some(mac) = link.mac.filter(|_| link.mac != there.mac) {
        changes.push(Change::Mac(mac));
    }
    if link.mtu != there.mtu {
        changes.push(Change::Mtu(link.mtu));
    }
    if link.master != there.master {
        changes.push(Change::Master(link.master));
    }
    if let Some(alias) = link.alias.as_ref().filter(|_| link.alias != there.alias) {
        changes.push(Change::Alias(alias.clone()));
    }
    if link.up != there.up {
        changes.push(Change::Up(link.up));
    }
    // A port of another bridge is made one anew, with settings as new.
    if there.altered && link.master == there.master {
        changes.push(Change::Settings);
    }
    if there.oversized {
        changes.push(Change::Sizes);
    }
    changes
}

fn add_addresses_and_routes(
    observed: &Objects,
    desired: &Objects,
    renewed: &BTreeSet<LinkId>,
    peers: &Peers<'_>,
    steps: &mut Vec<Step>,
) {
    let on_renewed = |scope: &Scope, name| {
        renewed.contains(&LinkId {
            scope: scope.clone(),
            name,
        })
    };
    for address in &desired.addresses {
        if !observed.addresses.contains(address) || renewed.contains(&address.link) {
            steps.push(Step::AddAddress {
                address: address.clone(),
            });
        }
    }
    peers.add_to_kernel(steps);
    for (key, route) in &desired.routes {
        let kept = observed.routes.get(key) == Some(route) && !on_renewed(&key.scope, route.dev);
        if !kept {
            steps.push(Step::SetRoute {
                key: key.clone(),
                route: route.clone(),
            });
        }
    }
}

/// Entries that are absent or different.
pub(super) fn missing<'a, K: Ord, V: PartialEq>(
    observed: &'a BTreeMap<K, V>,
    desired: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (&'a K, &'a V)> {
    desired
        .iter()
        .filter(|(key, value)| observed.get(key) != Some(value))
}

fn attach(
    observed: &Objects,
    desired: &Objects,
    renewed: &BTreeSet<LinkId>,
    steps: &mut Vec<Step>,
) {
    for &(link, hook) in desired.attachments.keys() {
        let runs = observed.attachments.get(&(link, hook)) == Some(&AttachmentState::Current);
        if !runs || renewed.contains(&LinkId::node(link)) {
            steps.push(Step::Attach { link, hook });
        }
    }
}

fn detach(
    observed: &Objects,
    desired: &Objects,
    from: impl Fn(IfName) -> bool,
    steps: &mut Vec<Step>,
) {
    let attached = observed.attachments.keys();
    for &(link, hook) in attached.filter(|(link, _)| from(*link)) {
        if !desired.attachments.contains_key(&(link, hook)) {
            steps.push(Step::Detach { link, hook });
        }
    }
}

fn delete_qdiscs(
    observed: &Objects,
    desired: &Objects,
    of: impl Fn(IfName) -> bool,
    steps: &mut Vec<Step>,
) {
    let stale = observed.qdiscs.difference(&desired.qdiscs);
    steps.extend(
        stale
            .filter(|link| of(**link))
            .map(|&link| Step::DeleteQdisc { link }),
    );
}

/// Keys that should not be there.
pub(super) fn stale<'a, K: Ord, V>(
    observed: &'a BTreeMap<K, V>,
    desired: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = &'a K> {
    observed.keys().filter(|key| !desired.contains_key(key))
}

fn delete_addresses_and_routes(
    observed: &Objects,
    desired: &Objects,
    renewed: &BTreeSet<LinkId>,
    peers: &Peers<'_>,
    steps: &mut Vec<Step>,
) {
    // What is on a device that goes, goes with it.
    let stays = |id: &LinkId| desired.links.contains_key(id) && !renewed.contains(id);
    let on = |key: &RouteKey, route: &Route| LinkId {
        scope: key.scope.clone(),
        name: route.dev,
    };
    for (key, route) in &observed.routes {
        if !desired.routes.contains_key(key) && stays(&on(key, route)) {
            steps.push(Step::DeleteRoute {
                key: key.clone(),
                dev: route.dev,
            });
        }
    }
    peers.delete_from_kernel(steps);
    for entry in &observed.stray_fdb {
        let overwritten = |mac| desired.peers.fdb.contains_key(&(entry.link, mac));
        if stays(&LinkId::node(entry.link)) && !Mac::unicast(entry.mac).is_some_and(overwritten) {
            steps.push(Step::DeleteStrayFdb { entry: *entry });
        }
    }
    for &(link, address) in &observed.stray_neighbours {
        if stays(&LinkId::node(link)) {
            steps.push(Step::DeleteNeighbour { link, address });
        }
    }
    let deleted = |address: &&Address| !desired.addresses.contains(address) && stays(&address.link);
    for address in observed.addresses.iter().filter(deleted) {
        steps.push(Step::DeleteAddress {
            address: address.clone(),
        });
    }
}
