//! The kernel's VXLAN device, set up as flannel sets it up.

use super::{bridge, forward};
use crate::{
    families::Family,
    script::{Section, Step},
    topology::{Node, Topology, UNDERLAY, VNI},
};

/// A node with the kernel's means alone.
pub(super) fn sections(topology: &Topology, node: &Node) -> Vec<Section> {
    let mut sections = vec![
        bridge::section(node, topology.shape.inside, Some(topology.vxlan_mtu(node))),
        forward(topology, node),
    ];
    let tunnels = topology.tunnels(node);
    sections.extend(
        tunnels
            .into_iter()
            .map(|tunnel| device(topology, node, tunnel)),
    );
    sections
}

/// flannel's name for the device of this VNI on an underlay of a family.
pub const fn device_name(tunnel: Family) -> &'static str {
    match tunnel {
        Family::V4 => "flannel.1",
        Family::V6 => "flannel-v6.1",
    }
}

/// The device of one underlay family, and all peers that are reached over it.
fn device(topology: &Topology, node: &Node, tunnel: Family) -> Section {
    let (host, name, inside) = (
        &node.namespace,
        device_name(tunnel),
        topology.shape.inside.all(),
    );
    // overlay's fast path sends IPv6 without a UDP checksum (RFC 6935).
    let accepts = match tunnel {
        Family::V4 => "",
        Family::V6 => " udp6zerocsumrx",
    };
    let mut lines = vec![format!(
        "ip -n {host} link add {name} address {mac} mtu {mtu} type vxlan id {VNI} \
         local {local} dev {UNDERLAY} dstport {port} nolearning{accepts}",
        mac = node.vtep_mac(tunnel),
        mtu = topology.vxlan_mtu(node),
        local = node.underlay_at(tunnel),
        port = topology.port(),
    )];
    lines.extend(bases(topology, node, name));
    lines.push(format!("ip -n {host} link set {name} up"));
    let peers = topology
        .peers_of(node)
        .filter(|peer| topology.tunnel(node, peer) == tunnel);
    for peer in peers {
        let (mac, underlay) = (peer.vtep_mac(tunnel), peer.underlay_at(tunnel));
        lines.push(format!(
            "bridge -n {host} fdb append {mac} dev {name} dst {underlay}"
        ));
        lines.extend(ways(node, peer, tunnel, inside, name));
    }
    Section::new(
        format!("A VXLAN device on {host}; for each peer a neighbour, its VTEP and a route"),
        lines.into_iter().map(Step::run),
    )
}

/// The commands that give a node's tunnel device the first address of its subnets.
pub(super) fn bases(
    topology: &Topology,
    node: &Node,
    device: &str,
) -> impl Iterator<Item = String> {
    let base = |&family: &Family| match family {
        Family::V4 => format!("{}/32", node.subnet.base),
        Family::V6 => format!("{}/128 nodad", node.subnet6.base),
    };
    let bases = topology.shape.inside.all().iter().map(base);
    bases.map(move |base| format!("ip -n {} addr add {base} dev {device}", node.namespace))
}

/// The commands that lead to a peer's containers: a neighbour that stands for the peer, and
/// a route through it, for each family.
pub(super) fn ways(
    node: &Node,
    peer: &Node,
    tunnel: Family,
    inside: &[Family],
    device: &str,
) -> impl Iterator<Item = String> {
    let (host, mac) = (&node.namespace, peer.vtep_mac(tunnel));
    inside.iter().flat_map(move |&family| {
        let (base, subnet) = (peer.base_at(family), peer.subnet_at(family));
        [
            format!("ip -n {host} neigh add {base} lladdr {mac} dev {device} nud permanent"),
            format!("ip -n {host} route add {subnet} via {base} dev {device} onlink"),
        ]
    })
}
