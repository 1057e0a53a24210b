//! Faults that are found without an agent.

use std::{
    fs,
    net::UdpSocket,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use overlay_common::{ABI, wire::IANA_PORT};
use overlay_tests::{netns, poll, run, topology::UNDERLAY};
use serde_json::Value;

use crate::{
    fault::{Fault, finding_with, only_finding},
    stand::{SAMPLE, Stand, alone, diagnosis_by, reconfigured},
};

#[test]
fn without_an_agent_what_it_would_repair_is_found() -> Result<()> {
    let stand = Stand::raise("tdoca")?;
    stand.agent.stop()?;
    stand.is_well("the agent has ended", || stand.diagnosis_alone())?;
    // Where the node is, its state remembers.
    let mut without = alone(&stand.agent);
    let netns = without.iter().position(|word| word == "--netns");
    let netns = netns.context("a namespace")?;
    without.drain(netns..netns + 2);
    stand.is_well("nobody says where", || diagnosis_by(&without))?;
    for fault in [
        Fault::new(
            "ip-forward-off",
            "net.ipv4.ip_forward",
            "sysctl -qw net.ipv4.ip_forward=0",
        ),
        Fault::new(
            "ip-forward-off",
            "net.ipv4.conf.ovlbr1.forwarding",
            "sysctl -qw net.ipv4.conf.ovlbr1.forwarding=0",
        ),
        Fault::new(
            "rp-filter-strict",
            "net.ipv4.conf.eth1.rp_filter",
            "sysctl -qw net.ipv4.conf.eth1.rp_filter=1",
        ),
        Fault::new("container-mtu", "n1c1", "ip link set eth0 mtu 1200").within("n1c1"),
        Fault::new(
            "foreign-vxlan",
            "vx9",
            "ip link add vx9 type vxlan id 9 dstport 4789 local 192.168.56.11",
        )
        .cured_by("n1", "ip link del vx9"),
    ] {
        fault.is_found_by(&stand, || stand.diagnosis_alone())?;
    }
    a_range_around_a_peer(&stand)?;
    let pin = pins(&stand).join("links/from_underlay-eth1");
    // Without TCX there is no link.
    if pin.exists() {
        run::checked(format!("bpftool link detach pinned {}", pin.display()))?;
        only_finding(&stand, "program-detached", "eth1", || {
            stand.diagnosis_alone()
        })?;
    }
    stand.agent.start()?;
    stand.is_well("the agent is back", || stand.diagnosis_alone())?;
    counters_that_nobody_counts_in(&stand)?;
    a_packet_filter_that_cannot_be_set(&stand)?;

    stand.agent.tell(&["down"])?;
    let node = &stand.agent.instance;
    let socket = netns::inside(node, || UdpSocket::bind(("0.0.0.0", IANA_PORT)))??;
    only_finding(&stand, "port-taken", "UDP port 4789", || {
        stand.diagnosis_alone()
    })?;
    drop(socket);
    stand.is_well("the port is free", || stand.diagnosis_alone())?;
    Fault::new(
        "device-name-taken",
        "ovlbr1",
        "ip link add ovlbr1 type bridge",
    )
    .cleared_by("n1", "ip link del x-ovlbr1")
    .is_found_by(&stand, || stand.diagnosis_alone())?;
    Ok(stand.guard.down()?)
}

/// A peer whose address only a route to more than the network leads to. More is wrong with that
/// peer than this: it is not there.
fn a_range_around_a_peer(stand: &Stand) -> Result<()> {
    let back = reconfigured(
        &stand.agent,
        "vtep = \"192.168.56.12\"",
        "vtep = \"10.244.200.9\"",
    )?;
    stand.within("n1", "ip route add default via 192.168.56.12")?;
    let found = poll::until_well(|| match stand.diagnosis_alone() {
        Ok(diagnosis) => {
            let findings = diagnosis["findings"].as_array();
            let is = |finding: &Value| {
                finding["check"] == "range-around-vtep" && finding["object"] == "10.244.0.0/16"
            };
            let found = findings.is_some_and(|findings| findings.iter().any(is));
            (!found).then(|| format!("{diagnosis:#}"))
        }
        Err(error) => Some(format!("{error:#}")),
    });
    assert_eq!(found, Ok(()));
    back()?;
    stand.within("n1", "ip route del default via 192.168.56.12")?;
    stand.is_well("the peer is elsewhere", || stand.diagnosis_alone())
}

/// The folder of the node's pins.
fn pins(stand: &Stand) -> PathBuf {
    Path::new("/sys/fs/bpf/overlay").join(&stand.agent.instance)
}

/// Another map where that of the counters was pinned: the programs go on with the old one.
fn counters_that_nobody_counts_in(stand: &Stand) -> Result<()> {
    stand.agent.stop()?;
    let pin = pins(stand).join(format!("v{ABI}/PASSES"));
    let pin = pin.display();
    let shown = || -> Result<Value> {
        let shown = run::checked(format!("bpftool -j map show pinned {pin}"))?;
        Ok(serde_json::from_str(&shown)?)
    };
    let map = shown()?;
    let (bytes, entries) = (&map["bytes_value"], &map["max_entries"]);
    fs::remove_file(pin.to_string())?;
    run::checked(format!(
        "bpftool map create {pin} type percpu_array key 4 value {bytes} entries {entries} name PASSES"
    ))?;
    // As if it had been made by the instance: another one is not looked at.
    let made = pins(stand).join("made").join(shown()?["id"].to_string());
    fs::create_dir(made)?;
    only_finding(stand, "counters-stand-still", UNDERLAY, || {
        stand.diagnosis_alone()
    })?;
    stand.agent.start()?;
    for on in [false, true] {
        stand.agent.fastpath(on)?;
    }
    stand.is_healthy("counters of their own")
}

/// Without `nft`, where it is needed.
fn a_packet_filter_that_cannot_be_set(stand: &Stand) -> Result<()> {
    let none = stand.agent.with("PATH", "/nonexistent");
    // A table that is there holds the rules without it, too.
    stand.agent.stop()?;
    let table = format!("guard.overlay-{}", stand.agent.instance);
    stand.within("n1", &format!("nft delete table inet {table}"))?;
    let found = only_finding(stand, "guard-table-missing", "nft", || {
        diagnosis_by(&alone(&none))
    })?;
    assert_eq!(found["severity"], "warning", "{found:#}");
    stand.agent.start()?;
    stand.is_healthy("the rules hold on the kernel's path again")?;
    let back = reconfigured(&stand.agent, "vni = 1", "vni = 1\nmasquerade = true")?;
    only_finding(stand, "packet-filter-missing", "nft", || {
        diagnosis_by(&alone(&none))
    })?;
    back()?;
    stand.is_well("there is nft", || stand.diagnosis_alone())
}

#[test]
fn bad_input_is_told_from_a_node_that_is_not_well() -> Result<()> {
    let stand = Stand::raise("tdoci")?;
    let program = &stand.agent;
    let none = Path::new("/nonexistent/node.toml")
        .to_string_lossy()
        .into_owned();
    let out = program.call(&["doctor", "--config", &none])?;
    assert_eq!(out.code, Some(2), "{}{}", out.stdout, out.stderr);
    let out = program.call(&["doctor", "--instance", "no-such-node"])?;
    assert_eq!(out.code, Some(3), "{}{}", out.stdout, out.stderr);
    let out = program.call(&["doctor", "--sample", "0"])?;
    assert_eq!(out.code, Some(2), "{}{}", out.stdout, out.stderr);

    stand.within("n1", "ip address add 192.168.56.12/24 dev eth1")?;
    finding_with(
        &stand,
        ("duplicate-vtep", "192.168.56.12"),
        Some("peer-no-route"),
        || stand.diagnosis(),
    )?;
    let out = program.ask(&["doctor", "--sample", SAMPLE])?;
    assert_eq!(out.code, Some(1), "{}{}", out.stdout, out.stderr);
    // Problems come first.
    let first = out.stdout.lines().next().context("it prints something")?;
    assert!(first.starts_with("problem: "), "{first}");
    assert!(
        out.stdout.contains("problem: 192.168.56.12: "),
        "{}",
        out.stdout
    );
    for part in [
        "  why:  ",
        "  cure: ",
        "        # nsenter --net=/run/netns/tdoci-n1 ip address del",
    ] {
        assert!(out.stdout.contains(part), "no {part:?} in {}", out.stdout);
    }
    Ok(stand.guard.down()?)
}
