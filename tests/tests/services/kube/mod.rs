//! What kube-proxy writes, in both of its modes: containers reach services beside it, and whom they
//! ask by their own addresses is reached on the fast path.
//!
//! As version 1.31 writes it for a cluster of two nodes with three services: one with a backend on
//! the other node, that is open at the nodes' port, too; one with a backend on this node; and one
//! without any.

use std::net::IpAddr;

use anyhow::{Context as _, Result};
use overlay_tests::{
    agent::Agent,
    counters::{carried, reasons},
    families::{Families, Family},
    guard::Guard,
    packages::{self, Release},
    poll, run,
    shape::{Scenario, Shape},
    topology::Topology,
    traffic::Pair,
};

use crate::{
    Outside,
    asking::{asks, is_refused},
    bridge_filters,
    cases::{LOCAL, PORT, REMOTE, gate, service},
    nft,
    states::until_followed,
};

mod iptables;
mod nftables;

/// The one without backends.
const NOBODY: u16 = 9;
/// Where the nodes are open for the first service, and where its backend listens for it.
const NODE_PORT: u16 = 30_090;
/// What both modes mark what is to be masqueraded with.
const MARK: &str = "0x4000";

/// What is written for one service at a protocol.
struct Service {
    name: &'static str,
    protocol: &'static str,
    at: IpAddr,
    backend: IpAddr,
    port: u16,
    is_open: bool,
}

/// One of the two families, for which kube-proxy writes separately.
struct Cluster {
    family: Family,
    pods: String,
    services: Vec<Service>,
    /// The address at which this node is open.
    gate: IpAddr,
    nobody: IpAddr,
}

impl Cluster {
    fn of(topology: &Topology, family: Family) -> Self {
        let [node, other] = topology.two_nodes();
        let remote = other.containers[0].at(family);
        let local = node.containers[1].at(family);
        let services = ["tcp", "udp"].into_iter().flat_map(|protocol| {
            let one = |name, number, backend, port, is_open| Service {
                name,
                protocol,
                at: service(number, family),
                backend,
                port,
                is_open,
            };
            [
                one("remote", REMOTE, remote, PORT, false),
                one("local", LOCAL, local, PORT, false),
                one("open", REMOTE, remote, NODE_PORT, true),
            ]
        });
        Self {
            family,
            pods: match family {
                Family::V4 => topology.network.to_string(),
                Family::V6 => topology.network6.to_string(),
            },
            services: services.collect(),
            gate: gate(family),
            nobody: service(NOBODY, family),
        }
    }
}

/// Has a node do what kube-proxy does in its mode nftables.
pub(crate) fn by_nftables(topology: &Topology) -> Result<()> {
    let families = [Family::V4, Family::V6].into_iter();
    let mut clusters = families.map(|family| Cluster::of(topology, family));
    clusters.try_for_each(|cluster| nft(&topology.nodes[0].namespace, &nftables::rules(&cluster)))
}

/// How many packets the programs of a node have carried, and have left to the kernel for a reason
/// that is in its rules.
fn paths(node: &str) -> Result<(u64, u64)> {
    let carried = carried(node)?;
    let left = ["translated", "tracked", "hooked"];
    let passed = reasons(node, "PASSES")?.into_iter();
    let of_rules = passed.filter(|(reason, _)| left.contains(&reason.as_str()));
    Ok((
        carried.sent + carried.received,
        of_rules.map(|(_, count)| count).sum(),
    ))
}

/// Services are reached, and what nobody translates is fast.
fn is_well_beside(guard: &Guard, outside: &str, on: bool) -> Result<()> {
    let topology = guard.topology();
    let [node, other] = topology.two_nodes();
    let [client, near] = &node.containers[..] else {
        panic!("two containers")
    };
    let far = &other.containers[0];
    for family in [Family::V4, Family::V6] {
        let what = |case: &str| format!("{case}, {family:?}, fast path {on}");
        let [remote, local] = [REMOTE, LOCAL].map(|number| (service(number, family), PORT));
        let from = &client.namespace;
        asks(from, remote, &far.namespace, far.at(family)).with_context(|| what("elsewhere"))?;
        asks(from, local, &near.namespace, near.at(family)).with_context(|| what("here"))?;
        is_refused(from, remote).with_context(|| what("a backend that does not listen"))?;
        is_refused(from, (service(NOBODY, family), PORT)).with_context(|| what("nobody"))?;
        let open = (gate(family), NODE_PORT);
        asks(outside, open, &far.namespace, far.at(family)).with_context(|| what("outside"))?;
        is_plain(guard, family, on).with_context(|| what("nobody translates"))?;
    }
    Ok(())
}

