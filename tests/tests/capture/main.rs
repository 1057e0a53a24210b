//! `capture` and `log-level`: what is written is what went through the programs, and afterwards
//! everything is as it was.

mod capturing;
mod logging;
mod monitoring;

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::{PermissionsExt as _, symlink},
    process::Stdio,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, ensure};
use overlay_common::maps;
use overlay_tests::{
    agent::Agent,
    check::{self, Answer},
    counters,
    families::{Families, Family},
    frames::{Ip, ethernet},
    guard::Guard,
    poll,
    raw::{self, Socket},
    run,
    shape::{Scenario, Shape},
    traffic::Pair,
};
use serde_json::Value;

use capturing::{Capturing, Packet};

/// What the programs tell the log of a packet that they drop.
const DROPPED: &str = "dropped spoofed_source";

/// Name, tag and length of the programs that an instance has loaded, however they are attached:
/// another build, or one that tells, differs in them.
fn programs(instance: &str) -> Result<Vec<(String, String, u64)>> {
    let ports = counters::pin(instance, maps::PORTS)?;
    let ports = bpftool(&format!("map show pinned {}", ports.display()))?;
    let all = bpftool("prog show")?;
    let all = all.as_array().context("a list of programs")?.iter();
    let ours = all.filter(|program| {
        let maps = program["map_ids"].as_array();
        maps.is_some_and(|maps| maps.contains(&ports["id"]))
    });
    let mut found = Vec::new();
    for program in ours {
        let text = |field: &str| program[field].as_str().context("a text").map(str::to_owned);
        let length = program["bytes_xlated"].as_u64().context("a length")?;
        found.push((text("name")?, text("tag")?, length));
    }
    found.sort();
    ensure!(!found.is_empty(), "no programs of {instance}");
    Ok(found)
}

fn bpftool(arguments: &str) -> Result<Value> {
    let text = run::checked(format!("bpftool --json {arguments}"))?;
    Ok(serde_json::from_str(&text)?)
}

/// Waits until the usual programs are back.
fn are_back(agent: &Agent, before: &[(String, String, u64)]) -> Result<()> {
    poll::until(|| programs(&agent.instance), |now| now == before)?;
    assert_eq!(agent.plan()?, Vec::<Value>::new());
    Ok(())
}

fn lab(name: &str) -> Result<Guard> {
    let shape = Shape::usual(name, Scenario::Overlay)?;
    let guard = Guard::up(shape.speaking(Families::V4, Families::Both)?)?;
    check::all_pairs_are_well(guard.topology())?;
    Ok(guard)
}

/// Sends a datagram from an address that is not the container's.
fn spoof(guard: &Guard, times: usize) -> Result<()> {
    let [here, there] = guard.topology().two_nodes();
    let from = &here.containers[0];
    let mac = raw::mac_of(&from.namespace, "eth0")?;
    let gateway = raw::neighbour_of(&from.namespace, here.gateway.context("a gateway")?.into())?;
    let source = here.containers[1].address.into();
    let ip = Ip::new(source, there.containers[0].address.into());
    let frame = ethernet(
        gateway,
        mac,
        ip.ethertype(),
        &ip.around_udp(1000, 9, b"as somebody else"),
    );
    let entrance = Socket::open(&from.namespace, "eth0")?;
    for _ in 0..times {
        entrance.send(&frame)?;
    }
    Ok(())
}

