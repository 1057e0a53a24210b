//! Faults of the machine, which others use: they are shown to `doctor` alone.
//!
//! What is one for the whole machine, such as the kernel's release, is a file here, mounted in the
//! place of the kernel's in a mount namespace that ends with the command. What is counted, or
//! lacked, is real.

use std::{
    fs,
    io::{self, Write as _},
    net::{Ipv4Addr, UdpSocket},
    os::fd::AsRawFd as _,
};

use anyhow::{Context as _, Result};
use nix::{errno::Errno, libc};
use overlay_tests::{
    netns, poll, run,
    script::{inside, words},
};
use serde_json::Value;
use tempfile::NamedTempFile;

use crate::{
    fault::{commands, finding_with, only_finding, pasted},
    stand::{SAMPLE, Stand, alone, diagnosis_by, run_of},
};

/// A kernel setting that is another one for commands that are run behind it.
struct Setting {
    path: String,
    file: NamedTempFile,
}

impl Setting {
    /// Its key is a path below `/proc/sys`.
    fn is(key: &str, value: &str) -> Result<Self> {
        Self::holds(key, value.as_bytes())
    }

    fn holds(key: &str, value: &[u8]) -> Result<Self> {
        let mut file = NamedTempFile::new()?;
        file.write_all(&[value, b"\n"].concat())?;
        let path = format!("/proc/sys/{key}");
        Ok(Self { path, file })
    }

    /// A command line that sees it, and can set it.
    fn seen_by(&self, argv: Vec<String>) -> Vec<String> {
        let mut line = words("unshare --mount sh -c");
        line.push("mount --bind \"$0\" \"$1\" && shift && exec \"$@\"".to_owned());
        line.push(self.file.path().to_string_lossy().into_owned());
        line.push(self.path.clone());
        line.extend(argv);
        line
    }
}

#[test]
fn what_is_wrong_with_the_machine_is_found() -> Result<()> {
    let stand = Stand::raise("tdocm")?;
    an_older_kernel(&stand)?;
    programs_that_are_interpreted(&stand)?;
    a_capability_that_is_missing(&stand)?;
    connections_that_fill_their_table(&stand)?;
    connections_that_cannot_be_told(&stand)?;
    rules_of_the_older_iptables(&stand)?;
    Ok(stand.guard.down()?)
}

/// By the agent, too, which tells what follows.
fn an_older_kernel(stand: &Stand) -> Result<()> {
    const OLD: &str = "5.10.0-35-amd64";
    let old = Setting::is("kernel/osrelease", OLD)?;
    let agent = &stand.agent;
    agent.stop()?;
    let found = only_finding(stand, "kernel-too-old", "kernel", || {
        diagnosis_by(&old.seen_by(alone(agent)))
    })?;
    let what = found["what"].as_str().context("a text")?;
    assert!(what.contains(OLD), "{what}");
    stand.start_by(old.seen_by(run_of(agent)))?;
    finding_with(
        stand,
        ("kernel-too-old", "kernel"),
        Some("fastpath-unavailable"),
        || stand.diagnosis(),
    )?;
    agent.stop()?;
    agent.start()?;
    stand.is_healthy("the kernel is as new as it is")
}

/// The kernel shows it only outside of namespaces: there is no node, so that more is found.
fn programs_that_are_interpreted(stand: &Stand) -> Result<()> {
    let off = Setting::is("net/core/bpf_jit_enable", "0")?;
    let mut config = stand.guard.first_config();
    "tdocm-nowhere".clone_into(&mut config.node.name);
    "nowhere".clone_into(&mut config.node.underlay);
    config.endpoints.clear();
    config.networks[0].peers.clear();
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("node.toml");
    fs::write(&file, config.to_toml())?;
    let doctor = stand.agent.argv(&[
        "doctor",
        "--sample",
        SAMPLE,
        "--output",
        "json",
        "--config",
        &file.to_string_lossy(),
    ]);
    let find = || -> Result<Option<Value>> {
        let diagnosis = diagnosis_by(&off.seen_by(doctor.clone()))?;
        let findings = diagnosis["findings"].as_array().context("a list")?;
        let mut found = findings.iter();
        Ok(found.find(|found| found["check"] == "bpf-jit-off").cloned())
    };
    let found = find()?.context("it is not found")?;
    for command in commands(&found) {
        run::checked(off.seen_by(pasted(&command)))?;
    }
    assert_eq!(find()?, None);
    Ok(())
}

