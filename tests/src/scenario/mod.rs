//! The scenarios, each as the list of commands that builds it.

pub mod agents;
mod bridge;
pub mod container;
pub mod etcd;
pub mod openvswitch;
mod routes;
mod single;
mod tun;
mod underlay;
pub mod vxlan;

use std::path::Path;

use crate::{
    families::Family,
    lab,
    means::Means,
    script::{Script, Section, Step, inside},
    shape::Scenario,
    state,
    topology::{Node, Topology},
};

/// The commands that build a lab, on a machine that has none of it.
pub fn up(topology: &Topology, agent: &Path) -> Script {
    let mut script = underlay(topology);
    script.sections.extend(containers(topology, agent).sections);
    script
}

/// The first half of [`up`]: nodes that reach each other, and nothing else.
pub fn underlay(topology: &Topology) -> Script {
    Script {
        sections: underlay::sections(topology),
    }
}

/// The second half of [`up`]: what connects the containers.
pub fn containers(topology: &Topology, agent: &Path) -> Script {
    let mut sections = Vec::new();
    let nodes = &topology.nodes;
    let bridge = |node| bridge::section(node, topology.shape.inside, None);
    match topology.shape.scenario {
        Scenario::Single => sections.extend(nodes.iter().map(single::section)),
        Scenario::Bridge => sections.extend(nodes.iter().map(bridge)),
        Scenario::Direct => {
            sections.extend(nodes.iter().map(bridge));
            sections.extend(nodes.iter().map(|node| routes::section(topology, node)));
        }
        Scenario::Tun => {
            sections.extend(nodes.iter().map(bridge));
            sections.extend(nodes.iter().map(|node| forward(topology, node)));
            sections.push(state::section(&topology.shape.name));
            sections.push(tun::section(topology));
        }
        Scenario::Container => {
            let busybox = lab::busybox_program();
            sections.extend(container::sections(topology, &busybox, &Means::here()));
            sections.extend(agents::sections(topology, agent));
        }
        Scenario::Vxlan | Scenario::Overlay | Scenario::Mixed => {
            let kernel = nodes.iter().filter(|node| !topology.has_agent(node));
            sections.extend(kernel.flat_map(|node| vxlan::sections(topology, node)));
            sections.extend(agents::sections(topology, agent));
        }
        Scenario::Etcd => sections.extend(etcd::sections(topology, agent)),
    }
    Script { sections }
}

/// [`up`] of [`Scenario::Mixed`], with Open vSwitch in the place of the kernel's VXLAN.
pub fn up_beside_openvswitch(topology: &Topology, agent: &Path) -> Script {
    let mut sections = underlay::sections(topology);
    let others = topology
        .nodes
        .iter()
        .filter(|node| !topology.has_agent(node));
    sections.extend(others.flat_map(|node| openvswitch::sections(topology, node)));
    sections.extend(agents::sections(topology, agent));
    Script { sections }
}

/// The commands that take a lab down, the agents first: what is theirs they remove themselves.
pub fn down(topology: &Topology, agent: &Path) -> Script {
    let mut sections = Vec::new();
    if topology.shape.scenario.needs_agent() {
        sections.push(Section::new(
            "Each agent removes what it made: devices, containers, programs, maps",
            topology
                .instances()
                .map(|instance| Step::Run(agents::down(agent, instance))),
        ));
    }
    if topology.shape.scenario == Scenario::Container {
        sections.push(container::down(topology, &Means::here()));
    }
    sections.push(Section::new(
        "A namespace takes its devices, addresses and routes with it",
        topology
            .namespaces()
            .iter()
            .map(|name| Step::run(format!("ip netns del {name}"))),
    ));
    Script { sections }
}

/// A node forwards, and accepts what comes back on another interface than its route.
///
/// A container reaches another node's own address over the underlay; the answer comes
/// through the tunnel. The strict reverse-path filter would drop such packets, the
/// loose one (2, RFC 3704 §2.4) still drops sources that nobody has a route to.
fn forward(topology: &Topology, node: &Node) -> Section {
    let setting = |family: &Family| match family {
        Family::V4 => ["net.ipv4.ip_forward=1", "net.ipv4.conf.all.rp_filter=2"].as_slice(),
        Family::V6 => &["net.ipv6.conf.all.forwarding=1"],
    };
    let settings = topology.shape.inside.all().iter().flat_map(setting);
    Section::new(
        format!(
            "{} forwards, also what takes another way back",
            node.namespace
        ),
        settings.map(|setting| sysctl(node, setting)),
    )
}

fn sysctl(node: &Node, setting: &str) -> Step {
    Step::run(inside(
        &node.namespace,
        format_args!("sysctl -qw {setting}"),
    ))
}
