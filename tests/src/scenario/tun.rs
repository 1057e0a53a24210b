//! A tunnel in user space: socat carries IP packets from a TUN device in UDP.

use crate::{
    script::{Section, Step, inside, words},
    state,
    topology::{Node, TUN_MTU, Topology},
};

/// The UDP port of both ends.
const PORT: u16 = 9000;

pub(super) fn section(topology: &Topology) -> Section {
    let steps = topology.nodes.iter().flat_map(|node| {
        topology
            .peers_of(node)
            .flat_map(|peer| tunnel(topology, node, peer))
    });
    Section::new(
        format!("A UDP tunnel joins the containers; {TUN_MTU} bytes are what fits into it"),
        steps,
    )
}

fn tunnel(topology: &Topology, node: &Node, peer: &Node) -> [Step; 3] {
    let Node {
        namespace,
        underlay,
        ..
    } = node;
    let (address, length) = (node.subnet.host(100), topology.network.length);
    // A connected socket would end with its peer's first "port unreachable";
    // UDP4-DATAGRAM stays, and `range` makes it as choosy.
    let socat = format!(
        "socat UDP4-DATAGRAM:{remote}:{PORT},bind={underlay}:{PORT},range={remote}/32 \
         TUN:{address}/{length},tun-name=tun0,iff-up",
        remote = peer.underlay
    );
    let task = format!("{namespace}-socat");
    [
        Step::Start {
            log: state::folder(&topology.shape.name).join(format!("{task}.log")),
            argv: words(inside(namespace, socat)),
            task: task.clone(),
        },
        // The route is there when the device is up and has its address.
        Step::Await {
            argv: words(format!(
                "ip -n {namespace} route get {}",
                peer.subnet.host(1)
            )),
            task,
        },
        Step::run(format!("ip -n {namespace} link set tun0 mtu {TUN_MTU}")),
    ]
}
