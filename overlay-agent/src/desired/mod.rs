//! From the model to the kernel objects that should be: a pure function.
//!
//! What makes the whole node impossible is an [`Obstacle`]: nothing is changed
//! then. What concerns one endpoint or one peer is a [`Problem`]: the rest is
//! built, and the problem shows in the node's status.

mod endpoints;
mod names;
mod networks;
mod obstacles;
mod slots;

use std::{collections::BTreeMap, net::Ipv4Addr};

use crate::{
    model::{Endpoint, FastPath, IfName, Model, Name, Network, Underlay},
    objects::{AttachmentState, Hook, Objects},
    store::Content,
    surroundings::{Observed, Surroundings},
};

pub use names::{alias, bridge_name, is_ours, vxlan_name};
pub use obstacles::{Obstacle, Obstacles, Problem};

/// Everything that the desired state follows from.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// The configuration, completed with what was added at run time.
    pub model: &'a Model,
    /// What is remembered: addresses, settings before us.
    pub store: &'a Content,
    /// What is there.
    pub observed: &'a Observed,
    /// Whether the programs are loaded: then their maps are filled.
    pub loaded: bool,
    /// Whether the programs are to be attached: an operator can switch them off.
    pub attached: bool,
}

/// What should be, and what cannot be.
#[derive(Clone, Debug, Default)]
pub struct Desired {
    /// The kernel objects.
    pub objects: Objects,
    /// What is left out, and why.
    pub problems: Vec<Problem>,
    /// Facts that `status` shows.
    pub facts: Facts,
}

/// What the agent chose where the configuration left it open.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// This node's outer address.
    pub vtep: Option<Ipv4Addr>,
    /// The underlay devices.
    pub underlay: Vec<IfName>,
    /// MTU of each network, in bytes.
    pub mtus: BTreeMap<Name, u16>,
}

/// The part of the node that all networks share.
struct Node<'a> {
    inputs: Inputs<'a>,
    instance: &'a Name,
    around: &'a Surroundings,
    vtep: Ipv4Addr,
    underlay: Vec<IfName>,
    /// Smallest MTU of the underlay devices, in bytes.
    underlay_mtu: u32,
}

/// A network with what was derived for it.
struct Derived<'a> {
    network: &'a Network,
    bridge: IfName,
    vxlan: IfName,
    /// A port of the bridge that makes containers leave headroom for the tunnel.
    headroom: IfName,
    mtu: u16,
    /// Whether the programs carry it.
    fast: bool,
}

/// The kernel objects of a node that should have none: only its settings are put back.
pub fn nothing(store: &Content, observed: &Observed) -> Objects {
    let vanishes = |key: &str| {
        let ours = observed
            .objects
            .links
            .keys()
            .map(|id| format!("net/ipv4/conf/{}/", id.name));
        !observed.around.sysctls.contains_key(key)
            || ours.into_iter().any(|prefix| key.starts_with(&prefix))
    };
    let before = store.sysctls.iter().filter(|(key, _)| !vanishes(key));
    let sysctls = before
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    Objects {
        sysctls,
        ..Objects::default()
    }
}

/// The kernel objects of a node.
pub fn desired(inputs: Inputs<'_>) -> Result<Desired, Obstacles> {
    let mut obstacles = Vec::new();
    let Some(node) = node(inputs, &mut obstacles) else {
        return Err(Obstacles(obstacles));
    };
    let mut desired = Desired::default();
    desired.facts.vtep = Some(node.vtep);
    desired.facts.underlay.clone_from(&node.underlay);
    let derived: Vec<Derived<'_>> = inputs
        .model
        .networks
        .iter()
        .filter_map(|network| networks::derive(&node, network, &mut obstacles))
        .collect();
    obstacles::find(&node, &derived, &mut obstacles);
    if !obstacles.is_empty() {
        return Err(Obstacles(obstacles));
    }
    for network in &derived {
        desired
            .facts
            .mtus
            .insert(network.network.name.clone(), network.mtu);
        networks::build(&node, network, &mut desired);
    }
    for endpoint in &inputs.model.endpoints {
        if let Some(network) = derived
            .iter()
            .find(|network| network.network.name == endpoint.network)
        {
            endpoints::build(&node, network, endpoint, &mut desired);
        }
    }
    slots::assign(
        &inputs.observed.objects.entries.vteps,
        &mut desired.objects.entries,
    );
    node_settings(&node, &derived, &mut desired.objects);
    if !inputs.attached {
        // The maps stay filled: counters go on, and switching on again is immediate.
        desired.objects.attachments.clear();
    }
    Ok(desired)
}

