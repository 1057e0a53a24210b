//! The underlay: its devices, this node's addresses there, and the programs on them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

use super::{Derived, Inputs, Node, Obstacle, Problem, settings::BY_VRFS};
use crate::{
    config::can_be_vtep,
    model::{DeviceName, Family, Guard, IfName, Underlay},
    objects::{AttachmentState, Hook, LinkKind, Objects},
    surroundings::{LinkLayer, NodeLink, Surroundings, Way},
};

/// The node with its underlay; `None` when something stands in the way.
pub(super) fn node<'a>(inputs: Inputs<'a>, obstacles: &mut Vec<Obstacle>) -> Option<Node<'a>> {
    let around = &inputs.observed.around;
    let names = names(&inputs.model.node.underlay, around, obstacles);
    let inside = names.iter().filter(|name| {
        let link = around.links.get(name);
        link.is_some_and(|link| link.ours)
    });
    obstacles.extend(inside.map(|name| Obstacle::UnderlayInside {
        name: *name,
        there: proposed(around),
    }));
    let links = links(&names, around, obstacles);
    if !obstacles.is_empty() {
        return None;
    }
    let vteps: Vec<IpAddr> = Family::ALL
        .into_iter()
        .filter_map(|family| {
            let vtep = own_vtep(inputs, &names, &links, family);
            vtep.unwrap_or_else(|obstacle| {
                obstacles.push(obstacle);
                None
            })
        })
        .collect();
    if !obstacles.is_empty() {
        return None;
    }
    if vteps.is_empty() {
        obstacles.push(Obstacle::NoVtep { underlay: names });
        return None;
    }
    Some(Node {
        inputs,
        instance: inputs.store.instance(),
        around,
        vteps,
        underlay_mtu: mtu(&links, around),
        underlay: names,
    })
}

/// The smallest of the devices by which tunnel packets arrive or leave, in bytes.
fn mtu(links: &[&NodeLink], around: &Surroundings) -> u32 {
    let leaving: BTreeSet<IfName> = around.ways.values().flat_map(Way::links).collect();
    let leaving = leaving.iter().filter_map(|name| around.links.get(name));
    let devices = links.iter().copied().chain(leaving);
    devices.map(|link| link.mtu).min().unwrap_or(u32::MAX)
}

fn names(underlay: &Underlay, around: &Surroundings, obstacles: &mut Vec<Obstacle>) -> Vec<IfName> {
    match underlay {
        Underlay::Address(address) => {
            if owner_of(*address, &around.links).is_none() {
                obstacles.push(no_such_address(*address, around));
            }
        }
        Underlay::Interfaces(names) => {
            let missing = names
                .iter()
                .filter(|name| named(name, &around.links).is_none());
            obstacles.extend(missing.map(|name| Obstacle::NoSuchUnderlay {
                name: name.clone(),
                there: proposed(around),
            }));
        }
    }
    devices(underlay, &around.links)
}

/// The devices of the underlay that are there, as they are configured or by the address that is.
pub fn devices(underlay: &Underlay, links: &BTreeMap<IfName, NodeLink>) -> Vec<IfName> {
    match underlay {
        Underlay::Interfaces(names) => names.iter().filter_map(|name| named(name, links)).collect(),
        Underlay::Address(address) => owner_of(*address, links).into_iter().collect(),
    }
}

/// All devices but those that an overlay has made, this one or another: what they have is inside.
fn outside(around: &Surroundings) -> impl Iterator<Item = (&IfName, &NodeLink)> {
    let links = around.links.iter();
    links.filter(|(_, link)| link.owner.is_none())
}

/// The devices where tunnel packets can arrive.
fn proposed(around: &Surroundings) -> Vec<IfName> {
    let arrives = |(_, link): &(_, &NodeLink)| link.layer != LinkLayer::Loopback;
    let there = outside(around).filter(arrives);
    there.map(|(name, _)| *name).collect()
}

fn no_such_address(address: IpAddr, around: &Surroundings) -> Obstacle {
    let there = outside(around).flat_map(|(_, link)| {
        let stays = |address: &IpAddr| !link.passing.contains(address);
        link.addresses.iter().map(IpNet::addr).filter(stays)
    });
    let family = Family::of(address);
    let can_be = |it: &IpAddr| Family::of(*it) == family && can_be_vtep(*it);
    Obstacle::NoSuchAddress {
        address,
        there: there.filter(can_be).collect(),
    }
}

/// The device that has a name, or has it besides.
fn named(name: &DeviceName, links: &BTreeMap<IfName, NodeLink>) -> Option<IfName> {
    let mut all = links.iter();
    let by_name = all.find(|(own, _)| own.as_str() == name.as_str());
    let has = |link: &NodeLink| link.alternatives.iter().any(|other| other == name.as_str());
    let mut all = links.iter();
    let found = by_name.or_else(|| all.find(|(_, link)| has(link)));
    found.map(|(name, _)| *name)
}

/// The device that has an address.
fn owner_of(address: IpAddr, links: &BTreeMap<IfName, NodeLink>) -> Option<IfName> {
    let mut links = links.iter();
    links
        .find(|(_, link)| link.has(address))
        .map(|(name, _)| *name)
}

