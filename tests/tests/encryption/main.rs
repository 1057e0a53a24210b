//! Tunnels that are encrypted by `WireGuard`: what is on the wire, who carries it, what is refused,
//! and what stays of it.
//!
//! Real `WireGuard` is in Debian's kernels: `cargo xtask vm`.

mod rotation;
mod stand;

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use anyhow::{Context as _, Result};
use overlay_tests::{
    agent::Agent, counters, guard::Guard, poll, run, script::words, traffic::payload,
};

use crate::stand::{Wire, both, encrypt, flows_fast, inject, key_of, send_plainly, with_key};

const DEVICE: &str = "ovlwg1";
/// Packets by protocol and port: VXLAN, and `WireGuard`.
const TUNNELLED: (u8, Option<u16>) = (17, Some(4789));
const ENCRYPTED: (u8, Option<u16>) = (17, Some(51_820));
/// A key that nobody has.
const NOBODYS: &str = "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=";

fn has_wireguard() -> bool {
    // In a namespace that ends with the program.
    let made = run::output("unshare --net ip link add tencprobe type wireguard");
    made.is_ok_and(|made| made.success)
}

#[test]
fn without_wireguard_nothing_is_changed() -> Result<()> {
    if has_wireguard() {
        println!("this kernel has WireGuard");
        return Ok(());
    }
    let guard = Guard::pair("tencno")?;
    let agent = guard.agent(1);
    let links = || run::checked("ip -n tencno-n1 -br link");
    let before = links()?;
    with_key(&guard, 1, NOBODYS)?;
    agent.tells("encrypt network lab: look for WireGuard in the kernel: it is not there")?;
    assert_eq!(links()?, before);
    // What goes on in the clear is not said to be encrypted.
    let status = agent.json(&["status"])?;
    assert_eq!(status["networks"][0]["encryption"]["in_force"], false);
    let text = agent.ask(&["status"])?.stdout;
    assert!(text.contains("NOT ENCRYPTED: there is no ovlwg1"), "{text}");
    let findings = agent.ask(&["doctor", "--output", "json"])?.stdout;
    assert!(findings.contains("wireguard-missing"), "{findings}");
    Ok(guard.down()?)
}

#[test]
fn the_key_is_printed_before_the_first_start_and_kept() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("node.toml");
    // Peers' keys are not known yet.
    fs::write(&config, "[node]\nname = \"tenckey\"\nunderlay = \"eth1\"\n")?;
    let program = overlay_tests::lab::agent_program();
    let program = program.to_string_lossy();
    let (config, dir) = (config.to_string_lossy(), folder.path().to_string_lossy());
    let argv = words(format!(
        "{program} key --config {config} --state-dir {dir} --runtime-dir {dir}"
    ));
    let first = run::checked(&argv)?;
    assert_eq!(first.trim().len(), 44, "{first}");
    assert_eq!(run::checked(&argv)?, first);
    let file = folder.path().join("tenckey/wireguard.key");
    assert_eq!(fs::metadata(&file)?.permissions().mode() & 0o777, 0o600);
    Ok(())
}

#[test]
#[ignore = "it needs WireGuard of Debian's kernels: cargo xtask vm"]
fn nothing_leaves_in_the_clear() -> Result<()> {
    let guard = Guard::pair("tencwg")?;
    let path = both(&guard);
    let secret = &payload(1200)[..64];

    // What the wire shows without encryption proves that it would show it.
    let wire = Wire::open(&guard)?;
    path.udp(&[1200])?;
    let plain = wire.close()?;
    assert!(plain.has(secret), "the datagram is seen in the clear");
    assert!(plain.packets().contains(&TUNNELLED));

    encrypt(&guard)?;
    flows_fast(&guard, "encryption")?;
    let status = guard.agent(1).json(&["status"])?;
    let network = &status["networks"][0];
    assert_eq!(network["mtu"], 1500 - 60 - 50, "{network}");
    assert_eq!(network["encryption"]["device"], DEVICE);
    let wire = Wire::open(&guard)?;
    for fast in [true, false] {
        guard.fastpath(fast)?;
        path.tcp(&[1 << 18])?;
        // The larger one in fragments, which are the kernel's on either path.
        path.udp(&[1200, 4000])?;
    }
    let seen = wire.close()?;
    assert!(!seen.has(secret), "a datagram is seen in the clear");
    let packets = seen.packets();
    let encrypted = |packet: &&(u8, Option<u16>)| **packet == ENCRYPTED;
    let others: Vec<_> = packets.iter().filter(|it| !encrypted(it)).collect();
    assert!(others.is_empty(), "beside WireGuard there is {others:?}");
    assert!(packets.len() > 20, "{}", packets.len());

    let peer = &guard.agent(1).json(&["status"])?["networks"][0]["peers"][0];
    assert!(peer["encryption"]["handshake_age_ms"].is_u64(), "{peer}");
    assert!(guard.agent(1).tell(&["status"])?.contains("keys agreed on"));
    refused_in_the_clear(&guard)?;
    kept_over_a_restart(&guard)?;
    another_key_is_found(&guard)?;
    leaves_nothing(&guard)?;
    Ok(guard.down()?)
}