fn node<'a>(inputs: Inputs<'a>, obstacles: &mut Vec<Obstacle>) -> Option<Node<'a>> {
    let around = &inputs.observed.around;
    let underlay: Vec<IfName> = match &inputs.model.node.underlay {
        Underlay::Interfaces(names) => names.clone(),
        Underlay::Address(address) => {
            let owner = around
                .links
                .iter()
                .find(|(_, link)| link.addresses.iter().any(|net| net.addr() == *address))
                .map(|(name, _)| *name);
            if owner.is_none() {
                obstacles.push(Obstacle::NoSuchAddress { address: *address });
            }
            owner.into_iter().collect()
        }
    };
    let mut vtep = match inputs.model.node.underlay {
        Underlay::Address(std::net::IpAddr::V4(address)) => Some(address),
        _ => None,
    };
    let mut underlay_mtu = u32::MAX;
    for name in &underlay {
        let Some(link) = around.links.get(name) else {
            let there = around
                .links
                .keys()
                .filter(|name| name.as_str() != "lo")
                .copied()
                .collect();
            obstacles.push(Obstacle::NoSuchUnderlay { name: *name, there });
            continue;
        };
        underlay_mtu = underlay_mtu.min(link.mtu);
        let first = link.addresses.iter().find_map(|net| match net {
            ipnet::IpNet::V4(net) => Some(net.addr()),
            ipnet::IpNet::V6(_) => None,
        });
        vtep = vtep.or(first);
    }
    if !obstacles.is_empty() {
        return None;
    }
    let Some(vtep) = vtep else {
        obstacles.push(Obstacle::NoVtep { underlay });
        return None;
    };
    let instance = inputs.store.instance();
    Some(Node {
        inputs,
        instance,
        around,
        vtep,
        underlay,
        underlay_mtu,
    })
}

fn node_settings(node: &Node<'_>, networks: &[Derived<'_>], objects: &mut Objects) {
    objects
        .sysctls
        .insert("net/ipv4/ip_forward".to_owned(), "1".to_owned());
    // A remote container's packet to this node, and a remote node's answer to a
    // container, arrive by the other way than their answers leave: strict reverse
    // path filtering would drop them.
    let asymmetric = node
        .underlay
        .iter()
        .chain(networks.iter().map(|network| &network.vxlan));
    for name in asymmetric {
        let own = format!("net/ipv4/conf/{name}/rp_filter");
        let value = |key: &str| node.around.sysctls.get(key).map(String::as_str);
        let inherited = || value("net/ipv4/conf/default/rp_filter");
        let effective = value("net/ipv4/conf/all/rp_filter").max(value(&own).or_else(inherited));
        if effective == Some("1") {
            objects.sysctls.insert(own, "2".to_owned());
        }
    }
    if networks.iter().any(|network| network.fast) {
        for name in &node.underlay {
            objects
                .attachments
                .insert((*name, Hook::FromUnderlay), AttachmentState::Current);
        }
    }
}

/// Whether the programs carry a network.
fn is_fast(inputs: Inputs<'_>, network: &Network) -> bool {
    inputs.loaded && network.fastpath != FastPath::Off
}

/// The address that was given to an endpoint.
fn address_of(store: &Content, endpoint: &Endpoint) -> Option<Ipv4Addr> {
    endpoint.address.or_else(|| {
        store
            .allocations
            .get(&endpoint.name)
            .map(|given| given.address)
    })
}

#[cfg(test)]
mod tests;
