//! The underlay: its devices, this node's addresses there, and the programs on them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{Derived, Inputs, Node, Obstacle};
use crate::{
    model::{Family, Guard, IfName, Underlay},
    objects::{AttachmentState, Hook, LinkKind, Objects},
    surroundings::{NodeLink, Surroundings},
};

/// The node with its underlay; `None` when something stands in the way.
pub(super) fn node<'a>(inputs: Inputs<'a>, obstacles: &mut Vec<Obstacle>) -> Option<Node<'a>> {
    let around = &inputs.observed.around;
    let names = names(&inputs.model.node.underlay, around, obstacles);
    let links = links(&names, around, obstacles);
    if !obstacles.is_empty() {
        return None;
    }
    let vteps: Vec<IpAddr> = Family::ALL
        .into_iter()
        .filter_map(|family| own_vtep(inputs, &links, family))
        .collect();
    if vteps.is_empty() {
        obstacles.push(Obstacle::NoVtep { underlay: names });
        return None;
    }
    Some(Node {
        inputs,
        instance: inputs.store.instance(),
        around,
        vteps,
        underlay: names,
        underlay_mtu: links.iter().map(|link| link.mtu).min().unwrap_or(u32::MAX),
    })
}

fn names(underlay: &Underlay, around: &Surroundings, obstacles: &mut Vec<Obstacle>) -> Vec<IfName> {
    match underlay {
        Underlay::Interfaces(names) => names.clone(),
        Underlay::Address(address) => {
            let owner = owner_of(*address, &around.links);
            if owner.is_none() {
                obstacles.push(Obstacle::NoSuchAddress { address: *address });
            }
            owner.into_iter().collect()
        }
    }
}

/// The device that has an address.
pub(super) fn owner_of(address: IpAddr, links: &BTreeMap<IfName, NodeLink>) -> Option<IfName> {
    let has = |link: &NodeLink| link.addresses.iter().any(|net| net.addr() == address);
    links
        .iter()
        .find(|(_, link)| has(link))
        .map(|(name, _)| *name)
}

fn links<'a>(
    names: &[IfName],
    around: &'a Surroundings,
    obstacles: &mut Vec<Obstacle>,
) -> Vec<&'a NodeLink> {
    let mut links = Vec::new();
    for name in names {
        if let Some(link) = around.links.get(name) {
            links.push(link);
            continue;
        }
        let there = around.links.keys().copied();
        obstacles.push(Obstacle::NoSuchUnderlay {
            name: *name,
            there: there.filter(|name| name.as_str() != "lo").collect(),
        });
    }
    links
}

/// This node's outer address of a family: the configured one, else the one in use, else the
/// first. The kernel lists the newest IPv6 address first; tunnels must not follow it.
fn own_vtep(inputs: Inputs<'_>, links: &[&NodeLink], family: Family) -> Option<IpAddr> {
    if let Underlay::Address(address) = inputs.model.node.underlay
        && Family::of(address) == family
    {
        return Some(address);
    }
    let in_use: BTreeSet<IpAddr> = inputs
        .observed
        .objects
        .links
        .values()
        .filter_map(|link| match &link.kind {
            LinkKind::Vxlan(vxlan) => Some(vxlan.local),
            _ => None,
        })
        .collect();
    let mut there = links
        .iter()
        .flat_map(|link| &link.addresses)
        .map(ipnet::IpNet::addr)
        .filter(|address| Family::of(*address) == family)
        .peekable();
    let first = there.peek().copied();
    there.find(|address| in_use.contains(address)).or(first)
}

/// The programs that look at what arrives.
pub(super) fn attach(node: &Node<'_>, networks: &[Derived<'_>], objects: &mut Objects) {
    if !networks.iter().any(|network| network.fast) {
        return;
    }
    let guard = match node.inputs.model.node.guard {
        Guard::Off => None,
        Guard::Native => Some(Hook::GuardNative),
        Guard::Generic => Some(Hook::GuardGeneric),
    };
    for &name in &node.underlay {
        for hook in guard.into_iter().chain([Hook::FromUnderlay]) {
            objects
                .attachments
                .insert((name, hook), AttachmentState::Current);
        }
    }
}
