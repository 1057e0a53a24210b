//! From the model to the kernel objects that should be: a pure function.
//!
//! What makes the whole node impossible is an [`Obstacle`]: nothing is changed
//! then. What concerns one endpoint or one peer is a [`Problem`]: the rest is
//! built, and the problem shows in the node's status.

mod cut_off;
mod endpoints;
mod filter;
mod guard;
mod hooks;
mod in_the_way;
mod last_resorts;
mod names;
mod networks;
mod obstacles;
mod own_addresses;
mod peers;
mod problems;
mod room;
mod rotation;
mod settings;
mod slots;
mod spread;
pub mod troubles;
mod underlay;
mod values;
mod wireguard;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use crate::{
    model::{Endpoint, Family, FastPath, IfName, Mac, Model, Name, Network, PublicKey, Vni},
    objects::{
        AttachmentState, Capacity, Filter, GuardRules, GuardedEndpoint, LinkId, MAPS, Objects,
    },
    state::Content,
    surroundings::{Observed, Surroundings},
};

use self::room::Room;

pub use endpoints::default_route;
pub use filter::is_needed as needs_filter;
pub use hooks::PassedBy;
pub use names::{
    alias, bridge_name, is_ours, last_resort_metric, owner, second_wireguard_name, veth_name,
    vxlan_name, wireguard_name,
};
pub use obstacles::{Inside, Obstacle, Obstacles, OtherRoute};
pub use peers::{Few, ForPeers, OfSome, metric as metric_to, of_some};
pub use problems::{Problem, Whose};
pub use room::Full;
pub use settings::observed_settings;
pub use underlay::devices as underlay_devices;

/// Everything that the desired state follows from.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// The configuration, completed with what was added at run time.
    pub model: &'a Model,
    /// The saved state: addresses, settings before us.
    pub store: &'a Content,
    /// The observed state.
    pub observed: &'a Observed,
    /// Whether the programs are loaded: then their maps are filled.
    pub loaded: bool,
    /// Whether the programs are to be attached: an operator can switch them off.
    pub attached: bool,
    /// How much the maps hold.
    pub capacity: Capacity,
    /// The peers' objects of the last time.
    pub before: Option<&'a Arc<ForPeers>>,
    /// Endpoints that the kernel carries for now: their programs are attached later.
    pub late: Option<&'a BTreeSet<Name>>,
    /// Networks in which the kernel translates more than the programs can know of.
    pub translated: Option<&'a BTreeSet<Vni>>,
}

impl Inputs<'_> {
    fn is_late(&self, endpoint: &Endpoint) -> bool {
        self.late.is_some_and(|late| late.contains(&endpoint.name))
    }
}

/// The desired state, and what is left out of it.
#[derive(Clone, Debug, Default)]
pub struct Desired {
    /// The kernel objects.
    pub objects: Objects,
    /// Objects that are left out, and why.
    pub problems: Vec<Problem>,
    /// Facts that `status` shows.
    pub facts: Facts,
    /// The peers' objects, for the next time.
    pub for_peers: Option<Arc<ForPeers>>,
}

/// Choices of the agent where the configuration left them open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// This node's outer addresses, at most one of a family.
    pub vteps: Vec<IpAddr>,
    /// The underlay devices.
    pub underlay: Vec<IfName>,
    /// MTU of each network, in bytes.
    pub mtus: BTreeMap<Name, u16>,
    /// The largest MTU, in bytes, that each network could have by this node's underlay.
    pub rooms: BTreeMap<Name, u16>,
    /// What others have hooked in on the way of a network, and is heeded by leaving packets to
    /// the kernel.
    pub hooks: BTreeMap<Name, Vec<PassedBy>>,
    /// The same of endpoints.
    pub endpoint_hooks: BTreeMap<Name, Vec<PassedBy>>,
    /// This node's key and the next one, as far as others may know them.
    pub keys: [Option<PublicKey>; 2],
    /// Devices that encrypt beside the networks' first ones, and the peers whose packets go by them.
    pub seconds: BTreeMap<IfName, BTreeSet<IpAddr>>,
    /// The rules of the guard of the tunnels' ports, if there can be one.
    pub guard: Option<Arc<GuardRules>>,
}

/// The part of the node that all networks share.
struct Node<'a> {
    inputs: Inputs<'a>,
    instance: &'a Name,
    around: &'a Surroundings,
    /// Outer addresses, at most one of a family, IPv4 first.
    vteps: Vec<IpAddr>,
    underlay: Vec<IfName>,
    /// Smallest MTU of the underlay devices, in bytes.
    underlay_mtu: u32,
}

