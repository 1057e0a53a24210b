//! A guide to a lab for its users: its members, how it was built, and what to try next.

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use overlay_common::maps;
use overlay_tests::{
    families::{Families, Family},
    means::Means,
    scenario::{self, container},
    script::{Script, Step, shell},
    shape::Scenario,
    state,
    topology::{Container, Node, Topology},
    uplink::Uplink,
};

use crate::setup::servers;

/// The scenario as a shell script; how to take it down stands at its end as a comment.
pub(super) fn explanation(topology: &Topology, agent: &Path, up: &Script) -> String {
    let shape = &topology.shape;
    let kill = |node: &Node| format!("ip netns pids {} | xargs -r kill\n", node.namespace);
    let kills = || topology.nodes.iter().map(kill).collect::<String>();
    let down = scenario::down(topology, agent);
    let end = match shape.scenario {
        Scenario::Tun => format!(
            "\n# The tunnels go with the processes that hold them\n{}{down}",
            kills()
        ),
        Scenario::Etcd => format!(
            "\n# etcd and the agents end first; what agents made stays for the next line\n{}{down}",
            kills()
        ),
        _ => down.to_string(),
    };
    let end: Vec<String> = end.lines().map(commented_out).collect();
    format!(
        "#!/bin/sh\n# {shape} ({})\nset -e\n{}\n# To take it down:\n{}\n",
        shape.scenario.about(),
        up,
        end.join("\n"),
    )
}

fn commented_out(line: &str) -> String {
    match line.strip_prefix("# ") {
        Some(title) => format!("# {title}:"),
        None if line.is_empty() => "#".to_owned(),
        None => format!("#   {line}"),
    }
}

/// Nodes, gateways and containers with their addresses, one a line.
pub(super) fn map(topology: &Topology) -> String {
    let of_node = |node: &Node| {
        let shape = &topology.shape;
        let gateway = |&family: &Family| node.gateway_at(family);
        let gateways = listed(shape.inside.all().iter().filter_map(gateway));
        let gateways = match gateways.as_str() {
            "" => String::new(),
            _ => format!(", gateway {gateways}"),
        };
        let underlay = |&family: &Family| node.underlay_at(family);
        let underlay = listed(shape.underlay.all().iter().map(underlay));
        let node_line = format!("  {:<12} {underlay}{gateways}\n", node.namespace);
        let container_lines = node.containers.iter().map(|container| {
            let addresses = shape
                .inside
                .all()
                .iter()
                .map(|&family| container.at(family));
            format!("    {:<10} {}\n", container.namespace, listed(addresses))
        });
        std::iter::once(node_line)
            .chain(container_lines)
            .collect::<String>()
    };
    topology.nodes.iter().map(of_node).collect()
}

fn listed(addresses: impl Iterator<Item = IpAddr>) -> String {
    let addresses: Vec<String> = addresses.map(|address| address.to_string()).collect();
    addresses.join(", ")
}

