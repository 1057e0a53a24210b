//! A repair of what others broke is told and counted; what somebody asked for is no repair.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result};
use overlay_tests::poll;
use tempfile::TempDir;

use crate::stand::Stand;

#[test]
fn a_repair_is_a_warning_that_says_what_was_missing() -> Result<()> {
    let stand = Stand::raise("trtold")?;
    let agent = &stand.agent;
    let repairs = || -> Result<u64> {
        Ok(agent.json(&["stats"])?["repairs"]
            .as_u64()
            .unwrap_or(u64::MAX))
    };
    let warnings = || -> Result<Vec<String>> {
        let log = agent.log()?;
        let lines = log.lines().filter(|line| line.contains("WARN repairing"));
        Ok(lines.map(str::to_owned).collect())
    };
    stand.is_whole("the start")?;
    // A switch, a container that comes and one that goes.
    agent.fastpath(false)?;
    agent.fastpath(true)?;
    agent.attach("trtold-more", "trtold-more")?;
    agent.tell(&["endpoint", "del", "trtold-more"])?;
    stand.is_whole("what was asked for")?;
    // A route and a translation of others change the guard's rules.
    for (command, chain, rule, is_there) in [
        (
            "ip route add 203.0.113.0/24 dev eth1",
            "routed",
            "203.0.113.0/24",
            true,
        ),
        (
            "nft 'table ip others { chain post { type nat hook postrouting priority 100; ip saddr 10.244.9.9 masquerade; }; }'",
            "leaving",
            "reject",
            false,
        ),
    ] {
        stand.on_node(command)?;
        let list = format!("nft list chain inet guard.overlay-trtold-n1 {chain}");
        poll::until(
            || stand.on_node(&list),
            |chain| chain.contains(rule) == is_there,
        )
        .context(command)?;
        stand.is_whole(command)?;
    }
    assert_eq!(repairs()?, 0, "{:?}", warnings()?);
    assert_eq!(warnings()?, Vec::<String>::new());

    for (command, missing) in [
        (
            "ip netns del trtold-n1c1",
            "namespace trtold-n1c1 was missing",
        ),
        // The kernel takes programs and routes from it first: a look can come in between.
        ("ip link del ovl1", "ovl1 was missing"),
        ("ip route del 10.244.2.0/24", "route 10.244.2.0/24"),
        ("ip link set ovlbr1 down", "device ovlbr1 had lost"),
        ("ip link del ovl-trtold-n1c1", "ovl-trtold-n1c1 was missing"),
        (
            "ip link set ovl-trtold-n1c1 down name mine0",
            "ovl-trtold-n1c1 was missing",
        ),
        // The mark, of a device, of a container's, and both again at once.
        (
            "ip link set ovlbr1 alias other",
            "device ovlbr1 had lost \"alias",
        ),
        ("ip link set ovl1 alias ''", "device ovl1 had lost \"alias"),
        (
            "nft delete table inet guard.overlay-trtold-n1",
            "the guard of the tunnels' ports",
        ),
    ] {
        let before = repairs()?;
        stand.on_node(command)?;
        let told = poll::until_well(|| match warnings() {
            Ok(lines) if lines.iter().any(|line| line.contains(missing)) => None,
            other => Some(format!("{other:?}")),
        });
        assert_eq!(told, Ok(()), "{command}\n{}", agent.log()?);
        stand.is_whole(command)?;
        assert!(repairs()? > before, "{command}");
    }
    Ok(stand.guard.down()?)
}

/// Something that is called like a network manager and runs on a node until the value goes: it
/// waits for the end of its input.
struct Daemon {
    _folder: TempDir,
    process: Child,
}

impl Daemon {
    fn start(name: &str, namespace: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let script = folder.path().join(name);
        fs::write(&script, "#!/bin/sh\nread forever\n")?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
        let process = Command::new("ip")
            .args(["netns", "exec", namespace])
            .arg(&script)
            .stdin(Stdio::piped())
            .spawn()
            .context("start a daemon")?;
        Ok(Self {
            _folder: folder,
            process,
        })
    }

    fn end(mut self) -> Result<()> {
        drop(self.process.stdin.take());
        self.process.wait().context("end a daemon")?;
        Ok(())
    }
}

#[test]
fn who_undoes_the_same_again_and_again_is_told_of_once_with_a_guess() -> Result<()> {
    const TIMES: u64 = 6;
    let stand = Stand::raise("trfight")?;
    let agent = &stand.agent;
    let daemon = Daemon::start("dhcpcd", &agent.instance)?;
    for round in 1..=TIMES {
        stand.on_node("ip route del 10.244.2.0/24")?;
        let repaired = poll::until_well(|| {
            let route = stand.on_node("ip route show 10.244.2.0/24");
            match route {
                Ok(route) if !route.trim().is_empty() => None,
                other => Some(format!("round {round}: {other:?}")),
            }
        });
        assert_eq!(repaired, Ok(()));
    }
    stand.is_whole("a fight")?;
    daemon.end()?;
    let log = agent.log()?;
    let lines_with = |text: &str| -> Vec<String> {
        let lines = log.lines().filter(|line| line.contains(text));
        lines.map(str::to_owned).collect()
    };
    let told = lines_with("again and again");
    assert_eq!(told.len(), 1, "{log}");
    assert!(
        told[0].contains("probably dhcpcd, which runs here"),
        "{told:?}"
    );
    assert!(told[0].contains("route 10.244.2.0/24"), "{told:?}");
    assert_eq!(lines_with("WARN repairing").len(), 2, "{log}");
    let repairs = agent.json(&["stats"])?["repairs"].as_u64();
    assert!(repairs >= Some(TIMES), "{repairs:?}");
    Ok(stand.guard.down()?)
}
