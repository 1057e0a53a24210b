//! A bridge that is the gateway of the containers on it.

use std::net::IpAddr;

use crate::{
    families::{Families, Family},
    script::{Section, Step},
    topology::{Container, Node},
};

/// The bridge and its containers, with this MTU when it is not the device's own.
pub(super) fn section(node: &Node, inside: Families, mtu: Option<u16>) -> Section {
    let host = &node.namespace;
    let mtu = mtu.map_or_else(String::new, |mtu| format!(" mtu {mtu}"));
    let mut bridge = vec![format!("ip -n {host} link add br0{mtu} type bridge")];
    for (family, gateway) in gateways(node, inside) {
        let gateway = on_subnet(node, family, gateway);
        bridge.push(format!("ip -n {host} addr add {gateway} dev br0"));
    }
    bridge.push(format!("ip -n {host} link set br0 up"));
    let containers = node
        .containers
        .iter()
        .flat_map(|container| attach(node, container, inside, &mtu));
    Section::new(
        format!("A bridge on {host}, the gateway of its containers"),
        bridge.into_iter().chain(containers).map(Step::run),
    )
}

fn attach(node: &Node, container: &Container, inside: Families, mtu: &str) -> Vec<String> {
    let (host, namespace) = (&node.namespace, &container.namespace);
    let veth = format!("veth{}", container.number);
    let mut lines = vec![
        format!("ip netns add {namespace}"),
        format!(
            "ip link add eth0 netns {namespace}{mtu} type veth peer name {veth} netns {host}{mtu}"
        ),
        format!("ip -n {host} link set {veth} master br0 up"),
    ];
    for &family in inside.all() {
        let address = on_subnet(node, family, container.at(family));
        lines.push(format!("ip -n {namespace} addr add {address} dev eth0"));
    }
    lines.push(format!("ip -n {namespace} link set lo up"));
    lines.push(format!("ip -n {namespace} link set eth0 up"));
    for (_, gateway) in gateways(node, inside) {
        lines.push(format!("ip -n {namespace} route add default via {gateway}"));
    }
    lines
}

fn gateways(node: &Node, inside: Families) -> impl Iterator<Item = (Family, IpAddr)> {
    let gateway = |&family: &Family| Some((family, node.gateway_at(family)?));
    inside.all().iter().filter_map(gateway)
}

/// An address with the prefix length of the node's subnet; IPv6 is used at once, without
/// asking whether somebody else has it.
fn on_subnet(node: &Node, family: Family, address: IpAddr) -> String {
    match family {
        Family::V4 => format!("{address}/{}", node.subnet.length),
        Family::V6 => format!("{address}/{} nodad", node.subnet6.length),
    }
}