/// A network with what was derived for it.
struct Derived<'a> {
    network: &'a Network,
    bridge: IfName,
    gateway_mac: Mac,
    /// Its VXLAN devices, one for each family of outer addresses in use.
    tunnels: Vec<Tunnel>,
    /// A port of the bridge that makes containers leave headroom for the tunnel.
    headroom: IfName,
    /// The device that encrypts the tunnels' packets, if there is one.
    wireguard: Option<IfName>,
    /// A second one beside it, while a key changes.
    second: Option<rotation::Second>,
    /// Its index, once it has been made.
    decrypted_by: u32,
    mtu: u16,
    /// The largest MTU that the underlay has room for.
    room: u16,
    /// Whether the programs carry it.
    fast: bool,
    /// Whether rules of others follow its connections; and whether all of them.
    followed: Option<bool>,
    /// Whether some of its peers are not in the maps.
    crowded: bool,
    /// Whether the kernel leaves the priority of what it forwards over IPv4 alone.
    keeps_priority: bool,
    /// Hooks of others on its path.
    hooks: hooks::Hooks,
}

impl Derived<'_> {
    /// The device that reaches a VTEP.
    fn tunnel_to(&self, vtep: IpAddr) -> Option<&Tunnel> {
        let family = Family::of(vtep);
        self.tunnels.iter().find(|tunnel| tunnel.family() == family)
    }

    /// The devices that encrypt, and let in what they have decrypted.
    fn encrypting(&self) -> impl Iterator<Item = IfName> {
        let second = self.second.as_ref().map(|second| second.device);
        self.wireguard.into_iter().chain(second)
    }

    /// The devices that packets of the network enter and leave the stack by.
    fn devices(&self) -> impl Iterator<Item = IfName> {
        let tunnels = self.tunnels.iter().map(|tunnel| tunnel.device);
        std::iter::once(self.bridge).chain(tunnels)
    }
}

/// A VXLAN device; the kernel's have one family.
struct Tunnel {
    device: IfName,
    /// Outer source address.
    local: IpAddr,
    mac: Mac,
}

impl Tunnel {
    fn family(&self) -> Family {
        Family::of(self.local)
    }
}

/// The kernel objects of a node that should have none: only its settings are put back.
pub fn nothing(store: &Content, observed: &Observed) -> Nothing {
    let settings::BeforeUs { put_back, left } = settings::before_us(store, observed);
    Nothing {
        objects: Objects {
            sysctls: put_back,
            ..Objects::default()
        },
        left,
    }
}

/// A node without the instance.
#[derive(Debug)]
pub struct Nothing {
    /// Its objects: the settings that are put back.
    pub objects: Objects,
    /// Settings that are left alone although the instance once changed them, a sentence each.
    pub left: Vec<String>,
}

/// The kernel objects of a node.
pub fn desired(inputs: Inputs<'_>) -> Result<Desired, Obstacles> {
    let mut obstacles = Vec::new();
    let Some(node) = underlay::node(inputs, &mut obstacles) else {
        return Err(Obstacles(obstacles));
    };
    let mut desired = Desired::default();
    desired.facts.vteps.clone_from(&node.vteps);
    desired.facts.underlay.clone_from(&node.underlay);
    desired.facts.keys = [node.around.public_key, node.around.next_public_key];
    let mut derived: Vec<Derived<'_>> = inputs
        .model
        .networks
        .iter()
        .filter_map(|network| networks::derive(&node, network, &mut obstacles))
        .collect();
    let mut room = Room::of(inputs.capacity);
    for derived in derived.iter_mut().filter(|derived| derived.fast) {
        if let Err(full) = room.for_network() {
            derived.fast = false;
            desired.problems.push(Problem::NetworkLeftOut {
                network: derived.network.name.clone(),
                full,
            });
        }
    }
    wireguard::find(&node, &derived, &mut obstacles);
    let for_peers = peers::build(
        &derived,
        &node.around.ways,
        &inputs.capacity,
        &inputs.observed.objects.peers.entries,
        inputs.before,
    );
    for derived in &mut derived {
        derived.crowded = for_peers.crowded.contains(&derived.network.vni);
    }
    in_the_way::find(&node, &derived, &for_peers.objects, &mut obstacles);
    if !obstacles.is_empty() {
        return Err(Obstacles(obstacles));
    }
    for network in &derived {
        desired
            .facts
            .mtus
            .insert(network.network.name.clone(), network.mtu);
        let second = network.second.iter();
        let second = second.map(|second| (second.device, second.carries.clone()));
        desired.facts.seconds.extend(second);
        desired
            .facts
            .rooms
            .insert(network.network.name.clone(), network.room);
        networks::build(&node, network, &mut room, &mut desired);
        wireguard::build(&node, network, &mut desired);
        hooks::note(network, &mut desired);
    }
    last_resorts::build(&node, &derived, &mut desired);
    endpoints::build(&node, &derived, &mut room, &mut desired);
    own_addresses::find(&node, &derived, &mut desired.problems);
    let kept = &inputs.observed.objects.entries;
    slots::assign_to_endpoints(kept, &mut desired.objects.entries);
    desired.objects.peers = for_peers.objects.clone();
    desired.problems.extend(for_peers.problems.iter().cloned());
    underlay::note_vrfs(&node, &mut desired.problems);
    desired.for_peers = Some(Arc::clone(&for_peers));
    desired.objects.sysctls = settings::wanted(&node, &derived);
    desired.objects.filter = filter::rules(&derived).map(Filter::Rules);
    guard::build(&node, &derived, &for_peers.senders, &mut desired);
    underlay::attach(&node, &derived, &mut desired.objects);
    desired.objects.layouts = layouts(inputs.observed);
    // Those of devices that may get programs again: packets are lost while one comes or goes.
    let attachments = desired.objects.attachments.keys();
    let attached: BTreeSet<IfName> = attachments.map(|(device, _)| *device).collect();
    desired.objects.qdiscs = &inputs.observed.objects.qdiscs & &attached;
    if inputs.loaded {
        desired.objects.pins = MAPS.into();
    }
    if !inputs.attached {
        // The maps stay filled: counters go on, and switching on again is immediate.
        desired.objects.attachments.clear();
    }
    Ok(desired)
}

