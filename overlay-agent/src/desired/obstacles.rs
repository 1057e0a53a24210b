//! What cannot be built, and what to do about it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use ipnet::IpNet;

use super::{Derived, Node, default_metric, needs_filter, peers};
use crate::{
    model::{DeviceName, Family, IfName, Name},
    objects::{PeerObjects, RouteKey, Scope, filter_table},
    surroundings::NodeLink,
};

/// What makes a node impossible; nothing is changed while there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// A configured underlay device does not exist.
    NoSuchUnderlay {
        /// As configured.
        name: DeviceName,
        /// What there is.
        there: Vec<IfName>,
    },
    /// No device has the configured outer address.
    NoSuchAddress {
        /// As configured.
        address: IpAddr,
    },
    /// The underlay devices have no address.
    NoVtep {
        /// As configured.
        underlay: Vec<IfName>,
    },
    /// The address that this node has been known by is away.
    VtepGone {
        /// The address.
        address: IpAddr,
        /// The devices that should have it.
        underlay: Vec<IfName>,
        /// One that they have.
        instead: Option<IpAddr>,
    },
    /// No packet of another machine arrives by a device.
    NothingArrives {
        /// The device.
        name: IfName,
        /// An address of it.
        address: Option<IpAddr>,
    },
    /// The configured MTU does not fit.
    MtuTooBig {
        /// The network.
        network: Name,
        /// As configured, in bytes.
        mtu: u16,
        /// What fits, in bytes.
        room: u16,
        /// MTU of the underlay, in bytes.
        underlay: u32,
    },
    /// The MTU that fits is less than IPv6 asks for.
    MtuForIpv6 {
        /// The network.
        network: Name,
        /// What fits, in bytes.
        mtu: u16,
        /// MTU of the underlay, in bytes.
        underlay: u32,
        /// MTU that the underlay would need, in bytes.
        needed: u16,
    },
    /// Networks cannot be kept apart, or not be masqueraded.
    NoFilter {
        /// What it is needed for.
        use_for: &'static str,
        /// Why it cannot be set.
        cause: String,
        /// What works without.
        instead: &'static str,
    },
    /// A table of packet filter rules of somebody else has the name that ours would have.
    TableTaken {
        /// Its name.
        table: String,
        /// What it is needed for.
        use_for: &'static str,
        /// The other instance that made it.
        owner: Option<Name>,
    },
    /// A device that no instance made has a name that we need.
    DeviceTaken {
        /// The name.
        device: IfName,
    },
    /// Another instance has devices that a network needs: perhaps this very node under the name
    /// that it had before.
    NetworkTaken {
        /// The network.
        network: Name,
        /// The devices.
        devices: Vec<IfName>,
        /// The other instance.
        owner: Name,
    },
    /// Another VXLAN device receives on the port.
    PortTaken {
        /// The network.
        network: Name,
        /// The port.
        port: u16,
        /// Whose it is.
        device: IfName,
        /// The other instance that made it.
        owner: Option<Name>,
    },
    /// A socket has the port.
    PortBusy {
        /// The network.
        network: Name,
        /// The port.
        port: u16,
    },
    /// An address of ours is on a device of somebody else.
    AddressTaken {
        /// The network.
        network: Name,
        /// The gateway's address.
        address: IpAddr,
        /// Our bridge.
        bridge: IfName,
        /// Where it is.
        device: IfName,
        /// The other instance that made that device.
        owner: Option<Name>,
    },
    /// A route of somebody else leads to a peer's subnet.
    RouteTaken {
        /// The peer.
        peer: Name,
        /// Its subnet.
        destination: IpNet,
        /// The route that is there.
        other: OtherRoute,
    },
    /// A subnet that packets would be sent into that have to reach a node.
    AroundUnderlay {
        /// The network.
        network: Name,
        /// The peer whose subnet it is; `None`: this node's.
        peer: Option<Name>,
        /// The subnet.
        subnet: IpNet,
        /// What is in it.
        inside: Inside,
    },
    /// A peer has this node's own outer address.
    OwnVtep {
        /// The network.
        network: Name,
        /// The peer.
        peer: Name,
        /// The address.
        vtep: IpAddr,
    },
}

/// An address of the underlay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inside {
    /// This node's, on a device of the underlay.
    Own(IpAddr, IfName),
    /// A peer's VTEP.
    Vtep(IpAddr, Name),
    /// A router on the way to peers.
    NextHop(IpAddr),
}