#[test]
fn packets_are_written_as_the_programs_saw_them() -> Result<()> {
    let guard = lab("tcap")?;
    let agent = guard.agent(1);
    let [here, there] = guard.topology().two_nodes();
    let (from, to) = (&here.containers[0], &there.containers[0]);
    let before = programs(&agent.instance)?;
    let started = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
    let capturing = Capturing::start(&guard, &agent, &["--seconds", "5", "--snap", "200"])?;
    let watching = programs(&agent.instance)?;
    assert!(watching.iter().any(|program| !before.contains(program)));
    for family in [Family::V4, Family::V6] {
        let pair = Pair::between(from, to, family);
        pair.icmp(&[56, 1000])?;
    }
    spoof(&guard, 2)?;
    let (packets, said) = capturing.finish()?;
    let ended = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
    are_back(&agent, &before)?;

    let device = format!("ovl-{}", from.namespace);
    let (entrance, exit) = (
        format!("from_endpoint {device}"),
        format!("from_endpoint {device} out"),
    );
    let of = |interface: &str, protocols: &str| -> Vec<&Packet> {
        let of = packets
            .iter()
            .filter(|packet| packet.interface == interface);
        of.filter(|packet| packet.protocols.starts_with(protocols))
            .collect()
    };
    for (inner, ttl, routed) in [("ip:icmp", "64", "64,63"), ("ipv6:icmpv6", "", "64")] {
        let came = of(&entrance, &format!("eth:ethertype:{inner}"));
        let sent: Vec<_> = came
            .iter()
            .filter(|packet| packet.comment.contains(": forwarded to eth1"))
            .collect();
        assert_eq!(sent.len(), 2, "{inner}: {packets:#?}");
        assert!(sent.iter().all(|packet| packet.ttls == ttl));
        let went = of(
            &exit,
            &format!("eth:ethertype:ip:udp:vxlan:eth:ethertype:{inner}"),
        );
        assert_eq!(went.len(), 2, "{inner}: {packets:#?}");
        assert!(went.iter().all(|packet| packet.ttls == routed), "{went:#?}");
        assert!(went.iter().all(|packet| {
            packet
                .comment
                .contains(&format!("peer {}", there.namespace))
        }));
        let back = of("from_underlay eth1 out", &format!("eth:ethertype:{inner}"));
        assert_eq!(back.len(), 2, "{inner}: {packets:#?}");
    }
    let spoofed = packets.iter().filter(|packet| {
        packet
            .comment
            .contains(": dropped: spoofed_source: an endpoint sent from")
    });
    assert_eq!(spoofed.count(), 2, "{packets:#?}");
    for packet in &packets {
        // What is cut off is no packet's fault.
        assert!(
            !packet.malformed || packet.captured < packet.length,
            "{packet:#?}"
        );
        assert_eq!(packet.captured, packet.length.min(200));
        assert!((started..=ended).contains(&packet.time), "{packet:#?}");
        assert!(!packet.comment.is_empty(), "{packet:#?}");
    }
    assert!(said.contains(" packets, in "), "{said}");
    Ok(guard.down()?)
}

#[test]
fn only_what_is_asked_for_is_written() -> Result<()> {
    let guard = lab("tcaps")?;
    let agent = guard.agent(1);
    let [here, there] = guard.topology().two_nodes();
    let (one, two) = (&here.containers[0].namespace, &here.containers[1].namespace);
    let far = there.containers[0].address;
    let traffic = || -> Result<()> {
        for from in [one, two] {
            assert_eq!(check::ping(from, far)?, Answer::Ttl(62));
        }
        assert_eq!(
            check::ping(two, here.containers[0].address)?,
            Answer::Ttl(64)
        );
        spoof(&guard, 1)
    };
    let captured = |arguments: &[&str]| -> Result<Vec<Packet>> {
        let capturing =
            Capturing::start(&guard, &agent, &[arguments, &["--seconds", "2"]].concat())?;
        traffic()?;
        Ok(capturing.finish()?.0)
    };
    let mine = format!("ovl-{one}");

    let packets = captured(&["--reason", "dropped"])?;
    assert!(
        packets
            .iter()
            .all(|packet| packet.comment.contains("dropped: spoofed_source"))
            && packets.len() == 1,
        "{packets:#?}"
    );

    let packets = captured(&["--endpoint", one, "--reason", "forwarded"])?;
    assert!(
        packets.iter().all(|packet| packet.comment.contains(&mine)),
        "{packets:#?}"
    );
    // There, back, and what the other sends to it and gets from it; each as it came and went.
    assert_eq!(packets.len(), 8, "{packets:#?}");

    let packets = captured(&["--peer", &there.namespace, "--hook", "from_underlay"])?;
    assert!(
        packets
            .iter()
            .all(|packet| packet.interface.starts_with("from_underlay eth1")),
        "{packets:#?}"
    );
    assert_eq!(
        packets
            .iter()
            .filter(|packet| packet.interface.ends_with("out"))
            .count(),
        2,
        "{packets:#?}"
    );

    let capturing = Capturing::start(&guard, &agent, &["-c", "3"])?;
    traffic()?;
    let (packets, said) = capturing.finish()?;
    assert!(said.contains("3 packets"), "{said}");
    assert!((3..=6).contains(&packets.len()));

    // As tcpdump's users ask for it.
    let only = format!(
        "icmp and src host {far} and not dst {}",
        here.containers[1].address
    );
    let packets = captured(&["-s", "60", &only])?;
    assert_eq!(packets.len(), 2, "{packets:#?}");
    for packet in &packets {
        assert!(
            packet.interface.starts_with("from_underlay eth1"),
            "{packet:#?}"
        );
        assert_eq!(packet.captured, 60, "{packet:#?}");
    }

    let folder = tempfile::tempdir()?;
    let [kept, absent] = ["kept", "absent"].map(|name| folder.path().join(name));
    fs::write(&kept, "an earlier capture")?;
    for (arguments, says, code) in [
        (&["--endpoint", "nobody"][..], "endpoint list", 5),
        (&["--peer", "nobody"], "status", 5),
        (&["--reason", "nothing"], "spoofed_source", 2),
        (&["--hook", "nowhere"], "from_underlay", 2),
        (&["--snap", "9000"], "2048", 2),
        (&["host", "web"], "\"web\" is not an IP address", 2),
    ] {
        for file in [&kept, &absent] {
            let file = file.to_str().context("a path of text")?;
            let out = agent.ask(&[&["capture", "-w", file], arguments].concat())?;
            assert_eq!(out.code, Some(code), "{}", out.stderr);
            assert!(out.stderr.contains(says), "{}", out.stderr);
        }
    }
    assert_eq!(fs::read_to_string(&kept)?, "an earlier capture");
    assert!(!absent.exists(), "nothing was captured");
    Ok(guard.down()?)
}

