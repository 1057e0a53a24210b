//! A node that moves from flannel to us, and back, while others are connected: its subnet and the
//! addresses of its containers stay.
//!
//! flannel's part is done by hand, as flanneld does it: its device, its way to the other node, the
//! bridge of its CNI plugin, and its entry, which it puts over whatever is there.

use std::{fs, net::IpAddr};

use anyhow::{Context as _, Result, ensure};
use overlay_tests::{
    agent::Agent,
    check::{self, Answer},
    families::Family,
    netns, run,
    snapshot::Snapshot,
    topology::Node,
};

use crate::{
    flow::Flow,
    lab::{Cluster, SUBNETS, has_peer, until, until_said},
};

const KEY: &str = "10.244.77.0-24";
const SUBNET: &str = "10.244.77.0/24";
const ADDRESS: &str = "10.244.77.10";
/// Of flannel's device, which makes one by chance.
const MAC: &str = "d2:cf:28:5c:8b:05";

fn run_all(commands: &[String]) -> Result<()> {
    for command in commands {
        run::checked(command.clone())?;
    }
    Ok(())
}

/// A node that is flannel's, with one container.
struct Flannel<'a> {
    cluster: &'a Cluster,
    node: &'a Node,
    /// The other node's subnet, outer address and MAC.
    other: (String, String, String),
}

impl Flannel<'_> {
    /// What flanneld and its CNI plugin do.
    fn start(&self) -> Result<()> {
        let (node, container) = (&self.node.namespace, &self.node.containers[0].namespace);
        let (subnet, vtep, mac) = &self.other;
        let hop = subnet.trim_end_matches("/24");
        run_all(&[
            format!("ip netns exec {node} sysctl -q -w net.ipv4.ip_forward=1"),
            format!(
                "ip -n {node} link add flannel.1 address {MAC} mtu 1450 type vxlan id 1 local {} dev eth1 dstport \
                 8472 nolearning udpcsum",
                self.node.underlay
            ),
            format!("ip -n {node} addr add 10.244.77.0/32 dev flannel.1"),
            format!("ip -n {node} link set flannel.1 up"),
            format!("ip -n {node} neigh add {hop} lladdr {mac} dev flannel.1 nud permanent"),
            format!("bridge -n {node} fdb append {mac} dev flannel.1 dst {vtep}"),
            format!("ip -n {node} route add {subnet} via {hop} dev flannel.1 onlink"),
            format!("ip -n {node} link add cni0 mtu 1450 type bridge"),
            format!("ip -n {node} addr add 10.244.77.1/24 dev cni0"),
            format!("ip -n {node} link set cni0 up"),
            format!(
                "ip -n {node} link add vethpod mtu 1450 master cni0 type veth peer name eth0 netns {container}"
            ),
            format!("ip -n {container} link set eth0 mtu 1450"),
            format!("ip -n {node} link set vethpod up"),
            format!("ip -n {container} addr add {ADDRESS}/24 dev eth0"),
            format!("ip -n {container} link set eth0 up"),
            format!("ip -n {container} route add default via 10.244.77.1"),
        ])?;
        let granted = self.cluster.json("lease grant 86400")?;
        let lease = granted["id"].as_u64();
        let lease = lease.or(granted["ID"].as_u64()).context("a lease")?;
        let mut put = self.cluster.etcdctl_argv(
            &self.cluster.url(1),
            &format!("put --lease={lease:x} {SUBNETS}{KEY}"),
        );
        put.push(self.value(MAC, ""));
        run::checked(&put)?;
        Ok(())
    }

    /// What stands in the store, with what is ours behind it.
    fn value(&self, mac: &str, ours: &str) -> String {
        format!(
            r#"{{"PublicIP":"{}","PublicIPv6":null,"BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"{mac}"}}{ours}}}"#,
            self.node.underlay
        )
    }

    /// flanneld ends, and what it has left is removed by hand.
    fn end(&self) -> Result<()> {
        let node = &self.node.namespace;
        run_all(
            &["flannel.1", "vethpod", "cni0"]
                .map(|device| format!("ip -n {node} link del {device}")),
        )
    }

    fn is_in_store(&self, value: &str) -> Result<()> {
        let found = self
            .cluster
            .etcdctl(&format!("get --print-value-only {SUBNETS}{KEY}"))?;
        ensure!(found.trim_end() == value, "{found}, not {value}");
        Ok(())
    }

    /// Whether the container there, and one of the other node, reach each other, and by which MAC.
    fn is_reached(&self, agent: &Agent, mac: &str) -> Result<()> {
        let (first, second) = (
            format!("{}-n1c1", self.cluster.name),
            &self.node.containers[0].namespace,
        );
        let there: IpAddr = ADDRESS.parse()?;
        let here = self.cluster.addresses(1)?[0];
        until("the peer", || {
            has_peer(agent, SUBNET, mac, &self.node.underlay.to_string())?;
            for (namespace, address) in [(&first, there), (second, here)] {
                let answer = check::ping(namespace, address)?;
                ensure!(matches!(answer, Answer::Ttl(62)), "{namespace}: {answer:?}");
            }
            Ok(())
        })
    }
}

