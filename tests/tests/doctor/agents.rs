//! Faults of agents that run, and of what they run on.

use std::{fs, net::TcpListener, thread, time::Duration};

use anyhow::Result;
use overlay_tests::{agent::Agent, lab, netns, run};

use crate::{
    fault::{Fault, cure, only_finding},
    stand::{Stand, alone, diagnosis_by, reconfigured, run_of},
};

/// A folder that somebody may mount something on.
struct MountPoint(tempfile::TempDir);

impl MountPoint {
    fn make() -> Result<Self> {
        Ok(Self(tempfile::tempdir()?))
    }

    /// The agent with its pins there.
    fn of(&self, agent: &Agent) -> Agent {
        agent.with("OVERLAY_BPF_DIR", self.0.path().join("overlay").display())
    }
}

impl Drop for MountPoint {
    fn drop(&mut self) {
        let line = format!("umount {}", self.0.path().display());
        if let Err(error) = run::checked(line) {
            eprintln!("{error}");
        }
    }
}

#[test]
fn faults_of_agents_and_of_what_they_run_on_are_found() -> Result<()> {
    let stand = Stand::raise("tdocr")?;
    a_missing_bpf_file_system(&stand)?;
    a_bpf_file_system_that_takes_no_pins(&stand)?;
    an_agent_whose_program_was_replaced(&stand)?;
    an_address_that_the_agent_cannot_listen_at(&stand)?;
    a_filter_of_forwarded_packets(&stand)?;
    the_node_is_looked_after_meanwhile(&stand)?;
    Ok(stand.guard.down()?)
}

/// It is mounted by what is printed.
fn a_missing_bpf_file_system(stand: &Stand) -> Result<()> {
    let folder = MountPoint::make()?;
    let elsewhere = folder.of(&stand.agent);
    let ask = || diagnosis_by(&alone(&elsewhere));
    let object = folder.0.path().to_string_lossy();
    let found = only_finding(stand, "bpffs-missing", &object, ask)?;
    cure(&found)?;
    stand.is_well("a BPF file system was mounted", ask)
}

fn a_bpf_file_system_that_takes_no_pins(stand: &Stand) -> Result<()> {
    stand.agent.tell(&["down"])?;
    let folder = MountPoint::make()?;
    let at = folder.0.path().display();
    run::checked(format!("mount -t bpf bpf {at}"))?;
    run::checked(format!("mount -o remount,bind,ro {at}"))?;
    let elsewhere = folder.of(&stand.agent);
    stand.start_by(run_of(&elsewhere))?;
    only_finding(stand, "fastpath-unavailable", "fast path", || {
        stand.diagnosis()
    })?;
    run::checked(format!("mount -o remount,bind,rw {at}"))?;
    stand.agent.fastpath(true)?;
    stand.is_healthy("pins can be made")?;
    elsewhere.tell(&["down"])?;
    drop(folder);
    stand.agent.start()?;
    stand.is_healthy("pins are where they were")
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

/// Somebody else listens where it should.
fn an_address_that_the_agent_cannot_listen_at(stand: &Stand) -> Result<()> {
    const THERE: &str = "127.0.0.1:9999";
    let node = &stand.agent.instance;
    let taken = netns::inside(node, || TcpListener::bind(THERE))??;
    let back = reconfigured(
        &stand.agent,
        "[node]",
        &format!("[node]\nmetrics = \"{THERE}\""),
    )?;
    only_finding(stand, "metrics-closed", THERE, || stand.diagnosis())?;
    drop(taken);
    back()?;
    stand.is_healthy("an address that was taken")
}

/// It is a fault where the kernel forwards them.
fn a_filter_of_forwarded_packets(stand: &Stand) -> Result<()> {
    let back = reconfigured(&stand.agent, "vni = 1", "vni = 1\nfastpath = \"off\"")?;
    stand.is_healthy("the network was left to the kernel")?;
    Fault::new(
        "firewall-drops-forwarded",
        "inet fw c",
        "nft add table inet fw; \
         nft add chain inet fw c '{ type filter hook forward priority 0; policy drop; }'",
    )
    .cleared_by("n1", "nft delete table inet fw")
    .is_found(stand)?;
    back()?;
    stand.is_healthy("the network is carried again")
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
