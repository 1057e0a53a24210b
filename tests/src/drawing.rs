//! The tutorial's drawings, made of the lab's description of its nodes and containers.

use std::fmt::Write as _;

use crate::{
    shape::{Scenario, Shape, ShapeError},
    topology::{Container, Node, Topology, UNDERLAY},
};

/// The steps of the tutorial, each the name of a page and of its drawing.
pub const STEPS: [&str; 8] = [
    "1-container",
    "2-cable",
    "3-bridge",
    "4-routes",
    "5-tunnel",
    "6-vxlan",
    "7-store",
    "8-ebpf",
];

const NODE: Size = Size {
    width: 330,
    height: 270,
};
const CONTAINER: Size = Size {
    width: 140,
    height: 56,
};
/// Between two nodes, and around them all.
const GAP: usize = 150;
const MARGIN: usize = 20;
/// Where a node's bridge, its tunnel's device and its interface to the underlay are.
const BRIDGE: usize = 155;
const TUNNEL: usize = 205;
const BOTTOM: usize = 250;

#[derive(Clone, Copy)]
struct Size {
    width: usize,
    height: usize,
}

/// How the nodes of a step are joined.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// There is one node, and a cable in it.
    Alone,
    /// There is one node, with a bridge.
    Bridge,
    Routes,
    /// By devices of this name, in packets of this kind.
    Tunnel(&'static str, &'static str),
}

struct Step {
    topology: Topology,
    way: Way,
    /// Whether the parts that programs skip are drawn, too.
    fast: bool,
    /// The box between the nodes, such as a store.
    store: Option<&'static str>,
}

/// The drawing of a step, as SVG; none of another name.
pub fn of(step: &str) -> Option<String> {
    Some(draw(&described(step)?))
}

fn described(step: &str) -> Option<Step> {
    const VXLAN: Way = Way::Tunnel("vxlan1", "VXLAN: UDP 4789, VNI 1, MTU 1450");
    let (scenario, way) = match step {
        "1-container" | "2-cable" => (Scenario::Single, Way::Alone),
        "3-bridge" => (Scenario::Bridge, Way::Bridge),
        "4-routes" => (Scenario::Direct, Way::Routes),
        "5-tunnel" => (Scenario::Tun, Way::Tunnel("tun0", "UDP 9000, MTU 1472")),
        // The addresses stay those of the steps before.
        "6-vxlan" | "7-store" => (Scenario::Direct, VXLAN),
        "8-ebpf" => (
            Scenario::Direct,
            Way::Tunnel("ovl1", "VXLAN: UDP 4789, VNI 1, MTU 1450"),
        ),
        _ => return None,
    };
    let mut topology = named(scenario).ok()?;
    if step == "1-container" {
        topology.nodes.iter_mut().for_each(|node| node.number = 0);
    }
    Some(Step {
        topology,
        way,
        fast: step == "8-ebpf",
        store: (step == "7-store").then_some("etcd"),
    })
}

/// A lab whose namespaces have the tutorial's names; its second node has one container.
fn named(scenario: Scenario) -> Result<Topology, ShapeError> {
    let mut topology = Topology::new(Shape::usual("lab", scenario)?);
    let mut containers = 0;
    for node in &mut topology.nodes {
        node.namespace = format!("n{}", node.number);
        if node.number > 1 {
            node.containers.truncate(1);
        }
        for container in &mut node.containers {
            containers += 1;
            container.namespace = format!("c{containers}");
        }
    }
    Ok(topology)
}

fn draw(step: &Step) -> String {
    let nodes = &step.topology.nodes;
    let width = 2 * MARGIN + nodes.len() * NODE.width + (nodes.len() - 1) * GAP;
    let height = 2 * MARGIN + NODE.height;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" font-family=\"sans-serif\" font-size=\"13\" text-anchor=\"middle\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>\n"
    );
    if nodes.len() > 1 {
        between(&mut svg, step);
    }
    for (index, node) in nodes.iter().enumerate() {
        let left = MARGIN + index * (NODE.width + GAP);
        draw_node(&mut svg, step, node, left);
    }
    svg += "</svg>\n";
    svg
}

fn rect(svg: &mut String, (x, y): (usize, usize), size: Size, fill: &str, stroke: &str) {
    put(
        svg,
        format_args!(
            "<rect x=\"{x}\" y=\"{y}\" width=\"{}\" height=\"{}\" rx=\"6\" fill=\"{fill}\" stroke=\"{stroke}\"/>",
            size.width, size.height
        ),
    );
}

fn line(svg: &mut String, from: (usize, usize), to: (usize, usize), style: &str) {
    put(
        svg,
        format_args!(
            "<line x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\" {style}/>",
            from.0, from.1, to.0, to.1
        ),
    );
}

fn text(svg: &mut String, (x, y): (usize, usize), words: &str) {
    put(
        svg,
        format_args!("<text x=\"{x}\" y=\"{y}\">{words}</text>"),
    );
}

