//! A bridge that is the gateway of the containers on it.

use crate::{
    script::{Section, Step},
    topology::Node,
};

/// The bridge and its containers, with this MTU when it is not the device's own.
pub(super) fn section(node: &Node, mtu: Option<u16>) -> Section {
    let (host, length) = (&node.namespace, node.subnet.length);
    let gateway = node.subnet.host(1);
    let mtu = mtu.map_or_else(String::new, |mtu| format!(" mtu {mtu}"));
    let bridge = [
        format!("ip -n {host} link add br0{mtu} type bridge"),
        format!("ip -n {host} addr add {gateway}/{length} dev br0"),
        format!("ip -n {host} link set br0 up"),
    ];
    let containers = node.containers.iter().flat_map(|container| {
        let (namespace, address) = (&container.namespace, container.address);
        let veth = format!("veth{}", container.number);
        [
            format!("ip netns add {namespace}"),
            format!(
                "ip link add eth0 netns {namespace}{mtu} type veth peer name {veth} netns {host}{mtu}"
            ),
            format!("ip -n {host} link set {veth} master br0 up"),
            format!("ip -n {namespace} addr add {address}/{length} dev eth0"),
            format!("ip -n {namespace} link set lo up"),
            format!("ip -n {namespace} link set eth0 up"),
            format!("ip -n {namespace} route add default via {gateway}"),
        ]
    });
    Section::new(
        format!("A bridge on {host}, the gateway of its containers"),
        bridge.into_iter().chain(containers).map(Step::run),
    )
}