/// The problem that keeps an endpoint from being attached, as far as its namespace tells.
pub fn in_the_way_of(inputs: Inputs<'_>, endpoint: &Endpoint) -> Option<Problem> {
    let node = underlay::node(inputs, &mut Vec::new())?;
    let device = veth_name(&endpoint.name)?;
    let is_other = |other: &&Endpoint| other.name != endpoint.name;
    let mut others = inputs.model.endpoints.iter().filter(is_other);
    if others.any(|other| veth_name(&other.name) == Some(device)) {
        return Some(Problem::SameDeviceName {
            endpoint: endpoint.name.clone(),
            device,
        });
    }
    endpoints::problem(&node, endpoint, &LinkId::node(device), &Desired::default())
        .or_else(|| own_addresses::of_endpoint(&node, &endpoint.network, endpoint))
}

/// The kernel objects of one endpoint alone, on a node that has all that its network needs;
/// `None` where anything stands in the way.
pub fn for_endpoint(inputs: Inputs<'_>, endpoint: &Endpoint) -> Option<Objects> {
    let mut obstacles = Vec::new();
    let node = underlay::node(inputs, &mut obstacles)?;
    let network = inputs.model.network(&endpoint.network)?;
    let derived = networks::derive(&node, network, &mut obstacles)?;
    let there = &inputs.observed.objects.entries;
    if derived.fast && !there.networks.contains_key(&network.vni) {
        return None;
    }
    let mut desired = Desired::default();
    desired.objects.entries.networks.clone_from(&there.networks);
    let mut room = Room::beside(inputs.capacity, there);
    endpoints::build_alone(&node, &derived, endpoint, &mut room, &mut desired);
    let Desired {
        mut objects,
        problems,
        ..
    } = desired;
    if !obstacles.is_empty() || !problems.is_empty() {
        return None;
    }
    slots::assign_to_endpoints(there, &mut objects.entries);
    objects.entries.networks.clear();
    if !inputs.attached {
        objects.attachments.clear();
    }
    Some(objects)
}

/// How the guard is to know a container; `None` where it may say that it is another one.
pub fn guarded(inputs: Inputs<'_>, endpoint: &Endpoint) -> Option<GuardedEndpoint> {
    let node = underlay::node(inputs, &mut Vec::new())?;
    guard::guarded(&node, inputs.model.network(&endpoint.network)?, endpoint)
}

/// Maps of another build stay for as long as a program of its may run, which reads them.
fn layouts(observed: &Observed) -> BTreeSet<u32> {
    let mut attachments = observed.objects.attachments.values();
    if attachments.any(|state| *state == AttachmentState::Outdated) {
        observed.objects.layouts.clone()
    } else {
        BTreeSet::new()
    }
}

/// Whether the programs carry a network.
fn is_fast(inputs: Inputs<'_>, network: &Network) -> bool {
    inputs.loaded && network.fastpath != FastPath::Off
}

/// The metric of a route that is made without one (`IP6_RT_PRIO_USER`).
pub const fn default_metric(family: Family) -> u32 {
    match family {
        Family::V4 => 0,
        Family::V6 => 1024,
    }
}

/// The address of a family that was given to an endpoint.
fn address_of(store: &Content, endpoint: &Endpoint, family: Family) -> Option<IpAddr> {
    endpoint.address(family).or_else(|| {
        let given = store.allocations.get(&endpoint.name)?;
        given.address(family)
    })
}

#[cfg(test)]
mod tests;