/// What is not encrypted is dropped by name, by the programs, by the guard, and on its way out.
fn refused_in_the_clear(guard: &Guard) -> Result<()> {
    for fast in [true, false] {
        guard.fastpath(fast)?;
        let agent = guard.agent(1);
        let before = agent.drops()?;
        inject(guard)?;
        is_counted(&agent, &before, &format!("fast path {fast}"));
    }
    guard.fastpath(true)?;
    let agent = guard.agent(2);
    let before = agent.drops()?;
    // The kernel tells who sends.
    let _ = send_plainly(guard)?;
    is_counted(&agent, &before, "leaving");
    Ok(())
}

fn is_counted(agent: &Agent, before: &BTreeMap<String, u64>, when: &str) {
    let counted = poll::until_well(|| match agent.drops_since(before) {
        Ok(drops) if drops.contains(&("unencrypted".to_owned(), 1)) => None,
        other => Some(format!("{other:?}")),
    });
    assert_eq!(counted, Ok(()), "{when}");
}

fn kept_over_a_restart(guard: &Guard) -> Result<()> {
    let agent = guard.agent(1);
    let key = key_of(guard, 1)?;
    agent.stop()?;
    agent.start()?;
    assert_eq!(key_of(guard, 1)?, key);
    guard.is_whole(&agent, "a restart")?;
    flows_fast(guard, "a restart")?;

    let file = key_file(guard, 1);
    assert_eq!(fs::metadata(&file)?.permissions().mode() & 0o777, 0o600);
    let private = fs::read(&file)?;
    let hex = format!("{private:02x?}").replace(", ", "");
    let hex = hex.trim_matches(['[', ']']);
    let decimal = format!("{private:?}");
    let wg = run::checked(format!(
        "ip netns exec {} wg show {DEVICE} private-key",
        guard.topology().nodes[0].namespace
    ))?;
    let plan = format!("{:?}", agent.plan()?);
    let told = agent.log()? + &agent.tell(&["status", "--output", "json"])? + &plan;
    for secret in [hex, decimal.as_str(), wg.trim()] {
        assert!(!told.contains(secret), "the private key is told");
    }
    Ok(())
}

fn key_file(guard: &Guard, node: usize) -> PathBuf {
    let instance = &guard.topology().nodes[node - 1].namespace;
    let state = std::env::var_os("OVERLAY_STATE_DIR");
    let state = state.map_or_else(|| PathBuf::from("/var/lib/overlay"), PathBuf::from);
    state.join(instance).join("wireguard.key")
}

/// The other node's key is another one than this one was told.
fn another_key_is_found(guard: &Guard) -> Result<()> {
    let agent = guard.agent(1);
    with_key(guard, 1, NOBODYS)?;
    agent.until_done()?;
    let findings = poll::until_well(|| {
        let doctor = agent.ask(&["doctor", "--output", "json"]);
        match doctor {
            Ok(told) if told.stdout.contains("peer-no-handshake") => None,
            other => Some(format!("{other:?}")),
        }
    });
    assert_eq!(findings, Ok(()));
    // A peer that is given this node's own key is told at once.
    with_key(guard, 1, &key_of(guard, 1)?)?;
    agent.tells("is this node's own key")?;
    let findings = agent.ask(&["doctor", "--output", "json"])?.stdout;
    assert!(findings.contains("own-key"), "{findings}");
    encrypt(guard)?;
    flows_fast(guard, "the right key")
}

fn leaves_nothing(guard: &Guard) -> Result<()> {
    let agent = guard.agent(1);
    let node = &guard.topology().nodes[0].namespace;
    let before = counters::carried(&agent.instance)?;
    assert!(before.received > 0);
    agent.tell(&["down"])?;
    let links = run::checked(format!("ip -n {node} -br link"))?;
    assert!(!links.contains("ovl"), "{links}");
    let file = key_file(guard, 1);
    let folder = file.parent().context("a folder")?;
    assert!(!folder.exists(), "{}", folder.display());
    Ok(())
}
