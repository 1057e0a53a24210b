//! What the agent alone knows: `doctor` tells all that `status` tells, under the same names.

use std::{collections::BTreeSet, fs, net::UdpSocket};

use anyhow::{Context as _, Result};
use overlay_tests::{netns, poll, run};
use serde_json::Value;

use crate::{
    fault::only_finding,
    stand::{Stand, reconfigured, run_of},
};

/// The port of probes, as the documentation gives it.
const PROBES: u16 = 14_789;

#[test]
fn what_only_the_agent_knows_is_found() -> Result<()> {
    let stand = Stand::raise("tdoct")?;
    probes_that_cannot_be_answered(&stand)?;
    a_device_that_cannot_be_made(&stand)?;
    a_source_that_was_given_away(&stand)?;
    a_state_that_cannot_be_saved(&stand)?;
    doctor_tells_all_that_status_tells(&stand)?;
    an_endpoint_is_not_refused_for_the_faults_of_another(&stand)?;
    Ok(stand.guard.down()?)
}

/// Somebody else has the port.
fn probes_that_cannot_be_answered(stand: &Stand) -> Result<()> {
    let node = &stand.agent.instance;
    let on = reconfigured(&stand.agent, "[node]", "[node]\nprobe = \"off\"")?;
    let mut taken = None;
    let free = poll::until_well(|| match netns::inside(node, bind) {
        Ok(Ok(socket)) => {
            taken = Some(socket);
            None
        }
        other => Some(format!("{other:?}")),
    });
    assert_eq!(free, Ok(()));
    let _off = reconfigured(&stand.agent, "probe = \"off\"", "probe = \"answer\"")?;
    only_finding(stand, "probes-fail", "probes", || stand.diagnosis())?;
    drop(taken);
    on()?;
    stand.is_healthy("a port of probes that was taken")
}

fn bind() -> std::io::Result<UdpSocket> {
    UdpSocket::bind(("0.0.0.0", PROBES))
}

/// Another name of the underlay's interface is that of a bridge to be made.
fn a_device_that_cannot_be_made(stand: &Stand) -> Result<()> {
    const NETWORK: &str = "[[networks]]\nname = \"other\"\nvni = 7\n\
                           cidr = [\"10.99.0.0/16\"]\nsubnet = [\"10.99.1.0/24\"]\n";
    stand.within("n1", "ip link property add dev eth1 altname ovlbr7")?;
    let file = stand.agent.config_file();
    let good = fs::read_to_string(&file)?;
    fs::write(&file, format!("{good}\n{NETWORK}"))?;
    only_finding(stand, "agent-cannot", "ovlbr7", || stand.diagnosis())?;
    stand.within("n1", "ip link property del dev eth1 altname ovlbr7")?;
    stand.is_healthy("the name is free")?;
    fs::write(&file, good)?;
    stand.is_healthy("one network")
}

/// The configuration gives what is behind a container to a peer.
fn a_source_that_was_given_away(stand: &Stand) -> Result<()> {
    stand.agent.tell(&[
        "endpoint",
        "add",
        "router",
        "--network",
        "lab",
        "--netns",
        "tdoct-router",
        "--forwarding",
        "--allowed-source",
        "10.244.99.0/24",
    ])?;
    let back = reconfigured(
        &stand.agent,
        "\"10.244.2.0/24\"",
        "\"10.244.2.0/24\", \"10.244.99.0/25\"",
    )?;
    only_finding(stand, "source-taken", "router", || stand.diagnosis())?;
    back()?;
    stand.is_healthy("it is behind the container again")?;
    stand.agent.tell(&["endpoint", "del", "router"])?;
    stand.is_healthy("the container is gone")
}

/// A disk that lets nothing be written.
fn a_state_that_cannot_be_saved(stand: &Stand) -> Result<()> {
    stand.agent.tell(&["down"])?;
    let disk = Disk::mount()?;
    let elsewhere = stand
        .agent
        .with("OVERLAY_STATE_DIR", disk.0.path().display());
    stand.start_by(run_of(&elsewhere))?;
    stand.is_healthy("the state is elsewhere")?;
    disk.remount("ro")?;
    stand.agent.fastpath(false)?;
    stand.agent.fastpath(true)?;
    only_finding(stand, "state-not-saved", "state", || stand.diagnosis())?;
    disk.remount("rw")?;
    stand.is_healthy("the disk takes it")?;
    elsewhere.tell(&["down"])?;
    stand.agent.start()?;
    stand.is_healthy("the state is where it was")
}