fn a_capability_that_is_missing(stand: &Stand) -> Result<()> {
    let mut without = words("setpriv --bounding-set -net_admin --inh-caps -net_admin");
    without.extend(alone(&stand.agent));
    let found = only_finding(stand, "privileges-missing", "agent", || {
        diagnosis_by(&without)
    })?;
    let what = found["what"].as_str().context("a text")?;
    assert!(what.contains("CAP_NET_ADMIN"), "{what}");
    Ok(())
}

/// By the agent, which asks for those that the kernel translates, again and again.
fn connections_that_cannot_be_told(stand: &Stand) -> Result<()> {
    let count = Setting::holds("net/netfilter/nf_conntrack_count", b"\xff")?;
    let agent = &stand.agent;
    agent.fastpath(false)?;
    agent.stop()?;
    // What is below `net` is another file in each namespace.
    let mut line = words(format!("nsenter --net=/run/netns/{}", agent.instance));
    line.extend(count.seen_by(run_of(agent)));
    stand.start_by(line)?;
    // Programs that come may have missed some.
    assert_eq!(poll::until_well(|| agent.fastpath(true).err()), Ok(()));
    // Doctor reads the same number, and has to give up.
    agent.status_until(|status| status["problems"][0]["id"] == "flows-unknown")?;
    agent.stop()?;
    agent.start()?;
    stand.is_healthy("connections can be told again")
}

/// The limit is the whole machine's; the connections are the node's.
fn connections_that_fill_their_table(stand: &Stand) -> Result<()> {
    stand.within(
        "n1",
        "nft add table inet track; \
         nft add chain inet track c '{ type filter hook output priority 0; }'; \
         nft add rule inet track c ct state new counter",
    )?;
    let limit = Setting::is("net/netfilter/nf_conntrack_max", "50")?;
    let node = &stand.agent.instance;
    let within = |argv: Vec<String>| {
        let mut line = words(inside(node, ""));
        line.extend(limit.seen_by(argv));
        line
    };
    let ask = || {
        netns::inside(node, connect)??;
        diagnosis_by(&within(alone(&stand.agent)))
    };
    let found = only_finding(stand, "conntrack-nearly-full", "conntrack", ask)?;
    for command in commands(&found) {
        run::checked(within(pasted(&command)))?;
    }
    stand.is_well("more connections are allowed", ask)?;
    stand.within("n1", "nft delete table inet track").map(drop)
}

/// As many as are more than nine tenths of 50, and less of 100; always the same ones.
fn connect() -> io::Result<()> {
    const FIRST: u16 = 20_000;
    let to = (Ipv4Addr::LOCALHOST, FIRST);
    let _listener = UdpSocket::bind(to)?;
    for port in FIRST + 1..=FIRST + 60 {
        UdpSocket::bind((Ipv4Addr::LOCALHOST, port))?.send_to(b"connected", to)?;
    }
    Ok(())
}

/// Goes with the namespace only.
fn rules_of_the_older_iptables(stand: &Stand) -> Result<()> {
    match netns::inside(&stand.agent.instance, ask_for_the_filter_table)? {
        Err(Errno::ENOPROTOOPT) => {
            eprintln!("this kernel has no iptables of the older kind");
            return Ok(());
        }
        asked => asked?,
    }
    let found = only_finding(stand, "legacy-iptables", "iptables", || stand.diagnosis())?;
    assert_eq!(found["severity"], "note", "{found:#}");
    Ok(())
}

/// What `iptables-legacy` does first: the kernel makes the table for it.
fn ask_for_the_filter_table() -> nix::Result<()> {
    /// `IPT_SO_GET_INFO`, and the bytes of `struct ipt_getinfo`, which begins with a name.
    const GET_INFO: libc::c_int = 64;
    const BYTES: u8 = 84;
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|error| {
        let number = error.raw_os_error();
        number.map_or(Errno::EIO, Errno::from_raw)
    })?;
    let mut info = [0_u8; BYTES as usize];
    info[..6].copy_from_slice(b"filter");
    let mut length = libc::socklen_t::from(BYTES);
    // SAFETY: the kernel reads and writes at most `length` bytes, which `info` has, and `length`
    // itself; both live for the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_IP,
            GET_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    Errno::result(result).map(drop)
}
