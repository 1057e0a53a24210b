//! Faults that are found without an agent, and those of agents that run.

use std::{fs, net::UdpSocket, path::Path, thread, time::Duration};

use anyhow::{Context as _, Result};
use overlay_common::wire::IANA_PORT;
use overlay_tests::{agent::Agent, lab, netns, run, script::words};
use serde_json::Value;

use crate::{
    fault::{Fault, commands, only_finding, paste},
    stand::{SAMPLE, Stand, of_the_node},
};

#[test]
fn without_an_agent_what_it_would_repair_is_found() -> Result<()> {
    let stand = Stand::raise("tdoca")?;
    stand.agent.stop()?;
    stand.is_well("the agent has ended", || stand.diagnosis_alone())?;
    for fault in [
        Fault::new(
            "ip-forward-off",
            "net.ipv4.ip_forward",
            "sysctl -qw net.ipv4.ip_forward=0",
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
        ),
    ] {
        fault.is_found_by(&stand, || stand.diagnosis_alone())?;
    }
    let pin = Path::new("/sys/fs/bpf/overlay").join(&stand.agent.instance);
    let pin = pin.join("links/from_underlay-eth1");
    // Without TCX there is no link.
    if pin.exists() {
        run::checked(&words(format!(
            "bpftool link detach pinned {}",
            pin.display()
        )))?;
        only_finding(&stand, "program-detached", "eth1", || {
            stand.diagnosis_alone()
        })?;
    }
    stand.agent.start()?;
    stand.is_well("the agent is back", || stand.diagnosis_alone())?;

    stand.agent.tell(&["down"])?;
    let node = &stand.agent.instance;
    let socket = netns::inside(node, || UdpSocket::bind(("0.0.0.0", IANA_PORT)))??;
    only_finding(&stand, "port-taken", "UDP port 4789", || {
        stand.diagnosis_alone()
    })?;
    drop(socket);
    stand.is_well("the port is free", || stand.diagnosis_alone())?;
    Ok(stand.guard.down()?)
}

/// A folder that somebody may mount something on.
struct MountPoint(tempfile::TempDir);

impl Drop for MountPoint {
    fn drop(&mut self) {
        let line = format!("umount {}", self.0.path().display());
        if let Err(error) = run::checked(&words(line)) {
            eprintln!("{error}");
        }
    }
}

/// It is mounted by what is printed.
fn a_missing_bpf_file_system(stand: &Stand) -> Result<()> {
    let folder = MountPoint(tempfile::tempdir()?);
    let pins = folder.0.path().join("overlay");
    let elsewhere = stand.agent.with("OVERLAY_BPF_DIR", pins.display());
    let (config, netns) = (stand.agent.config_file(), &stand.agent.instance);
    let config = config.to_string_lossy();
    let ask = || -> Result<Value> {
        let arguments = [
            "doctor", "--sample", SAMPLE, "--config", &config, "--netns", netns,
        ];
        Ok(of_the_node(elsewhere.json(&arguments)?))
    };
    let object = folder.0.path().to_string_lossy();
    let found = only_finding(stand, "bpffs-missing", &object, ask)?;
    commands(&found)
        .iter()
        .try_for_each(|command| paste(command))?;
    stand.is_well("a BPF file system was mounted", ask)
}

fn an_agent_whose_program_was_replaced(stand: &Stand) -> Result<()> {
    stand.agent.stop()?;
    let folder = tempfile::tempdir()?;
    let copy = folder.path().join("overlay-agent");
    fs::copy(lab::agent_program(), &copy)?;
    let name = &stand.guard.topology().shape.name;
    Agent::new(name, &copy, stand.agent.instance.clone()).start()?;
    fs::remove_file(&copy)?;
    only_finding(stand, "agent-replaced", "agent", || stand.diagnosis())?;
    stand.agent.stop()?;
    stand.agent.start()?;
    stand.is_healthy("the agent was restarted")
}

/// It is a fault where the kernel forwards them.
fn a_filter_of_forwarded_packets(stand: &Stand) -> Result<()> {
    let file = stand.agent.config_file();
    let good = fs::read_to_string(&file)?;
    fs::write(
        &file,
        good.replacen("vni = 1", "vni = 1\nfastpath = \"off\"", 1),
    )?;
    stand.is_healthy("the network was left to the kernel")?;
    Fault::new(
        "firewall-drops-forwarded",
        "inet fw c",
        "nft add table inet fw; \
         nft add chain inet fw c '{ type filter hook forward priority 0; policy drop; }'",
    )
    .cleared_by("n1", "nft delete table inet fw")
    .is_found(stand)
}

#[test]
fn faults_of_agents_and_of_what_they_run_on_are_found() -> Result<()> {
    let stand = Stand::raise("tdocr")?;
    a_missing_bpf_file_system(&stand)?;
    an_agent_whose_program_was_replaced(&stand)?;
    a_filter_of_forwarded_packets(&stand)?;
    the_node_is_looked_after_meanwhile(&stand)?;
    Ok(stand.guard.down()?)
}

/// Whoever examines for long keeps nobody waiting.
fn the_node_is_looked_after_meanwhile(stand: &Stand) -> Result<()> {
    let instance = &stand.agent.instance;
    let argv = stand
        .agent
        .argv(&["doctor", "--sample", "60", "--instance", instance]);
    let mut doctor = run::command(&argv).spawn()?;
    for _ in 0..5 {
        assert!(stand.agent.ask(&["status"])?.success);
        thread::sleep(Duration::from_millis(100));
    }
    let ended = doctor.try_wait()?;
    doctor.kill()?;
    doctor.wait()?;
    assert_eq!(ended, None);
    Ok(())
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
    assert_eq!(out.code, Some(2), "{}{}", out.stdout, out.stderr);
    let out = program.call(&["doctor", "--sample", "0"])?;
    assert_eq!(out.code, Some(2), "{}{}", out.stdout, out.stderr);

    stand.within("n1", "ip address add 192.168.56.12/24 dev eth1")?;
    only_finding(&stand, "duplicate-vtep", "192.168.56.12", || {
        stand.diagnosis()
    })?;
    let out = program.ask(&["doctor", "--sample", SAMPLE])?;
    assert_eq!(out.code, Some(1), "{}{}", out.stdout, out.stderr);
    // Problems come first.
    let first = out.stdout.lines().next().context("it prints something")?;
    assert!(first.starts_with("problem: 192.168.56.12: "), "{first}");
    for part in [
        "  why:  ",
        "  cure: ",
        "        # nsenter --net=/run/netns/tdoci-n1 ip address del",
    ] {
        assert!(out.stdout.contains(part), "no {part:?} in {}", out.stdout);
    }
    Ok(stand.guard.down()?)
}
