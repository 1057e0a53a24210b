//! What the node translates, or follows by the state of connections, arrives beside the fast path
//! just as without it.

use std::{fs, io};

use anyhow::{Context as _, Result};
use overlay_tests::{
    counters,
    families::{Families, Family},
    guard::Guard,
    netns::{self, Temporary},
    run,
    shape::{Scenario, Shape},
    topology::{Topology, UNDERLAY},
    traffic::Pair,
};

mod asking;
mod cases;
mod changing;
mod firewalls;
mod forgotten;
mod ipvs;
mod kube;
mod many;
mod returning;
mod states;
mod within;

use asking::{arrives, asks, is_refused};
use cases::{PORT, REMOTE, cases, gate, rules, service};
use states::until_followed;

fn nft(namespace: &str, commands: &str) -> Result<()> {
    let enter = format!("--net=/run/netns/{namespace}");
    let argv = ["nsenter", &enter, "nft", commands].map(str::to_owned);
    run::checked(&argv)?;
    Ok(())
}

/// Lets what a bridge forwards pass the packet filter, or not; false where the kernel cannot.
fn bridge_filters(namespace: &str, on: bool) -> Result<bool> {
    let value = u8::from(on).to_string();
    let set = |family: &str| {
        let setting = format!("/proc/sys/net/bridge/bridge-nf-call-{family}tables");
        match fs::write(setting, &value) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(!on),
            other => other.map(|()| true),
        }
    };
    Ok(netns::inside(namespace, || {
        Ok::<_, io::Error>(set("ip")? && set("ip6")?)
    })??)
}

/// A client at a link of its own to the first node, which is no peer.
struct Outside {
    namespace: Temporary,
    name: String,
}

impl Outside {
    fn make(topology: &Topology) -> Result<Self> {
        let node = &topology.nodes[0].namespace;
        let name = format!("{node}-out");
        let namespace = Temporary::make(&name)?;
        for command in [
            format!("ip link add out0 netns {node} type veth peer name out0 netns {name}"),
            format!("ip -n {node} addr add {}/24 dev out0", gate(Family::V4)),
            format!(
                "ip -n {node} addr add {}/64 dev out0 nodad",
                gate(Family::V6)
            ),
            format!("ip -n {node} link set out0 up"),
            format!("ip -n {name} addr add 198.51.100.2/24 dev out0"),
            format!("ip -n {name} addr add 2001:db8:9::2/64 dev out0 nodad"),
            format!("ip -n {name} link set out0 up"),
            // By which a node finds the address that it asks a service from.
            format!("ip -n {node} route add 10.96.0.0/24 dev {UNDERLAY}"),
        ] {
            run::checked(command)?;
        }
        Ok(Self { namespace, name })
    }
}

fn all_arrive(topology: &Topology, outside: &str, filtering: bool, when: &str) -> Result<()> {
    for family in [Family::V4, Family::V6] {
        for case in cases(topology, outside, family) {
            let what = || {
                format!(
                    "{}, {family:?}, {when}, bridge filters: {filtering}",
                    case.name
                )
            };
            if case.filtered.is_some_and(|filtered| filtered != filtering) {
                let arrived = arrives(case.client, (case.at, case.port), case.server, case.backend);
                assert!(!arrived?, "not without the fast path: {}", what());
                continue;
            }
            asks(case.client, (case.at, case.port), case.server, case.backend)
                .with_context(what)?;
            // Nobody listens any more: an error comes back, about a translated packet.
            is_refused(case.client, (case.at, case.port)).with_context(what)?;
        }
    }
    Ok(())
}

fn services(name: &str, rx: Option<&'static str>, masquerade: bool) -> Result<()> {
    let shape = Shape::usual(name, Scenario::Overlay)?.speaking(Families::V4, Families::Both)?;
    let guard = Guard::configured(shape, |_, config| {
        config.node.rx = rx;
        config.node.guard = rx.map(|_| "native");
        for network in &mut config.networks {
            network.masquerade = Some(masquerade);
        }
    })?;
    let topology = guard.topology();
    let outside = Outside::make(topology)?;
    let node = &topology.nodes[0].namespace;
    let agent = guard.agent(1);
    let plain = Pair::between(
        &topology.nodes[0].containers[0],
        &topology.nodes[1].containers[0],
        Family::V4,
    );
    nft(node, &rules(topology))?;
    // Until the agent has seen them, and the new link's routes, it refuses answers to the outside.
    until_followed(&agent, false)?;
    for filtering in [true, false] {
        if !bridge_filters(node, filtering)? {
            continue;
        }
        all_arrive(topology, &outside.name, filtering, "fast path on")?;
        agent.fastpath(false)?;
        all_arrive(topology, &outside.name, filtering, "fast path off")?;
        agent.fastpath(true)?;
    }
    let before = (
        counters::passed(node, "translated")?,
        counters::carried(node)?,
    );
    assert_ne!(before.0, 0, "the reason is counted");
    plain.udp(&[100, 1000])?;
    plain.tcp(&[1 << 20])?;
    assert_eq!(
        counters::passed(node, "translated")?,
        before.0,
        "nobody translates this"
    );
    assert_ne!(counters::carried(node)?, before.1);
    // Without the agent it is as with it.
    agent.kill()?;
    let far = &topology.nodes[1].containers[0];
    for family in [Family::V4, Family::V6] {
        let at = (service(REMOTE, family), PORT);
        asks(plain.client, at, plain.server, far.at(family))?;
    }
    agent.start()?;
    drop(outside.namespace);
    Ok(guard.down()?)
}

#[test]
fn services_answer_beside_the_fast_path() -> Result<()> {
    services("tsvc", None, false)
}

#[test]
fn services_answer_beside_the_fast_path_with_xdp() -> Result<()> {
    services("tsvcx", Some("xdp"), true)
}
