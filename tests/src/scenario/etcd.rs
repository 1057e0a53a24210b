//! overlay's agent on every node, and etcd, which alone tells them of each other.

use std::path::Path;

use serde::Serialize;

use super::agents;
use crate::{
    config::{Endpoint, NodeSection},
    families::Family,
    script::{Section, Step, inside, words},
    state,
    topology::{Node, Topology, UNDERLAY},
};

/// Where flannel's keys begin, and ours.
pub const PREFIX: &str = "/coreos.com/network";

/// A whole file: neither network nor peer is in it.
#[derive(Serialize)]
struct Config {
    node: NodeSection,
    cluster: Cluster,
    endpoints: Vec<Endpoint>,
}

#[derive(Serialize)]
struct Cluster {
    etcd: Vec<String>,
    network: String,
    subnet: Vec<String>,
}

pub(super) fn sections(topology: &Topology, agent: &Path) -> Vec<Section> {
    let nodes = || topology.nodes.iter();
    let file = |node: &Node| state::config_file(&topology.shape.name, &node.namespace);
    let ask = |node: &Node, arguments: &str| Step::Await {
        argv: agents::argv(
            agent,
            &words(arguments)
                .iter()
                .map(String::as_str)
                .collect::<Vec<_>>(),
        ),
        task: node.namespace.clone(),
    };
    let first = members(topology).first().map(|node| {
        let config = file(node);
        let init = format!(
            "{} cluster init --config {} --cidr {}",
            agent.display(),
            config.display(),
            topology.networks().join(" --cidr6 ")
        );
        Step::Await {
            argv: words(inside(&node.namespace, init)),
            task: task(node),
        }
    });
    vec![
        Section::new(
            "Maps and programs are pinned in the BPF file system; most machines have it mounted",
            [Step::Run(
                ["sh", "-c", agents::MOUNT_BPFFS]
                    .map(str::to_owned)
                    .to_vec(),
            )],
        ),
        state::section(&topology.shape.name),
        Section::new(
            "Each agent's configuration says where etcd is, and nothing of other nodes",
            nodes().map(|node| Step::Write {
                path: file(node),
                text: config(topology, node, None),
            }),
        ),
        Section::new(
            "The members of etcd: one can be missed of three",
            members(topology).iter().map(|node| start(topology, node)),
        ),
        Section::new(
            "The network is written into etcd once, as soon as that answers",
            first,
        ),
        Section::new(
            "An agent on each node gets its subnet and its peers from there",
            nodes().map(|node| agents::start(topology, node, agent)),
        ),
        Section::new(
            "It is ready when its status is good",
            nodes().map(|node| ask(node, &format!("status --instance {}", node.namespace))),
        ),
        Section::new(
            "and when it knows all others",
            nodes().map(|node| knows_all(topology, node, agent)),
        ),
    ]
}

fn knows_all(topology: &Topology, node: &Node, agent: &Path) -> Step {
    let script = format!(
        "test $({} peer list --output json --instance {} | grep -c '\"vtep\"') -eq {}",
        agent.display(),
        node.namespace,
        topology.nodes.len() - 1
    );
    Step::Await {
        argv: vec!["sh".to_owned(), "-c".to_owned(), script],
        task: node.namespace.clone(),
    }
}

/// The nodes that have a member of etcd: three where there are as many, else one.
pub fn members(topology: &Topology) -> &[Node] {
    let count = if topology.nodes.len() < 3 { 1 } else { 3 };
    &topology.nodes[..count.min(topology.nodes.len())]
}

/// The URLs of all members.
pub fn urls(topology: &Topology) -> Vec<String> {
    let members = members(topology).iter();
    members.map(|node| url(node, 2379)).collect()
}

fn url(node: &Node, port: u16) -> String {
    format!("http://{}:{port}", node.underlay_at(Family::V4))
}

/// Name of a node's member as a process of the lab.
pub fn task(node: &Node) -> String {
    format!("etcd-{}", node.namespace)
}

/// The command that starts the member on a node.
pub fn start(topology: &Topology, node: &Node) -> Step {
    let name = &topology.shape.name;
    let all: Vec<String> = members(topology)
        .iter()
        .map(|member| format!("{}={}", member.namespace, url(member, 2380)))
        .collect();
    let (clients, peers) = (url(node, 2379), url(node, 2380));
    let data = state::folder(name).join(task(node));
    let command = format!(
        "etcd --name {} --data-dir {} --listen-client-urls {clients} --advertise-client-urls {clients} \
         --listen-peer-urls {peers} --initial-advertise-peer-urls {peers} --initial-cluster {} --log-level warn",
        node.namespace,
        data.display(),
        all.join(","),
    );
    Step::Start {
        task: task(node),
        argv: words(inside(&node.namespace, command)),
        log: state::log_file(name, &task(node)),
    }
}

/// The configuration of a node's agent, with how often it probes its peers. Its subnet is asked for, so
/// that the lab knows its addresses beforehand.
#[expect(
    clippy::missing_panics_doc,
    clippy::expect_used,
    reason = "strings, lists and tables are all that TOML knows, and all that is here"
)]
pub fn config(topology: &Topology, node: &Node, probe: Option<&'static str>) -> String {
    let families = topology.shape.inside.all().iter();
    let config = Config {
        node: NodeSection {
            name: node.namespace.clone(),
            underlay: UNDERLAY.to_owned(),
            probe,
            ..NodeSection::default()
        },
        cluster: Cluster {
            etcd: urls(topology),
            network: "lab".to_owned(),
            subnet: families.map(|&family| node.subnet_at(family)).collect(),
        },
        endpoints: agents::endpoints(topology, node),
    };
    toml::to_string(&config).expect("a configuration is TOML")
}
