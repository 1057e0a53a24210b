//! Kernel settings, by path below `/proc/sys`.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Derived, Node, bridge_name, second_wireguard_name, underlay, vxlan_name, wireguard_name,
};
use crate::{
    model::{Family, IfName, Model, Network, Vni},
    state::Content,
    surroundings::{NodeLink, Observed},
};

const FORWARD4: &str = "net/ipv4/ip_forward";
const FORWARD6: &str = "net/ipv6/conf/all/forwarding";
/// Of one device; the kernel asks that by which an IPv4 packet comes. For IPv6 it asks no device.
const FORWARD_FROM: &str = "forwarding";
const ROUTER_ADVERTISEMENTS: &str = "accept_ra";
const NO_IPV6: &str = "disable_ipv6";
const ASK_FOR_DUPLICATES: &str = "accept_dad";

/// Whether sockets of no VRF, such as those of tunnels, get what arrives by devices of one.
pub(super) const BY_VRFS: &str = "net/ipv4/udp_l3mdev_accept";

/// Whether forwarding gives IPv4 packets the priority of their DSCP. It is read and never set.
const PRIORITY_BY_DSCP: &str = "net/ipv4/ip_forward_update_priority";

/// Of `ip_forward` and `forwarding`.
const FORWARDS: &str = "1";
/// Of `rp_filter`: a loose one; of `accept_ra`: also where the node forwards.
const LISTEN_OR_LOOSE: &str = "2";

fn of_device(family: Family, device: impl std::fmt::Display, setting: &str) -> String {
    let family = match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    };
    format!("net/{family}/conf/{device}/{setting}")
}

fn rp_filter(device: impl std::fmt::Display) -> String {
    of_device(Family::V4, device, "rp_filter")
}

/// Every setting on which [`wanted`] may depend.
pub fn observed_settings(model: &Model, links: &BTreeMap<IfName, NodeLink>) -> BTreeSet<String> {
    let underlay = underlay::devices(&model.node.underlay, links);
    let tunnels = |network: &Network| {
        let vni = network.vni;
        Family::ALL
            .map(|family| vxlan_name(vni, family))
            .into_iter()
            .flatten()
    };
    let is_in_vrf = |name: &IfName| links.get(name).is_some_and(|link| link.vrf.is_some());
    let by_vrfs = underlay.iter().any(is_in_vrf);
    let encrypted = model.networks.iter().filter(|it| it.wireguard.is_some());
    let devices = underlay
        .into_iter()
        .chain(encrypted.flat_map(|network| encrypting(network.vni)))
        .chain(model.networks.iter().flat_map(tunnels));
    let mut keys: BTreeSet<String> = devices.map(rp_filter).collect();
    keys.extend(["all", "default"].map(rp_filter));
    keys.extend([FORWARD4, PRIORITY_BY_DSCP].map(str::to_owned));
    let routed = model
        .networks
        .iter()
        .filter(|network| has_ipv4(network))
        .flat_map(|network| tunnels(network).chain(bridge_name(network.vni)));
    keys.extend(routed.map(|name| of_device(Family::V4, name, FORWARD_FROM)));
    keys.extend(by_vrfs.then(|| BY_VRFS.to_owned()));
    let mut dual = model
        .networks
        .iter()
        .filter(|network| network.has_ipv6())
        .peekable();
    if dual.peek().is_some() {
        let others = links.iter().filter(|(_, link)| !link.ours);
        keys.extend(others.map(|(name, _)| of_device(Family::V6, name, ROUTER_ADVERTISEMENTS)));
        let ours = dual.flat_map(|network| tunnels(network).chain(bridge_name(network.vni)));
        keys.extend(ours.flat_map(|name| {
            [NO_IPV6, ASK_FOR_DUPLICATES].map(|setting| of_device(Family::V6, name, setting))
        }));
        keys.insert(of_device(Family::V6, "default", NO_IPV6));
        keys.insert(FORWARD6.to_owned());
    }
    keys
}

/// The devices that may encrypt a network.
fn encrypting(vni: Vni) -> impl Iterator<Item = IfName> {
    let devices = [wireguard_name(vni), second_wireguard_name(vni)];
    devices.into_iter().flatten()
}

/// The settings that the node needs.
pub(super) fn wanted(node: &Node<'_>, networks: &[Derived<'_>]) -> BTreeMap<String, String> {
    let mut wanted = BTreeMap::from([(FORWARD4.to_owned(), FORWARDS.to_owned())]);
    loosen_reverse_path_filters(node, networks, &mut wanted);
    forward_from_networks(node, networks, &mut wanted);
    if networks.iter().any(|derived| derived.network.has_ipv6()) {
        wanted.insert(FORWARD6.to_owned(), FORWARDS.to_owned());
        keep_router_advertisements(node, &mut wanted);
        allow_ipv6(node, networks, &mut wanted);
    }
    wanted
}

/// Whether the kernel leaves the priority of what it forwards over IPv4 alone. Before Linux 4.19
/// there is no such setting, and it never does.
pub(super) fn keeps_priority(node: &Node<'_>) -> bool {
    value(node, PRIORITY_BY_DSCP) == Some("0")
}