fn put(svg: &mut String, element: std::fmt::Arguments<'_>) {
    // A string takes everything.
    let _ = writeln!(svg, "{element}");
}

const CABLE: &str = "stroke=\"#555\" stroke-width=\"2\"";
const PIPE: &str = "stroke=\"#f0b060\" stroke-width=\"14\"";
const SHORT: &str = "stroke=\"#c03030\" stroke-width=\"2\" stroke-dasharray=\"6 4\"";

/// The cable between two nodes, and what is in it.
fn between(svg: &mut String, step: &Step) {
    let (from, to) = (MARGIN + NODE.width, MARGIN + NODE.width + GAP);
    let (middle, bottom) = (usize::midpoint(from, to), MARGIN + BOTTOM);
    if let Way::Tunnel(_, kind) = step.way {
        let level = MARGIN + TUNNEL;
        line(svg, (from - 60, level), (to + 60, level), PIPE);
        for (row, words) in kind.split(", ").enumerate() {
            text(svg, (middle, level - 48 + 15 * row), words);
        }
    }
    line(svg, (from - 60, bottom), (to + 60, bottom), CABLE);
    text(svg, (middle, bottom + 16), "underlay");
    if let Some(store) = step.store {
        let size = Size {
            width: 80,
            height: 34,
        };
        let top = MARGIN + 30;
        line(svg, (from - 10, top + 60), (middle, top + 17), CABLE);
        line(svg, (to + 10, top + 60), (middle, top + 17), CABLE);
        rect(svg, (middle - 40, top), size, "#e4f4e4", "#308030");
        text(svg, (middle, top + 22), store);
    }
}

fn draw_node(svg: &mut String, step: &Step, node: &Node, left: usize) {
    rect(svg, (left, MARGIN), NODE, "#f4f6fa", "#8090b0");
    let title = match node.number {
        0 => "node: one kernel",
        _ => &format!("node {}", node.namespace),
    };
    text(svg, (left + NODE.width / 2, MARGIN + 20), title);
    let (bridge, under) = ((left + 20, MARGIN + BRIDGE), left + NODE.width - 60);
    let mut middles = Vec::new();
    for (index, container) in node.containers.iter().enumerate() {
        let at = (left + 20 + index * (CONTAINER.width + 10), MARGIN + 34);
        let middle = at.0 + CONTAINER.width / 2;
        middles.push(middle);
        draw_container(svg, node, container, at);
        if node.number > 0 {
            line(
                svg,
                (middle, at.1 + CONTAINER.height),
                (middle, bridge.1),
                CABLE,
            );
        }
    }
    if node.number == 0 {
        for (row, words) in ["other processes", "their files, their network"]
            .iter()
            .enumerate()
        {
            text(svg, (left + NODE.width / 2, MARGIN + 170 + 18 * row), words);
        }
        return;
    }
    let (width, name) = match step.way {
        Way::Alone => (CONTAINER.width, "veth1"),
        _ => (NODE.width - 40, "br0"),
    };
    let name = if step.fast { "ovlbr1" } else { name };
    let gateway = node.subnet.host(1);
    let middle = bridge.0 + width / 2;
    rect(
        svg,
        bridge,
        Size { width, height: 26 },
        "#dde8f8",
        "#5070a0",
    );
    text(svg, (middle, bridge.1 + 18), &format!("{name} {gateway}"));
    if step.topology.nodes.len() < 2 {
        return;
    }
    let inner = if node.number == 1 { under - 20 } else { left };
    if let Way::Tunnel(device, _) = step.way {
        let at = (inner, MARGIN + TUNNEL - 12);
        rect(
            svg,
            at,
            Size {
                width: 80,
                height: 24,
            },
            "#fde8c8",
            "#b07020",
        );
        text(svg, (at.0 + 40, at.1 + 17), device);
    }
    let outer = Size {
        width: 130,
        height: 26,
    };
    let at = (
        if node.number == 1 { inner - 50 } else { inner },
        MARGIN + BOTTOM - 14,
    );
    rect(svg, at, outer, "#fff", "#555");
    text(
        svg,
        (at.0 + 65, at.1 + 18),
        &format!("{UNDERLAY} {}", node.underlay),
    );
    if step.fast
        && let Some(&from) = middles.first()
    {
        let bottom = MARGIN + 34 + CONTAINER.height;
        line(svg, (from + 30, bottom), (at.0 + 40, at.1), SHORT);
        text(svg, (left + NODE.width / 2, MARGIN + 138), "programs");
    }
}

fn draw_container(svg: &mut String, node: &Node, container: &Container, at: (usize, usize)) {
    rect(svg, at, CONTAINER, "#fff", "#5070a0");
    let middle = at.0 + CONTAINER.width / 2;
    let (first, second) = match node.number {
        0 => (
            "namespaces, cgroup".to_owned(),
            "a root of its own".to_owned(),
        ),
        _ => (
            container.namespace.clone(),
            format!("eth0 {}", container.address),
        ),
    };
    text(svg, (middle, at.1 + 23), &first);
    text(svg, (middle, at.1 + 42), &second);
}
