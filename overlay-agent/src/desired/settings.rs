//! Kernel settings, by path below `/proc/sys`.

use std::collections::{BTreeMap, BTreeSet};

use super::{Derived, Node, bridge_name, underlay, vxlan_name};
use crate::{
    model::{Family, IfName, Model, Network},
    store::Content,
    surroundings::{NodeLink, Observed},
};

const FORWARD4: &str = "net/ipv4/ip_forward";
const FORWARD6: &str = "net/ipv6/conf/all/forwarding";
const ROUTER_ADVERTISEMENTS: &str = "accept_ra";
const NO_IPV6: &str = "disable_ipv6";
const ASK_FOR_DUPLICATES: &str = "accept_dad";

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
    let devices = underlay
        .into_iter()
        .chain(model.networks.iter().flat_map(tunnels));
    let mut keys: BTreeSet<String> = devices.map(rp_filter).collect();
    keys.extend(["all", "default"].map(rp_filter));
    keys.insert(FORWARD4.to_owned());
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

/// The settings that the node needs.
pub(super) fn wanted(node: &Node<'_>, networks: &[Derived<'_>]) -> BTreeMap<String, String> {
    let mut wanted = BTreeMap::from([(FORWARD4.to_owned(), "1".to_owned())]);
    loosen_reverse_path_filters(node, networks, &mut wanted);
    if networks.iter().any(|derived| derived.network.has_ipv6()) {
        wanted.insert(FORWARD6.to_owned(), "1".to_owned());
        keep_router_advertisements(node, &mut wanted);
        allow_ipv6(node, networks, &mut wanted);
    }
    wanted
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
        .chain(tunnels.map(|tunnel| &tunnel.device));
    for name in asymmetric {
        let own = rp_filter(name);
        let inherited = || value(node, &rp_filter("default"));
        let effective = value(node, &rp_filter("all")).max(value(node, &own).or_else(inherited));
        if effective == Some("1") {
            wanted.insert(own, "2".to_owned());
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
            wanted.insert(key, "2".to_owned());
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

/// The settings as they were before us, without those that go with our devices.
pub(super) fn before_us(store: &Content, observed: &Observed) -> BTreeMap<String, String> {
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
    let before = store.sysctls.iter().filter(|(key, _)| stays(key));
    before
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}