/// A remote container's packet to this node, and a remote node's answer to a container, arrive
/// by the other way than their answers leave: strict reverse path filtering would drop them.
fn loosen_reverse_path_filters(
    node: &Node<'_>,
    networks: &[Derived<'_>],
    wanted: &mut BTreeMap<String, String>,
) {
    let tunnels = networks.iter().flat_map(|derived| &derived.tunnels);
    let asymmetric = node
        .underlay
        .iter()
        .chain(tunnels.map(|tunnel| &tunnel.device))
        .copied()
        .chain(networks.iter().flat_map(Derived::encrypting));
    for name in asymmetric {
        let own = rp_filter(name);
        let inherited = || value(node, &rp_filter("default"));
        let effective = value(node, &rp_filter("all")).max(value(node, &own).or_else(inherited));
        if effective == Some("1") {
            wanted.insert(own, LISTEN_OR_LOOSE.to_owned());
        }
    }
}

fn has_ipv4(network: &Network) -> bool {
    let mut ranges = network.ranges.iter();
    ranges.any(|range| range.family() == Family::V4)
}

/// Devices of a network forward even where single ones, or new ones, do not.
fn forward_from_networks(
    node: &Node<'_>,
    networks: &[Derived<'_>],
    wanted: &mut BTreeMap<String, String>,
) {
    if value(node, FORWARD4) == Some("0") {
        // To set that sets it for all devices.
        return;
    }
    let routed = networks.iter().filter(|derived| has_ipv4(derived.network));
    for device in routed.flat_map(Derived::devices) {
        let key = of_device(Family::V4, device, FORWARD_FROM);
        if value(node, &key) == Some("0") {
            wanted.insert(key, FORWARDS.to_owned());
        }
    }
}

/// A node that forwards IPv6 stops listening to routers on devices with `accept_ra` 1, and
/// would lose its own default route: 2 means to listen nonetheless.
fn keep_router_advertisements(node: &Node<'_>, wanted: &mut BTreeMap<String, String>) {
    let was_host = value(node, FORWARD6) == Some("0");
    let others = node.around.links.iter().filter(|(_, link)| !link.ours);
    for key in others.map(|(name, _)| of_device(Family::V6, name, ROUTER_ADVERTISEMENTS)) {
        let ours_to_keep = was_host || node.inputs.store.sysctls.contains_key(&key);
        if ours_to_keep && value(node, &key) == Some("1") {
            wanted.insert(key, LISTEN_OR_LOOSE.to_owned());
        }
    }
}

/// Devices of a network with IPv6 have it even where new devices do not, and bridges have it
/// at once: as long as a bridge asks whether its address is taken, it finds no neighbours.
fn allow_ipv6(node: &Node<'_>, networks: &[Derived<'_>], wanted: &mut BTreeMap<String, String>) {
    let inherited = value(node, &of_device(Family::V6, "default", NO_IPV6));
    for derived in networks.iter().filter(|derived| derived.network.has_ipv6()) {
        let key = of_device(Family::V6, derived.bridge, ASK_FOR_DUPLICATES);
        wanted.insert(key, "0".to_owned());
        for key in derived
            .devices()
            .map(|device| of_device(Family::V6, device, NO_IPV6))
        {
            if value(node, &key).or(inherited) == Some("1") {
                wanted.insert(key, "0".to_owned());
            }
        }
    }
}

fn value<'a>(node: &Node<'a>, key: &str) -> Option<&'a str> {
    node.around.sysctls.get(key).map(String::as_str)
}

/// The settings as they were before us, without those that go with our devices. What somebody
/// else has changed since is not ours to put back.
pub(super) fn before_us(store: &Content, observed: &Observed) -> BeforeUs {
    let ours: Vec<String> = observed
        .objects
        .links
        .keys()
        .flat_map(|id| Family::ALL.map(|family| of_device(family, id.name, "")))
        .collect();
    let stays = |key: &str| {
        observed.around.sysctls.contains_key(key)
            && !ours.iter().any(|device| key.starts_with(device))
    };
    let is_as_we_left_it = |key: &str| {
        let now = observed.around.sysctls.get(key);
        now.is_some_and(|now| now == as_we_set(key))
    };
    let before = store.sysctls.iter().filter(|(key, _)| stays(key));
    let (ours, theirs): (Vec<_>, Vec<_>) = before.partition(|(key, _)| is_as_we_left_it(key));
    let owned = |(key, value): (&String, &String)| (key.clone(), value.clone());
    BeforeUs {
        put_back: ours.into_iter().map(owned).collect(),
        left: theirs
            .into_iter()
            .filter(|(key, before)| observed.around.sysctls.get(*key) != Some(*before))
            .map(|(key, before)| {
                let now = observed.around.sysctls.get(key).map_or("", String::as_str);
                format!(
                    "setting {key} is {now} since somebody else changed it; it was {before} before \
                     this instance, which leaves it alone"
                )
            })
            .collect(),
    }
}

/// The settings as they were before us.
pub(super) struct BeforeUs {
    /// Those that are still as we set them, with the value that they had.
    pub(super) put_back: BTreeMap<String, String>,
    /// A sentence for each that somebody else has changed since.
    pub(super) left: Vec<String>,
}

/// The value that we give a setting of the node, or of a device that is not ours.
fn as_we_set(key: &str) -> &'static str {
    let setting = key.rsplit('/').next();
    if matches!(setting, Some("rp_filter" | ROUTER_ADVERTISEMENTS)) {
        LISTEN_OR_LOOSE
    } else {
        FORWARDS
    }
}
