//! The machines, the cable between them, and where each has its VTEP.

use std::net::IpAddr;

use crate::{
    families::{Families, Family},
    script::{Section, Step, inside, words},
    state,
    topology::{Node, TUN_MTU, Topology, UNDERLAY, UNDERLAY_MTU, UNDERLAY6_LENGTH},
    uplink::Uplink,
};

/// The UDP port of both ends of the tunnel that a TUN device stands for.
const VPN_PORT: u16 = 9001;

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
    let mut sections = vec![
        Section::new("Each node is a network namespace", made),
        joined,
    ];
    let each =
        |steps: &dyn Fn(&Node) -> Vec<Step>| nodes.iter().flat_map(steps).collect::<Vec<_>>();
    let (uplink, families) = (topology.shape.uplink, topology.shape.underlay);
    match uplink {
        Uplink::Card => {}
        Uplink::Bridge | Uplink::Macvlan | Uplink::Vlan | Uplink::Bond => {
            sections.push(Section::new(
                format!("Each node has a {uplink} on its card"),
                each(&|node| on_card(uplink, node)),
            ));
        }
        Uplink::Lo | Uplink::Tun => sections.push(Section::new(
            "Each node's card has an address that is not the VTEP",
            each(&|node| {
                // The VPN runs over IPv4, whatever is inside.
                let families = if uplink == Uplink::Tun {
                    Families::V4
                } else {
                    families
                };
                with_addresses(topology, node, UNDERLAY, families, Node::link_at)
            }),
        )),
    }
    if uplink == Uplink::Tun {
        sections.push(state::section(&topology.shape.name));
        sections.push(Section::new(
            "A TUN device of each node is a tunnel to the other one",
            each(&|node| vpn(topology, node)),
        ));
    }
    sections.push(if uplink == Uplink::Lo {
        Section::new(
            "Each node has its VTEP on the loopback, and a route to each other one",
            each(&|node| on_loopback(topology, node)),
        )
    } else {
        Section::new(
            "Each node has an address on the underlay",
            each(&|node| {
                with_addresses(topology, node, uplink.device(), families, Node::underlay_at)
            }),
        )
    });
    sections
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

/// What stands on a node's card.
fn on_card(uplink: Uplink, node: &Node) -> Vec<Step> {
    let device = uplink.device();
    let joins = format!("link set {UNDERLAY} master {device}");
    let commands = match uplink {
        Uplink::Bridge => vec![format!("link add {device} type bridge"), joins],
        Uplink::Bond => vec![
            format!("link add {device} type bond mode active-backup miimon 100"),
            joins,
        ],
        Uplink::Macvlan => vec![format!(
            "link add {device} link {UNDERLAY} type macvlan mode bridge"
        )],
        Uplink::Vlan => vec![format!(
            "link add {device} link {UNDERLAY} type vlan id 100"
        )],
        Uplink::Card | Uplink::Lo | Uplink::Tun => Vec::new(),
    };
    let up = format!("link set {UNDERLAY} up");
    commands
        .into_iter()
        .chain([up])
        .map(|command| Step::run(format!("ip -n {} {command}", node.namespace)))
        .collect()
}

/// A device with a node's addresses.
fn with_addresses(
    topology: &Topology,
    node: &Node,
    device: &str,
    families: Families,
    address: impl Fn(&Node, Family) -> IpAddr,
) -> Vec<Step> {
    let namespace = &node.namespace;
    let given = families.all().iter().map(|&family| {
        let address = address(node, family);
        match family {
            Family::V4 => format!("{address}/{}", topology.underlay_length),
            // Nobody else has it: it need not be asked for before it is used.
            Family::V6 => format!("{address}/{UNDERLAY6_LENGTH} nodad"),
        }
    });
    let mut steps = vec![Step::run(format!("ip -n {namespace} link set lo up"))];
    steps
        .extend(given.map(|address| {
            Step::run(format!("ip -n {namespace} addr add {address} dev {device}"))
        }));
    steps.push(Step::run(format!("ip -n {namespace} link set {device} up")));
    steps
}

/// The node's VTEP on its loopback, and the ways to the others'.
fn on_loopback(topology: &Topology, node: &Node) -> Vec<Step> {
    let families = topology.shape.underlay.all().iter();
    let commands = families.flat_map(|&family| {
        let own = node.underlay_at(family);
        let length = match family {
            Family::V4 => 32,
            Family::V6 => 128,
        };
        let routes = topology.peers_of(node).map(move |peer| {
            format!(
                "route add {}/{length} via {} src {own}",
                peer.underlay_at(family),
                peer.link_at(family)
            )
        });
        std::iter::once(format!("addr add {own}/{length} dev lo")).chain(routes)
    });
    commands
        .map(|command| Step::run(format!("ip -n {} {command}", node.namespace)))
        .collect()
}

/// A TUN device whose packets socat carries in UDP, as the programs of VPNs do.
fn vpn(topology: &Topology, node: &Node) -> Vec<Step> {
    let (namespace, device) = (&node.namespace, Uplink::Tun.device());
    let here = node.link;
    let each = topology.peers_of(node).flat_map(|peer| {
        let there = peer.link;
        let task = format!("{namespace}-vpn");
        let socat = format!(
            "socat UDP4-DATAGRAM:{there}:{VPN_PORT},bind={here}:{VPN_PORT},range={there}/32 \
             TUN,tun-name={device},iff-no-pi"
        );
        [
            Step::Start {
                log: state::folder(&topology.shape.name).join(format!("{task}.log")),
                argv: words(inside(namespace, socat)),
                task: task.clone(),
            },
            Step::Await {
                argv: words(format!("ip -n {namespace} link set {device} mtu {TUN_MTU}")),
                task,
            },
        ]
    });
    each.collect()
}