fn links<'a>(
    names: &[IfName],
    around: &'a Surroundings,
    obstacles: &mut Vec<Obstacle>,
) -> Vec<&'a NodeLink> {
    let mut links = Vec::new();
    for name in names {
        let Some(link) = around.links.get(name) else {
            continue;
        };
        if link.layer == LinkLayer::Loopback || link.kind == "dummy" {
            let mut addresses = link.addresses.iter().map(IpNet::addr);
            obstacles.push(Obstacle::NothingArrives {
                name: *name,
                address: addresses.find(|address| !address.is_loopback()),
            });
        }
        links.push(link);
    }
    links
}

/// This node's outer address of a family, by which others know it: the configured one, else the
/// one that is remembered. Only a node that has had none chooses: the address of a device from
/// before there was a memory, else the first that stays. Nothing else moves it. What is on the
/// devices besides, or comes while the address is away for a moment, may be a virtual one, which
/// is another machine's the next time.
fn own_vtep(
    inputs: Inputs<'_>,
    names: &[IfName],
    links: &[&NodeLink],
    family: Family,
) -> Result<Option<IpAddr>, Obstacle> {
    if let Some(address) = inputs.model.node.configured_vtep(family) {
        let mut others = inputs.observed.around.links.values();
        return if others.any(|link| !link.ours && link.has(address)) {
            Ok(Some(address))
        } else {
            Err(no_such_address(address, &inputs.observed.around))
        };
    }
    let choice = choice(inputs, links, family);
    let Some(address) = inputs.store.vtep(family, names) else {
        return Ok(choice);
    };
    if links.iter().any(|link| link.has(address)) {
        Ok(Some(address))
    } else if is_needed(inputs, family) {
        Err(Obstacle::VtepGone {
            address,
            underlay: names.to_vec(),
            instead: choice,
        })
    } else {
        Ok(choice)
    }
}

/// The address that a node would choose that has had none.
fn choice(inputs: Inputs<'_>, links: &[&NodeLink], family: Family) -> Option<IpAddr> {
    let ours = inputs.observed.objects.links.values();
    let in_use: BTreeSet<IpAddr> = ours
        .filter_map(|link| match &link.kind {
            LinkKind::Vxlan(vxlan) => Some(vxlan.local),
            _ => None,
        })
        .collect();
    let there = links.iter().flat_map(|link| {
        let stays = |net: &&IpNet| !link.passing.contains(&net.addr());
        link.addresses.iter().filter(stays)
    });
    let of_family = there.filter(|net| Family::of(net.addr()) == family);
    // Virtual addresses have no subnet, as a rule; so have those of some clouds.
    let rank = |net: &&IpNet| {
        let alone = net.prefix_len() == net.max_prefix_len();
        (!in_use.contains(&net.addr()), alone)
    };
    of_family.min_by_key(rank).map(IpNet::addr)
}

/// Whether tunnels leave from an address of this family.
fn is_needed(inputs: Inputs<'_>, family: Family) -> bool {
    let first = inputs.store.vteps.first();
    let first = first.map(|vtep| Family::of(vtep.address));
    inputs.model.networks.iter().any(|network| {
        if network.peers.is_empty() {
            first == Some(family)
        } else {
            network.peers.vtep_families().contains(&family)
        }
    })
}

/// Tells of devices that belong to a VRF, unless somebody has made tunnels heed it: there are ways
/// to peers, and the setting.
pub(super) fn note_vrfs(node: &Node<'_>, problems: &mut Vec<Problem>) {
    let accepts = node.around.sysctls.get(BY_VRFS);
    let mut lacking = problems.iter();
    let has_ways = !node.around.ways.is_empty()
        || !lacking.any(|problem| matches!(problem, Problem::NoWay { .. }));
    if has_ways && accepts.is_some_and(|value| value != "0") {
        return;
    }
    let found = node.underlay.iter().filter_map(|&name| {
        let vrf = node.around.links.get(&name)?.vrf?;
        let vteps = node.vteps.clone();
        Some(Problem::InVrf { name, vrf, vteps })
    });
    problems.extend(found);
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
    // Behind what has decrypted it.
    let encrypted = networks.iter().filter(|network| network.fast);
    for name in encrypted.filter_map(|network| network.wireguard) {
        let program = (name, Hook::FromUnderlay);
        objects
            .attachments
            .insert(program, AttachmentState::Current);
    }
    for &name in &node.underlay {
        let layer = node.around.links.get(&name).map(|link| link.layer);
        // Where packets begin with IP, there is no XDP, and TC's program gives those of tunnels an
        // Ethernet header. What else they begin with, nobody here reads.
        let (guard, program) = match layer {
            Some(LinkLayer::Ethernet) => (guard, Some(Hook::FromUnderlay)),
            Some(LinkLayer::Ip) => (None, Some(Hook::FromUnderlay)),
            _ => (None, None),
        };
        for hook in guard.into_iter().chain(program) {
            objects
                .attachments
                .insert((name, hook), AttachmentState::Current);
        }
    }
}
