//! Direct routing: each node knows behind whom the other containers are.

use super::sysctl;
use crate::{
    script::{Section, Step},
    topology::{Node, Topology},
};

pub(super) fn section(topology: &Topology, node: &Node) -> Section {
    let routes = topology.peers_of(node).map(|peer| {
        Step::run(format!(
            "ip -n {} route add {} via {}",
            node.namespace, peer.subnet, peer.underlay
        ))
    });
    Section::new(
        format!(
            "{} forwards, and routes to the other nodes' containers",
            node.namespace
        ),
        std::iter::once(sysctl(node, "net.ipv4.ip_forward=1")).chain(routes),
    )
}