impl fmt::Display for Inside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own(address, device) => write!(f, "{address}, which this node has on {device}"),
            Self::Vtep(address, peer) => write!(f, "{address}, the VTEP of peer {peer}"),
            Self::NextHop(address) => write!(f, "{address}, the next hop to other nodes"),
        }
    }
}

/// A route of somebody else where one of ours should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherRoute {
    /// The device that it leads through, if it leads through one.
    pub device: Option<IfName>,
    /// The other instance that made that device, if one did.
    pub owner: Option<Name>,
}

impl Obstacle {
    /// Whether it may go by itself: what makes devices and addresses can be later than the agent.
    pub fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::NoSuchUnderlay { .. }
                | Self::NoSuchAddress { .. }
                | Self::NoVtep { .. }
                | Self::VtepGone { .. }
        )
    }
}

/// All obstacles at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacles(pub Vec<Obstacle>);

impl Obstacles {
    /// Whether all of them may go by themselves.
    pub fn may_pass(&self) -> bool {
        self.0.iter().all(Obstacle::may_pass)
    }
}

impl std::error::Error for Obstacles {}

impl fmt::Display for Obstacles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, obstacle) in self.0.iter().enumerate() {
            if number > 0 {
                writeln!(f)?;
            }
            write!(f, "{obstacle}")?;
        }
        Ok(())
    }
}

