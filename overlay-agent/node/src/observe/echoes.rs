//! The kernel's events about our own steps, which bring nothing new.

use std::collections::BTreeMap;

use overlay_core::{
    model::{IfName, Mac},
    state::Content,
};
use overlay_kernel::netlink::{Changes, Event, LinkInfo};

use super::{
    Known, Nodes, is_marked,
    tables::{Entry, Tables, entry, neighbour},
};
use crate::node::Node;

/// Whether all that has changed is what leads to the peers, and is now as it is known to be.
pub fn are_echoes(node: &Node, store: &Content, known: &Known, changes: &Changes) -> bool {
    let Some(tables) = &known.tables else {
        return false;
    };
    let touched = &changes.touched;
    if touched.addresses || !touched.links.is_empty() || !changes.namespaces.is_empty() {
        return false;
    }
    let all = &known.devices.links;
    let names: BTreeMap<u32, IfName> = all.iter().map(|link| (link.index, link.name)).collect();
    let ours: Vec<&LinkInfo> = all
        .iter()
        .filter(|link| is_marked(link, node, store))
        .collect();
    let nodes = Nodes::new(all, &ours, &names, store.instance());
    changes
        .events
        .iter()
        .all(|event| is_echo(event, tables, &nodes))
}

fn is_echo(event: &Event, tables: &Tables, nodes: &Nodes<'_>) -> bool {
    let peers = &tables.peers;
    let tunnel = |index: &u32| nodes.link(*index).filter(|link| nodes.is_tunnel(link));
    match event {
        Event::RouteSet { route, .. } => nodes
            .of_tunnel(route)
            .is_some_and(|(key, route)| peers.routes.get(&key) == Some(&route)),
        Event::RouteGone(route) => nodes
            .of_tunnel(route)
            .is_some_and(|(key, route)| peers.routes.get(&key) != Some(&route)),
        Event::NeighbourSet {
            index,
            neighbour: found,
        } => tunnel(index)
            .and_then(|tunnel| neighbour(tunnel, found))
            .is_some_and(|(key, mac)| peers.neighbours.get(&key) == Some(&mac)),
        Event::NeighbourGone { index, address } => tunnel(index)
            .is_some_and(|tunnel| !peers.neighbours.contains_key(&(tunnel.name, *address))),
        Event::FdbSet {
            index,
            entry: found,
        } => tunnel(index).is_some_and(|tunnel| {
            matches!(entry(tunnel, found, nodes), Some(Entry::Plain(key, outer))
                if peers.fdb.get(&key) == Some(&outer))
        }),
        Event::FdbGone { index, entry } => tunnel(index).is_some_and(|tunnel| {
            let mac = Mac::unicast(entry.mac).filter(|_| entry.own);
            mac.is_some_and(|mac| {
                let there = peers.fdb.get(&(tunnel.name, mac));
                there.map(|outer| outer.vtep) != entry.dst
            })
        }),
        Event::Lessened { .. } | Event::Ways | Event::Filters => false,
    }
}