/// What nobody translates is fast.
pub(crate) fn is_plain(guard: &Guard, family: Family, on: bool) -> Result<()> {
    let node = &guard.topology().nodes[0].namespace;
    let pair = plain(guard.topology(), family);
    // The first packets of peers are the kernel's where rules ask for connections.
    pair.udp(&[100])?;
    let before = paths(node)?;
    pair.udp(&[100, 1000])?;
    pair.tcp(&[1 << 20])?;
    let after = paths(node)?;
    let reasons = || reasons(node, "PASSES");
    assert_eq!(after.1, before.1, "left to the kernel: {:?}", reasons()?);
    assert_eq!(after.0 != before.0, on, "fast: {:?}", reasons()?);
    Ok(())
}

/// What nobody translates is the kernel's in both directions, and arrives. Programs may put the
/// tunnel's headers before what the kernel has forwarded.
pub(crate) fn is_left(guard: &Guard, family: Family) -> Result<()> {
    let node = &guard.topology().nodes[0].namespace;
    let pair = plain(guard.topology(), family);
    let (received, (_, left)) = (carried(node)?.received, paths(node)?);
    pair.udp(&[100, 1000])?;
    pair.tcp(&[1 << 20])?;
    assert_eq!(
        carried(node)?.received,
        received,
        "received by the programs"
    );
    assert!(paths(node)?.1 > left, "nothing was left to the kernel");
    Ok(())
}

/// Whether a datagram there and back is carried by the programs, all of it.
pub(crate) fn is_fast(guard: &Guard, family: Family) -> Result<bool> {
    let node = &guard.topology().nodes[0].namespace;
    let before = paths(node)?;
    plain(guard.topology(), family).udp(&[100])?;
    let after = paths(node)?;
    Ok(after.1 == before.1 && after.0 != before.0)
}

/// Two whom nobody's rules are about.
fn plain(topology: &Topology, family: Family) -> Pair<'_> {
    let [node, other] = topology.two_nodes();
    let far = &other.containers[0];
    Pair::between(&node.containers[0], far, family)
}

/// Nothing is said that is not so.
pub(crate) fn finds_nothing(agent: &Agent) -> Result<()> {
    let said = poll::until_well(|| match agent.json(&["doctor"]) {
        Ok(found) if found["findings"].as_array().is_some_and(Vec::is_empty) => None,
        other => Some(format!("{other:#?}")),
    });
    said.map_err(|said| anyhow::anyhow!("doctor finds {said}"))
}

fn beside(name: &str, write: impl Fn(&Topology) -> Result<()>, invalid: bool) -> Result<()> {
    let shape = Shape::usual(name, Scenario::Overlay)?;
    let guard = Guard::up(shape.speaking(Families::V4, Families::Both)?)?;
    let topology = guard.topology();
    let outside = Outside::make(topology)?;
    let agent = guard.agent(1);
    // kube-proxy's own condition.
    if !bridge_filters(&topology.nodes[0].namespace, true)? {
        return Ok(());
    }
    // A route, so that the node forwards what is for nobody, and its rules refuse it.
    run::checked(format!(
        "ip -n {} route add fd96::/64 dev out0",
        topology.nodes[0].namespace
    ))?;
    write(topology)?;
    until_followed(&agent, invalid)?;
    for on in [true, false] {
        agent.fastpath(on)?;
        is_well_beside(&guard, &outside.name, on)?;
    }
    agent.fastpath(true)?;
    finds_nothing(&agent)?;
    Ok(guard.down()?)
}

#[test]
fn services_of_kube_proxy_in_mode_nftables_answer() -> Result<()> {
    beside("tkuben", by_nftables, false)
}

/// It drops what belongs to no connection that it knows: that is seen, and heeded.
#[test]
fn services_of_kube_proxy_in_mode_iptables_answer() -> Result<()> {
    let Some(packages) = Release::Bookworm.folder() else {
        return Ok(());
    };
    let write = |topology: &Topology| {
        for family in [Family::V4, Family::V6] {
            let rules = iptables::rules(&Cluster::of(topology, family));
            let node = &topology.nodes[0].namespace;
            let program = match family {
                Family::V4 => "iptables-nft-restore",
                Family::V6 => "ip6tables-nft-restore",
            };
            packages::restore(&packages, node, program, &rules)?;
        }
        Ok(())
    };
    beside("tkubei", write, true)
}
