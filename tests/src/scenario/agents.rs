//! overlay's agent on a node: its configuration, its start and its end.

use std::path::Path;

use crate::{
    config::{Config, Endpoint, Network, NodeSection, Peer},
    script::{Section, Step},
    state,
    topology::{Container, Node, Topology, VNI},
    uplink::Uplink,
};

pub(super) const MOUNT_BPFFS: &str = "mountpoint -q /sys/fs/bpf || mount -t bpf bpf /sys/fs/bpf";

pub(super) fn sections(topology: &Topology, agent: &Path) -> Vec<Section> {
    let nodes = || {
        topology
            .nodes
            .iter()
            .filter(|node| topology.has_agent(node))
    };
    if nodes().next().is_none() {
        return Vec::new();
    }
    vec![
        Section::new(
            "Maps and programs are pinned in the BPF file system; most machines have it mounted",
            [Step::Run(
                ["sh", "-c", MOUNT_BPFFS].map(str::to_owned).to_vec(),
            )],
        ),
        state::section(&topology.shape.name),
        Section::new(
            "Each agent's configuration says who its peers and containers are",
            nodes().map(|node| Step::Write {
                path: state::config_file(&topology.shape.name, &node.namespace),
                text: config(topology, node).to_toml(),
            }),
        ),
        Section::new(
            "An agent on each node makes devices, routes and containers, and loads its programs",
            nodes().map(|node| start(topology, node, agent)),
        ),
        Section::new(
            "It is ready when its status is good",
            nodes().map(|node| Step::Await {
                argv: argv(agent, &["status", "--instance", &node.namespace]),
                task: node.namespace.clone(),
            }),
        ),
    ]
}

/// The configuration of a node's agent.
pub fn config(topology: &Topology, node: &Node) -> Config {
    let network = "lab".to_owned();
    let inside = || topology.shape.inside.all().iter();
    let subnet = |node: &Node| inside().map(|&family| node.subnet_at(family)).collect();
    let peers = topology.peers_of(node).map(|peer| Peer {
        name: peer.namespace.clone(),
        vtep: peer.underlay_at(topology.tunnel(node, peer)).to_string(),
        subnet: subnet(peer),
        // Somebody else's: nobody there answers probes.
        mac: (!topology.has_agent(peer)).then(|| peer.vtep_mac(topology.tunnel(node, peer))),
        ..Peer::default()
    });
    Config {
        node: NodeSection {
            name: node.namespace.clone(),
            underlay: topology.shape.uplink.device().to_owned(),
            vtep: own_vteps(topology, node),
            ..NodeSection::default()
        },
        networks: vec![Network {
            name: network.clone(),
            vni: VNI,
            port: topology.port(),
            cidr: topology.networks(),
            subnet: subnet(node),
            peers: peers.collect(),
            ..Network::default()
        }],
        endpoints: endpoints(topology, node),
    }
}

/// What a node cannot find out by its underlay's addresses: a VTEP that is on the loopback.
fn own_vteps(topology: &Topology, node: &Node) -> Vec<String> {
    if topology.shape.uplink != Uplink::Lo {
        return Vec::new();
    }
    let families = topology.tunnels(node).into_iter();
    families
        .map(|family| node.underlay_at(family).to_string())
        .collect()
}

/// The containers of a node, with the addresses that the lab gives them.
pub(super) fn endpoints(topology: &Topology, node: &Node) -> Vec<Endpoint> {
    let inside = || topology.shape.inside.all().iter();
    let endpoint = |container: &Container| Endpoint {
        name: container.namespace.clone(),
        network: "lab".to_owned(),
        netns: Some(container.namespace.clone()),
        address: inside()
            .map(|&family| container.at(family).to_string())
            .collect(),
        ..Endpoint::default()
    };
    node.containers.iter().map(endpoint).collect()
}

/// The command that starts a node's agent.
pub fn start(topology: &Topology, node: &Node, agent: &Path) -> Step {
    let config = state::config_file(&topology.shape.name, &node.namespace);
    let config = config.to_string_lossy();
    Step::Start {
        task: node.namespace.clone(),
        argv: argv(
            agent,
            &["run", "--config", &config, "--netns", &node.namespace],
        ),
        log: state::log_file(&topology.shape.name, &node.namespace),
    }
}

/// The command with which an agent removes all that is its own, whether it runs or not.
pub fn down(agent: &Path, instance: &str) -> Vec<String> {
    argv(agent, &["down", "--instance", instance])
}

pub(super) fn argv(agent: &Path, arguments: &[&str]) -> Vec<String> {
    let agent = agent.to_string_lossy().into_owned();
    std::iter::once(agent)
        .chain(arguments.iter().map(|&word| word.to_owned()))
        .collect()
}
