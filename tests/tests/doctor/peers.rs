//! Faults of peers and of the wire to them.

use anyhow::{Context as _, Result};
use overlay_common::ABI;
use overlay_tests::{
    families::Families,
    faults::{Fault as WireFault, Faulty},
    guard::Guard,
    run,
    script::{inside, words},
    shape::{Scenario, Shape},
    topology::UNDERLAY6_LENGTH,
};

use crate::{
    fault::{Fault, finding_with, only_finding},
    stand::{Stand, reconfigured},
};

fn faults() -> Vec<Fault> {
    vec![
        Fault::new(
            "stale-neighbour",
            "192.168.56.12",
            "ip neigh replace 192.168.56.12 lladdr 02:00:00:00:00:99 dev eth1 nud permanent",
        ),
        Fault::new("underlay-down", "eth1", "ip link set n1 down")
            .within("net")
            .cured_by("net", "ip link set n1 up"),
        Fault::new("peer-unreachable", "n2", "ip link set n2 down")
            .within("net")
            .and("n1", "ip neigh flush dev eth1")
            .cured_by("net", "ip link set n2 up"),
        Fault::new("path-black-hole", "n2", "ip link set n2 mtu 1400")
            .within("net")
            .cured_by("net", "ip link set n2 mtu 1500"),
        Fault::new(
            "path-too-narrow",
            "n2",
            "ip route add 192.168.56.12/32 dev eth1 mtu 1400",
        )
        .cured_by("n1", "ip route del 192.168.56.12/32"),
    ]
}

#[test]
fn what_is_wrong_between_the_nodes_is_found() -> Result<()> {
    let stand = Stand::raise("tdocw")?;
    for fault in faults() {
        fault.is_found(&stand)?;
    }
    tunnel_packets_of_one_direction_are_lost(&stand)?;
    Ok(stand.guard.down()?)
}

/// As the kernel finds when it asks for an address before it uses it.
#[test]
fn another_host_with_this_node_s_ipv6_address_is_found() -> Result<()> {
    let shape = Shape::of("tdoc6", Scenario::Overlay, 3, 1)?;
    let stand = Stand::of(Guard::up(shape.speaking(Families::V6, Families::V4)?)?)?;
    let node = &stand.guard.topology().nodes[0];
    let net = format!("{}/{UNDERLAY6_LENGTH}", node.underlay6);
    stand.within("n3", &format!("ip address add {net} dev eth1 nodad"))?;
    stand.within(
        "n1",
        &format!("ip address del {net} dev eth1; ip address add {net} dev eth1"),
    )?;
    let object = node.underlay6.to_string();
    let found = finding_with(
        &stand,
        ("duplicate-vtep", &object),
        Some("underlay-missing"),
        || stand.diagnosis(),
    )?;
    let what = found["what"].as_str().context("a text")?;
    assert!(what.contains("another node"), "{what}");
    stand.within("n3", &format!("ip address del {net} dev eth1"))?;
    stand.within(
        "n1",
        &format!("ip address del {net} dev eth1; ip address add {net} dev eth1"),
    )?;
    stand.is_healthy("two hosts with one address")?;
    Ok(stand.guard.down()?)
}

/// As its probes tell.
#[test]
fn an_agent_of_another_version_is_found() -> Result<()> {
    let stand = Stand::probing("tdocv")?;
    let second = stand.guard.agent(2);
    second.stop()?;
    second.with("OVERLAY_ABI", ABI + 1).start()?;
    let found = only_finding(&stand, "peer-version", "n2", || stand.diagnosis())?;
    let what = found["what"].as_str().context("a text")?;
    assert!(what.contains(&format!("layout {}", ABI + 1)), "{what}");
    second.stop()?;
    finding_with(&stand, ("peer-silent", "n2"), Some("peer-version"), || {
        stand.diagnosis()
    })?;
    // An agent that has never heard of it says the same as one that has.
    stand.agent.stop()?;
    stand.agent.start()?;
    only_finding(&stand, "peer-never-answered", "n2", || stand.diagnosis())?;
    second.start()?;
    stand.is_healthy("one version everywhere")?;
    Ok(stand.guard.down()?)
}

/// Packets come from the second node while what goes there is lost.
fn tunnel_packets_of_one_direction_are_lost(stand: &Stand) -> Result<()> {
    let topology = stand.guard.topology();
    let (here, there) = (&topology.nodes[0], &topology.nodes[1]);
    let fault = Faulty::towards(topology, there, WireFault::Loss(1))?;
    only_finding(stand, "tunnel-silent", "n2", || stand.diagnosis())?;
    let to = here.containers[0].address;
    let ping = format!("ping -n -q -i 0.02 -W 1 -w 60 {to}");
    let argv = words(inside(&there.containers[0].namespace, ping));
    let pings = Pings(
        run::command(&argv)
            .stdout(std::process::Stdio::null())
            .spawn()?,
    );
    only_finding(stand, "one-way", "n2", || stand.diagnosis())?;
    drop(pings);
    drop(fault);
    stand.is_healthy("a wire that loses in one direction")
}

struct Pings(std::process::Child);

impl Drop for Pings {
    fn drop(&mut self) {
        if let Err(error) = self.0.kill().and_then(|()| self.0.wait()) {
            eprintln!("ping was not ended: {error}");
        }
    }
}

#[test]
fn a_peer_that_was_configured_otherwise_is_found() -> Result<()> {
    let stand = Stand::raise("tdocc")?;
    let second = stand.guard.agent(2);
    let back = reconfigured(&second, "vni = 1", "vni = 7")?;
    only_finding(&stand, "tunnel-silent", "n2", || stand.diagnosis())?;
    back()?;
    stand.is_healthy("another VNI")?;

    let back = reconfigured(&second, "port = 4789", "port = 4790")?;
    let found = only_finding(&stand, "tunnel-port-closed", "n2", || stand.diagnosis())?;
    let what = found["what"].as_str().context("a text")?;
    assert!(what.contains("UDP port 4789"), "{what}");
    back()?;
    stand.is_healthy("another port")?;

    second.tell(&["down"])?;
    only_finding(&stand, "tunnel-port-closed", "n2", || stand.diagnosis())?;
    second.start()?;
    stand.is_healthy("a peer without an overlay")?;

    let elsewhere = reconfigured(&stand.agent, "192.168.56.13", "203.0.113.13")?;
    only_finding(&stand, "peer-no-route", "n3", || stand.diagnosis())?;
    elsewhere()?;
    stand.is_healthy("a peer without a route")?;
    Ok(stand.guard.down()?)
}