/// The node's configuration, whose container has an address already.
fn configure(cluster: &Cluster) -> Result<Agent> {
    cluster.configure(2, "")?;
    let agent = cluster.guard.agent(2);
    let file = agent.config_file();
    let text = fs::read_to_string(&file)? + &format!("address = \"{ADDRESS}\"\n");
    fs::write(&file, text)?;
    Ok(agent)
}

#[test]
fn a_node_moves_from_flannel_and_back_with_its_subnet_and_its_containers() -> Result<()> {
    let cluster = Cluster::up("temig", 3)?;
    for node in [1, 3] {
        cluster.configure(node, "")?;
    }
    cluster.init()?;
    let others = [1, 3].map(|node| cluster.guard.agent(node));
    for agent in &others {
        agent.start_anyhow()?;
        agent.is_well()?;
    }
    cluster.reaches(1, 3)?;
    let nodes = cluster.guard.topology().nodes.clone();
    let subnet = others[0].json(&["status"])?["networks"][0]["ranges"][0]["subnet"].clone();
    let subnet = subnet.as_str().context("a subnet")?.to_owned();
    let (vtep, mac) = (nodes[0].underlay.to_string(), nodes[0].vtep_mac(Family::V4));
    let flannel = Flannel {
        cluster: &cluster,
        node: &nodes[1],
        other: (subnet, vtep, mac),
    };
    // The container is there before any of them, and after.
    let container = netns::Temporary::make(&nodes[1].containers[0].namespace)?;
    // Nobody else is concerned by any of it.
    let flow = Flow::start(&cluster, 1, 3)?;
    flannel.start()?;
    flannel.is_reached(&others[0], MAC)?;

    flannel.end()?;
    let before = Snapshot::of(&nodes[1].namespace)?;
    let agent = configure(&cluster)?;
    agent.start_anyhow()?;
    agent.is_well()?;
    let ours = nodes[1].vtep_mac(Family::V4);
    flannel.is_in_store(&flannel.value(
        &ours,
        &format!(r#","Overlay":{{"Node":"{}"}}"#, agent.instance),
    ))?;
    flannel.is_reached(&others[0], &ours)?;

    agent.tell(&["down"])?;
    let left = Snapshot::of(&nodes[1].namespace)?.changes_since(&before);
    ensure!(left.lines.is_empty(), "{left}");
    flannel.start()?;
    flannel.is_in_store(&flannel.value(MAC, ""))?;
    flannel.is_reached(&others[0], MAC)?;
    assert_eq!(cluster.leases()?.len(), 3);
    flow.came_whole()?;
    drop(container);
    Ok(cluster.guard.down()?)
}

#[test]
fn what_flannel_does_otherwise_than_we_can_is_refused_by_name() -> Result<()> {
    let cluster = Cluster::up("terefu", 1)?;
    let config = |more: &str| {
        let text =
            format!(r#"{{"Network":"10.244.0.0/16","Backend":{{"Type":"vxlan","VNI":1{more}}}}}"#);
        cluster.put("/coreos.com/network/config", &text)
    };
    cluster.configure(1, "")?;
    let agent = cluster.guard.agent(1);
    config(",\"GBP\":true")?;
    agent.start_anyhow()?;
    until_said(&agent, "its GBP is true")?;
    config(",\"DirectRouting\":true")?;
    until_said(&agent, "its DirectRouting is true")?;
    ensure!(cluster.leases()?.is_empty(), "it has taken a subnet");
    config("")?;
    agent.is_well()?;
    // One that runs keeps what it has.
    config(",\"DirectRouting\":true")?;
    until_said(&agent, "its DirectRouting is true")?;
    assert_eq!(agent.json(&["status"])?["networks"][0]["name"], "lab");
    config("")?;
    agent.is_well()?;
    Ok(cluster.guard.down()?)
}
