//! The kernel's VXLAN device, set up as flannel sets it up.

use overlay_common::wire;

use super::{bridge, forward};
use crate::{
    script::{Section, Step},
    shape::Scenario,
    topology::{Node, Topology, UNDERLAY, VNI, VXLAN_MTU},
};

/// The kernel's own port number for VXLAN, older than IANA's; flannel's too.
const FLANNEL_PORT: u16 = 8472;
/// flannel's name for the device of this VNI.
const DEVICE: &str = "flannel.1";

/// A node with the kernel's means alone.
pub(super) fn sections(topology: &Topology, node: &Node) -> [Section; 3] {
    [
        bridge::section(node, Some(VXLAN_MTU)),
        forward(node),
        device(topology, node),
    ]
}

fn device(topology: &Topology, node: &Node) -> Section {
    let (host, underlay, base) = (&node.namespace, node.underlay, node.subnet.base);
    let port = match topology.shape.scenario {
        // The peer is an agent, which uses the number that IANA assigned.
        Scenario::Mixed => wire::IANA_PORT,
        _ => FLANNEL_PORT,
    };
    let made = [
        format!(
            "ip -n {host} link add {DEVICE} address {mac} mtu {VXLAN_MTU} type vxlan id {VNI} \
             local {underlay} dev {UNDERLAY} dstport {port} nolearning",
            mac = vtep_mac(node)
        ),
        format!("ip -n {host} addr add {base}/32 dev {DEVICE}"),
        format!("ip -n {host} link set {DEVICE} up"),
    ];
    let peers = topology.peers_of(node).flat_map(|peer| {
        let (gateway, mac) = (peer.subnet.base, vtep_mac(peer));
        [
            format!("ip -n {host} neigh add {gateway} lladdr {mac} dev {DEVICE} nud permanent"),
            format!(
                "bridge -n {host} fdb append {mac} dev {DEVICE} dst {}",
                peer.underlay
            ),
            format!(
                "ip -n {host} route add {} via {gateway} dev {DEVICE} onlink",
                peer.subnet
            ),
        ]
    });
    Section::new(
        format!("A VXLAN device on {host}; for each peer a neighbour, its VTEP and a route"),
        made.into_iter().chain(peers).map(Step::run),
    )
}

/// MAC of a node's VXLAN device, by overlay's rule, so that an agent can be its peer.
fn vtep_mac(node: &Node) -> String {
    let bytes = wire::vtep_mac(node.underlay.octets()).map(|byte| format!("{byte:02x}"));
    bytes.join(":")
}