/// A purpose and the commands that serve it.
type Suggestion = (&'static str, Vec<String>);

/// Commands that show the lab at work.
pub(super) fn what_to_try(topology: &Topology, agent: &Path) -> String {
    let mut suggestions = traffic(topology);
    if let Some(instance) = topology.instances().next() {
        suggestions.extend(questions(topology, instance, agent));
        suggestions.extend(data_plane(instance, agent));
    }
    if topology.shape.scenario == Scenario::Etcd {
        suggestions.extend(cluster(topology, agent));
    }
    let name = &topology.shape.name;
    let scenario = topology.shape.scenario;
    let (underlay, uplink) = (topology.shape.underlay, topology.shape.uplink);
    let families = match (underlay, uplink, topology.shape.inside) {
        (Families::V4, Uplink::Card, Families::V4) => String::new(),
        (_, _, inside) => format!(" --underlay {underlay},{uplink} --inside {inside}"),
    };
    suggestions.push((
        "see how it was built; check again; end",
        vec![
            lab(
                topology,
                &format!("up --scenario {scenario}{families} --explain"),
            ),
            lab(topology, "check"),
            lab(topology, "down"),
        ],
    ));
    let texts = suggestions
        .into_iter()
        .map(|(purpose, commands)| format!("\n  {purpose}\n    {}\n", commands.join("\n    ")));
    format!(
        "Lab {name} stays up. Try next:\n{}{}",
        map(topology),
        texts.collect::<String>()
    )
}

fn lab(topology: &Topology, action: &str) -> String {
    match topology.shape.name.to_string().as_str() {
        "lab" => format!("cargo xtask lab {action}"),
        name => format!("cargo xtask lab {action} --name {name}"),
    }
}

fn traffic(topology: &Topology) -> Vec<Suggestion> {
    let (Some(first), Some(last)) = (topology.nodes.first(), topology.nodes.last()) else {
        return Vec::new();
    };
    let Some(to) = last.containers.last() else {
        return Vec::new();
    };
    // With a single container, its node is the only one who can call it.
    let from = first
        .containers
        .first()
        .filter(|from| from.namespace != to.namespace);
    let here = from.map_or(&first.namespace, |from| &from.namespace);
    let Some(&family) = topology.shape.inside.all().first() else {
        return Vec::new();
    };
    let (there, address) = (&to.namespace, to.at(family));
    let url = SocketAddr::new(address, 8080);

    let exec = |namespace: &str, command: &str| {
        format!(
            "{} -- {command}",
            lab(topology, &format!("exec {namespace}"))
        )
    };
    let listen = match family {
        Family::V4 => "TCP4-LISTEN",
        Family::V6 => "TCP6-LISTEN",
    };
    let serve = format!(
        "socat {listen}:8080,fork,reuseaddr \
         SYSTEM:'read request; echo HTTP/1.0 200 OK; echo; echo hello' &"
    );
    let mut suggestions = vec![
        (
            "reach a container",
            vec![exec(here, &format!("ping -c 3 {address}"))],
        ),
        (
            "measure",
            vec![
                exec(there, "iperf3 -s -D"),
                exec(here, &format!("iperf3 -c {address}")),
            ],
        ),
        (
            "serve a page, fetch it",
            vec![
                exec(there, &serve),
                exec(here, &format!("curl http://{url}/")),
            ],
        ),
    ];
    if topology.shape.scenario == Scenario::Container {
        suggestions.push(scratch(topology, from.unwrap_or(to), address));
    }
    if topology.nodes.len() > 1 {
        let tcpdump = format!("tcpdump -nvei {}", topology.shape.uplink.device());
        suggestions.push((
            "see what is on the wire",
            vec![exec(&first.namespace, &tcpdump)],
        ));
    }
    suggestions
}

/// Into a container that has more than a network namespace.
fn scratch(topology: &Topology, from: &Container, other: IpAddr) -> Suggestion {
    let first = container::first_process(topology, from);
    let limits = Means::here().limits().into_iter().map(|limit| {
        let file = container::cgroup(&limit.hierarchy, from).join(limit.file);
        file.display().to_string()
    });
    let limits: Vec<String> = limits.collect();
    (
        "go in; fetch another one's page there; see its limits",
        vec![
            format!("nsenter --target {first} --all sh"),
            format!(
                "nsenter --target {first} --all wget -q -O - http://{}/",
                SocketAddr::new(other, 80)
            ),
            format!("head {}", limits.join(" ")),
        ],
    )
}

/// What the agent answers, where its log is, and what it says of what somebody breaks.
fn questions(topology: &Topology, instance: &str, program: &Path) -> Vec<Suggestion> {
    let node = topology
        .nodes
        .iter()
        .find(|node| node.namespace == instance);
    let from = node.and_then(|node| node.containers.first());
    let to = topology
        .nodes
        .last()
        .and_then(|node| node.containers.last());
    let (Some(from), Some(to)) = (from, to) else {
        return Vec::new();
    };
    let Some(&family) = topology.shape.inside.all().first() else {
        return Vec::new();
    };
    let program = program.display();
    let agent = |command: &str| format!("{program} {command} --instance {instance}");
    let (from, to) = (&from.namespace, to.at(family));
    let log = state::log_file(&topology.shape.name, instance);
    let log = log.display();
    let on_node = |command: &str| format!("nsenter --net=/run/netns/{instance} {command}");
    vec![
        (
            "ask what becomes of a packet, whether one arrives, what is wrong, what is dropped",
            vec![
                agent(&format!("explain {from} {to}")),
                agent(&format!("ping {to} --from {from}")),
                agent("doctor"),
                agent("monitor --seconds 10"),
                agent("capture --write lab.pcapng --seconds 10"),
                format!("tail {log}"),
            ],
        ),
        (
            "break it: the agent repairs what is its own, and doctor has a cure for the rest",
            vec![
                format!("{}; sleep 2; tail -n 2 {log}", on_node("ip link del ovl1")),
                on_node(
                    "nft 'table inet fw { chain in { type filter hook input priority 0; \
                     udp dport 4789 drop; }; }'",
                ),
                agent("doctor"),
                on_node("nft delete table inet fw"),
            ],
        ),
    ]
}

fn data_plane(instance: &str, program: &Path) -> [Suggestion; 2] {
    // Below the instance is the number of the maps' layout; the shell finds it.
    let pin = |map: &str| format!("/sys/fs/bpf/overlay/{instance}/*/{map}");
    let program = program.display();
    let agent = |command: &str| format!("{program} {command} --instance {instance}");
    [
        (
            "look inside the data plane",
            vec![
                agent("status"),
                agent("stats"),
                agent("top"),
                format!("bpftool map dump pinned {}", pin(maps::PEERS4)),
                format!("bpftool map dump pinned {}", pin(maps::ENDPOINTS4)),
                format!(
                    "bpftool map lookup pinned {} key 1 0 0 0",
                    pin(maps::PEER_STATS)
                ),
            ],
        ),
        (
            "compare with the slow path, and come back",
            vec![agent("fastpath off"), agent("fastpath on")],
        ),
    ]
}

/// Suggestions about etcd and the nodes that follow it.
fn cluster(topology: &Topology, program: &Path) -> Vec<Suggestion> {
    let (Some(first), Some(last)) = (topology.nodes.first(), topology.nodes.last()) else {
        return Vec::new();
    };
    let name = &topology.shape.name;
    let here = |node: &Node, command: &str| {
        let exec = lab(topology, &format!("exec {}", node.namespace));
        format!("{exec} -- {command}")
    };
    let etcdctl = servers::program("etcdctl").unwrap_or_else(|| "etcdctl".into());
    let program = program.display();
    let agent =
        |command: &str, node: &Node| format!("{program} {command} --instance {}", node.namespace);
    let config = state::config_file(name, &last.namespace);
    let config = config.display();
    let mut suggestions = vec![(
        "see what etcd says, and what a node makes of it",
        vec![
            here(
                first,
                &format!(
                    "env ETCDCTL_API=3 {} --endpoints {} get --prefix {}",
                    etcdctl.display(),
                    scenario::etcd::urls(topology).join(","),
                    scenario::etcd::PREFIX
                ),
            ),
            agent("cluster status", first),
        ],
    )];
    // Among the members, and none that the nodes above need to answer alone.
    if let [.., member] = scenario::etcd::members(topology)
        && let Step::Start { argv, log, .. } = scenario::etcd::start(topology, member)
    {
        let argv = shell(&argv).replace(" etcd ", &format!(" {} ", etcd().display()));
        suggestions.push((
            "kill a member of etcd while packets flow; its nodes follow another one; start it again",
            vec![
                format!("pkill -KILL -f 'etcd --name {} '", member.namespace),
                agent("cluster status", member),
                format!("OVERLAY_LAB={name} setsid {argv} >>{} 2>&1 &", log.display()),
            ],
        ));
    }
    if topology.nodes.len() > 1 {
        suggestions.push((
            "have a node leave; add it as one that nobody knows",
            vec![
                agent("down", last),
                here(last, &format!("{program} cluster leave --config {config}")),
                agent("cluster status", first),
                format!(
                    "OVERLAY_LAB={name} setsid {program} run --config {config} --netns {} >>{} 2>&1 &",
                    last.namespace,
                    state::log_file(name, &last.namespace).display()
                ),
            ],
        ));
    }
    suggestions
}

fn etcd() -> PathBuf {
    servers::program("etcd").unwrap_or_else(|| "etcd".into())
}