#[test]
fn a_link_where_others_can_put_one_is_not_followed() -> Result<()> {
    let guard = lab("tcapk")?;
    let agent = guard.agent(1);
    let folder = tempfile::tempdir()?;
    let (link, theirs) = (folder.path().join("c.pcapng"), folder.path().join("theirs"));
    fs::write(&theirs, "somebody's notes")?;
    symlink(&theirs, &link)?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o1777))?;
    let name = link.display().to_string();
    let capture = ["capture", "-w", &name, "--seconds", "1"];
    let out = agent.ask(&capture)?;
    assert!(
        out.stderr.contains("a symbolic link in a folder"),
        "{}",
        out.stderr
    );
    assert_eq!(fs::read(&theirs)?, b"somebody's notes");
    assert!(link.is_symlink());
    // Where nobody else can, it is the user's own.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700))?;
    agent.tell(&capture)?;
    assert_ne!(fs::read(&theirs)?, b"somebody's notes");
    Ok(guard.down()?)
}

#[test]
fn whoever_goes_away_leaves_the_usual_programs() -> Result<()> {
    let guard = lab("tcapg")?;
    let agent = guard.agent(1);
    let [here, there] = guard.topology().two_nodes();
    let (from, far) = (&here.containers[0].namespace, there.containers[0].address);
    let before = programs(&agent.instance)?;

    // The reader dies.
    let mut capturing = Capturing::start(&guard, &agent, &[])?;
    assert_ne!(programs(&agent.instance)?, before);
    let second = agent.ask(&["capture", "-w", "/dev/null"])?;
    assert_eq!(second.code, Some(6), "{}", second.stderr);
    assert!(
        second
            .stderr
            .contains("start a capture: a capture by process "),
        "{}",
        second.stderr
    );
    capturing.kill()?;
    are_back(&agent, &before)?;

    // The reader hangs: its standard output is full and nobody reads it.
    let argv = agent.argv(&[
        "capture",
        "-w",
        "-",
        "--snap",
        "2048",
        "--instance",
        &agent.instance,
    ]);
    let mut hung = run::command(&argv)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let stderr = hung.stderr.take().context("standard error")?;
    let mut said = String::new();
    let away = BufReader::new(stderr).read_line(&mut said);
    let pair = Pair {
        client: from,
        server: &there.containers[0].namespace,
        address: far.into(),
    };
    let flowed = pair.udp(&[1000; 200]);
    let back = are_back(&agent, &before);
    hung.kill()?;
    hung.wait()?;
    away?;
    assert!(said.starts_with("capturing on"), "{said}");
    flowed?;
    back?;

    // The agent dies, and starts again without a capture.
    let mut capturing = Capturing::start(&guard, &agent, &[])?;
    agent.kill()?;
    assert_ne!(programs(&agent.instance)?, before);
    assert_eq!(check::ping(from, far)?, Answer::Ttl(62));
    agent.start()?;
    are_back(&agent, &before)?;
    capturing.kill()?;
    Ok(guard.down()?)
}