/// Finds what stands in the way of the networks.
pub(super) fn find(
    node: &Node<'_>,
    networks: &[Derived<'_>],
    peers: &PeerObjects,
    obstacles: &mut Vec<Obstacle>,
) {
    let mut owners = BTreeSet::new();
    for derived in networks {
        find_peers(node, derived, obstacles);
        // Port, addresses and routes of a network that is another instance's are so, too.
        if let Some(owner) = find_devices(node, derived, obstacles) {
            owners.insert(owner);
            continue;
        }
        find_port(node, derived, obstacles);
        find_gateways(node, derived, obstacles);
    }
    find_routes(node, networks, peers, &owners, obstacles);
    super::cut_off::find(node, networks, obstacles);
    find_filter(node, networks, obstacles);
}

/// Devices of others that have the names of a network's; the instance that has any of them.
fn find_devices(
    node: &Node<'_>,
    derived: &Derived<'_>,
    obstacles: &mut Vec<Obstacle>,
) -> Option<Name> {
    let devices = derived.devices().chain([derived.headroom]);
    let taken = devices.filter(|device| node.is_of_others(*device));
    let mut by_owner: BTreeMap<Name, Vec<IfName>> = BTreeMap::new();
    for device in taken {
        match node.owner_of(device) {
            Some(owner) => by_owner.entry(owner).or_default().push(device),
            None => obstacles.push(Obstacle::DeviceTaken { device }),
        }
    }
    let first = by_owner.keys().next().cloned();
    obstacles.extend(by_owner.into_iter().map(|(owner, devices)| {
        let network = derived.network.name.clone();
        Obstacle::NetworkTaken {
            network,
            devices,
            owner,
        }
    }));
    first
}

fn find_port(node: &Node<'_>, derived: &Derived<'_>, obstacles: &mut Vec<Obstacle>) {
    let network = derived.network;
    let on_port = node
        .others()
        .filter(|(_, link)| link.vxlan_port == Some(network.port));
    let (named, on_port): (Vec<_>, Vec<_>) =
        on_port.partition(|(name, _)| derived.devices().any(|device| device == *name));
    let busy = |family| node.around.busy_ports.contains(&(family, network.port));
    if let Some((device, link)) = on_port.into_iter().next() {
        obstacles.push(Obstacle::PortTaken {
            network: network.name.clone(),
            port: network.port,
            device,
            owner: link.owner.clone(),
        });
    } else if named.is_empty() && derived.tunnels.iter().any(|tunnel| busy(tunnel.family())) {
        obstacles.push(Obstacle::PortBusy {
            network: network.name.clone(),
            port: network.port,
        });
    }
}

fn find_gateways(node: &Node<'_>, derived: &Derived<'_>, obstacles: &mut Vec<Obstacle>) {
    for address in derived
        .network
        .ranges
        .iter()
        .map(crate::model::Range::gateway)
    {
        let has = |link: &NodeLink| link.addresses.iter().any(|net| net.addr() == address);
        for (device, link) in node.others().filter(|(_, link)| has(link)) {
            obstacles.push(Obstacle::AddressTaken {
                network: derived.network.name.clone(),
                address,
                bridge: derived.bridge,
                device,
                owner: link.owner.clone(),
            });
        }
    }
}

fn find_peers(node: &Node<'_>, derived: &Derived<'_>, obstacles: &mut Vec<Obstacle>) {
    for peer in &derived.network.peers {
        if node.vteps.contains(&peer.vtep) {
            obstacles.push(Obstacle::OwnVtep {
                network: derived.network.name.clone(),
                peer: peer.name.clone(),
                vtep: peer.vtep,
            });
        }
    }
}

/// Routes of others that ours would replace, or that would go before ours.
fn find_routes(
    node: &Node<'_>,
    networks: &[Derived<'_>],
    peers: &PeerObjects,
    told: &BTreeSet<Name>,
    obstacles: &mut Vec<Obstacle>,
) {
    let plain = node.around.routes.keys();
    let in_place = node
        .around
        .in_place
        .keys()
        .map(|(destination, _)| destination);
    let destinations: BTreeSet<IpNet> = plain.chain(in_place).copied().collect();
    for destination in destinations {
        let key = RouteKey {
            scope: Scope::Node,
            destination,
            metric: peers::metric(destination),
        };
        let taken = peers.routes.contains_key(&key);
        let other = node.route_of_others(&key).filter(|_| taken);
        let is_told = |other: &OtherRoute| other.owner.as_ref().is_some_and(|of| told.contains(of));
        let Some(other) = other.filter(|other| !is_told(other)) else {
            continue;
        };
        let all = networks.iter().flat_map(|derived| &derived.network.peers);
        let mut owners = all.filter(|peer| peer.subnets.contains(&destination));
        obstacles.extend(owners.next().map(|peer| Obstacle::RouteTaken {
            peer: peer.name.clone(),
            destination,
            other: other.clone(),
        }));
    }
}

/// Whether a route of ours would stand in the way of one of others, or they in ours.
pub(super) fn stands_in_way(node: &Node<'_>, key: &RouteKey) -> bool {
    let RouteKey {
        destination,
        metric,
        ..
    } = *key;
    node.around.routes.contains_key(&destination)
        || node.around.in_place.contains_key(&(destination, metric))
}

fn find_filter(node: &Node<'_>, networks: &[Derived<'_>], obstacles: &mut Vec<Obstacle>) {
    let (use_for, instead) = if networks.len() > 1 {
        ("keeping networks apart", "one network a node")
    } else {
        ("masquerade", "masquerade = false")
    };
    if let Some(cause) = &node.around.no_filter {
        obstacles.push(Obstacle::NoFilter {
            use_for,
            cause: cause.clone(),
            instead,
        });
    }
    if let Some(owner) = &node.around.filter_of
        && needs_filter(node.inputs.model)
    {
        obstacles.push(Obstacle::TableTaken {
            table: filter_table(node.instance),
            use_for,
            owner: owner.clone(),
        });
    }
}

impl Node<'_> {
    /// Devices that this instance did not make.
    pub(super) fn others(&self) -> impl Iterator<Item = (IfName, &NodeLink)> {
        let links = self.around.links.iter();
        links
            .filter(|(_, link)| !link.ours)
            .map(|(name, link)| (*name, link))
    }

    /// The other instance that made a device.
    pub(super) fn owner_of(&self, device: IfName) -> Option<Name> {
        self.around.links.get(&device)?.owner.clone()
    }

    pub(super) fn is_of_others(&self, device: IfName) -> bool {
        let link = self.around.links.get(&device);
        link.is_some_and(|link| !link.ours)
    }

    /// A route of somebody else that stands in the way of one of ours.
    pub(super) fn route_of_others(&self, key: &RouteKey) -> Option<OtherRoute> {
        // What is on a device of ours is ours, and is put right.
        let of_others =
            |device: &Option<IfName>| device.is_none_or(|device| self.is_of_others(device));
        let in_place = self.around.in_place.get(&(key.destination, key.metric));
        let in_place = in_place.filter(|device| of_others(device));
        let observed = &self.inputs.observed.objects;
        let same_metric = key.metric == default_metric(Family::of(key.destination.addr()));
        let ours = same_metric
            && (observed.routes.contains_key(key) || observed.peers.routes.contains_key(key));
        let plain = self.around.routes.get(&key.destination);
        let plain = plain.filter(|device| of_others(device));
        let device = *in_place.or(plain).filter(|_| !ours)?;
        Some(OtherRoute {
            device,
            owner: device.and_then(|device| self.owner_of(device)),
        })
    }
}

pub(super) fn list(names: &[IfName]) -> String {
    let names: Vec<&str> = names.iter().map(IfName::as_str).collect();
    names.join(", ")
}
