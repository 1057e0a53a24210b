//! The machines and the cable between them.

use crate::{
    families::Family,
    script::{Section, Step},
    topology::{Node, Topology, UNDERLAY, UNDERLAY_MTU, UNDERLAY6_LENGTH},
};

pub(super) fn sections(topology: &Topology) -> Vec<Section> {
    let nodes = &topology.nodes;
    let made = nodes
        .iter()
        .map(|node| Step::run(format!("ip netns add {}", node.namespace)));
    let joined = match (topology.switch(), nodes.as_slice()) {
        (None, [one, other]) => Section::new(
            "A cable joins the two nodes",
            [Step::run(format!(
                "ip link add {UNDERLAY} netns {} mtu {UNDERLAY_MTU} type veth peer name {UNDERLAY} \
                 netns {} mtu {UNDERLAY_MTU}",
                one.namespace, other.namespace
            ))],
        ),
        (switch, _) => switched(
            &switch.unwrap_or_else(|| topology.shape.name.switch()),
            nodes,
        ),
    };
    vec![
        Section::new("Each node is a network namespace", made),
        joined,
        Section::new(
            "Each node has an address on the underlay",
            nodes.iter().flat_map(|node| addresses(topology, node)),
        ),
    ]
}

fn switched(switch: &str, nodes: &[Node]) -> Section {
    let made = [
        Step::run(format!("ip netns add {switch}")),
        Step::run(format!(
            "ip -n {switch} link add switch mtu {UNDERLAY_MTU} type bridge"
        )),
        Step::run(format!("ip -n {switch} link set switch up")),
    ];
    let cables = nodes.iter().flat_map(|node| {
        let (namespace, port) = (&node.namespace, format!("n{}", node.number));
        [
            Step::run(format!(
                "ip link add {UNDERLAY} netns {namespace} mtu {UNDERLAY_MTU} type veth peer name \
                 {port} netns {switch} mtu {UNDERLAY_MTU}"
            )),
            Step::run(format!("ip -n {switch} link set {port} master switch up")),
        ]
    });
    Section::new(
        "A switch in a namespace of its own joins the nodes",
        made.into_iter().chain(cables),
    )
}

fn addresses(topology: &Topology, node: &Node) -> Vec<Step> {
    let namespace = &node.namespace;
    let address = |&family: &Family| {
        let address = node.underlay_at(family);
        match family {
            Family::V4 => format!("{address}/{}", topology.underlay_length),
            // Nobody else has it: it need not be asked for before it is used.
            Family::V6 => format!("{address}/{UNDERLAY6_LENGTH} nodad"),
        }
    };
    let given = topology.shape.underlay.all().iter().map(address);
    let mut steps = vec![Step::run(format!("ip -n {namespace} link set lo up"))];
    steps.extend(given.map(|address| {
        Step::run(format!(
            "ip -n {namespace} addr add {address} dev {UNDERLAY}"
        ))
    }));
    steps.push(Step::run(format!(
        "ip -n {namespace} link set {UNDERLAY} up"
    )));
    steps
}