struct Disk(tempfile::TempDir);

impl Disk {
    fn mount() -> Result<Self> {
        let disk = Self(tempfile::tempdir()?);
        run::checked(format!("mount -t tmpfs none {}", disk.0.path().display()))?;
        Ok(disk)
    }

    fn remount(&self, how: &str) -> Result<()> {
        let line = format!("mount -o remount,{how} {}", self.0.path().display());
        run::checked(line)?;
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: an agent of a test that failed can still be at work there.
        let line = format!("umount --lazy {}", self.0.path().display());
        if let Err(error) = run::checked(line) {
            eprintln!("{error}");
        }
    }
}

const LOST: &str =
    "\n[[endpoints]]\nname = \"web2\"\nnetwork = \"lab\"\nnetns = \"/run/netns/none-such\"\n";

/// Of several faults at once.
fn doctor_tells_all_that_status_tells(stand: &Stand) -> Result<()> {
    let file = stand.agent.config_file();
    let good = fs::read_to_string(&file)?;
    let without_route = good.replacen("192.168.56.13", "203.0.113.13", 1);
    fs::write(&file, format!("{without_route}{LOST}"))?;
    let expected = BTreeSet::from([
        ("endpoint-not-attached".to_owned(), "web2".to_owned()),
        ("peer-no-route".to_owned(), "tdoct-n3".to_owned()),
    ]);
    let told = poll::until_well(|| match stand.agent.json(&["status"]) {
        Ok(status) if named(&status["problems"], "id", "subject") == expected => {
            let mut problems = status["problems"].as_array().into_iter().flatten();
            let stamped = problems.all(|problem| {
                let since = problem["since"].as_str().unwrap_or_default();
                since.starts_with("20") && since.ends_with('Z')
            });
            (!stamped || status["healthy"] != false).then(|| format!("{status:#}"))
        }
        other => Some(format!("{other:#?}")),
    });
    assert_eq!(told, Ok(()));
    let found = stand.diagnosis()?;
    let named_here = named(&found["findings"], "check", "object");
    assert!(expected.is_subset(&named_here), "{named_here:?}");
    // The cure of either can be pasted outside the node's namespace.
    let status = stand.agent.json(&["status"])?;
    let cure = format!(
        "nsenter --net=/run/netns/{} ip route get",
        stand.agent.instance
    );
    for told in [&status["problems"], &found["findings"]] {
        assert!(told.to_string().contains(&cure), "no {cure:?} in {told:#}");
    }
    fs::write(&file, good)?;
    stand.is_healthy("several faults")
}

fn named(list: &Value, id: &str, subject: &str) -> BTreeSet<(String, String)> {
    let list = list.as_array().into_iter().flatten();
    let text = |one: &Value, part: &str| one[part].as_str().unwrap_or_default().to_owned();
    list.map(|one| (text(one, id), text(one, subject)))
        .collect()
}

/// `web2` has its own, and `web` another one.
fn an_endpoint_is_not_refused_for_the_faults_of_another(stand: &Stand) -> Result<()> {
    let file = stand.agent.config_file();
    let good = fs::read_to_string(&file)?;
    fs::write(&file, format!("{good}{LOST}"))?;
    only_finding(stand, "endpoint-not-attached", "web2", || stand.diagnosis())?;
    let out = stand.agent.ask(&[
        "endpoint",
        "add",
        "web",
        "--network",
        "lab",
        "--netns",
        "/run/netns/not-there",
    ])?;
    assert!(!out.success, "{out:?}");
    let line = out.stderr.lines().find(|line| line.contains("web"));
    let line = line.context("it says why")?;
    assert!(line.contains("not-there"), "{out:?}");
    assert!(!out.stderr.contains("web2"), "{out:?}");
    fs::write(&file, good)?;
    stand.is_healthy("nobody is left out")
}
