//! One container: a veth pair, a host route towards it and a default route back.

use crate::{
    script::{Section, Step},
    topology::Node,
};

pub(super) fn section(node: &Node) -> Section {
    let host = &node.namespace;
    let steps = node.containers.iter().flat_map(|container| {
        let (namespace, address) = (&container.namespace, container.address);
        let veth = format!("veth{}", container.number);
        [
            format!("ip netns add {namespace}"),
            format!("ip link add eth0 netns {namespace} type veth peer name {veth} netns {host}"),
            format!("ip -n {host} link set {veth} up"),
            format!("ip -n {host} route add {address}/32 dev {veth}"),
            format!("ip -n {namespace} addr add {address}/32 dev eth0"),
            format!("ip -n {namespace} link set lo up"),
            format!("ip -n {namespace} link set eth0 up"),
            format!("ip -n {namespace} route add default dev eth0"),
        ]
        .map(Step::run)
    });
    Section::new(
        format!("A container on {host}, at the end of a veth"),
        steps,
    )
}
