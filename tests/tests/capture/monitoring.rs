//! `monitor`: a line for each packet, as it happens, and the usual programs before and after.

use std::process::{Child, Stdio};

use anyhow::{Context as _, Result};
use overlay_tests::{
    agent::Agent,
    check::{self, Answer},
    guard::Guard,
    poll, run,
    shape::{Scenario, Shape},
};
use serde_json::Value;

use super::{are_back, lab, programs, spoof};

struct Monitor(Child);

impl Monitor {
    /// One that the programs tell.
    fn start(agent: &Agent, arguments: &[&str]) -> Result<Self> {
        let all = [&["monitor", "--instance", &agent.instance], arguments].concat();
        let mut command = run::command(&agent.argv(&all));
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let monitor = Self(child.spawn()?);
        let begun = poll::until_well(|| match agent.json(&["status"]) {
            Ok(status) => status["capture"].is_null().then(|| status.to_string()),
            Err(error) => Some(error.to_string()),
        });
        assert_eq!(begun, Ok(()));
        Ok(monitor)
    }

    /// What it has printed when it has ended by itself.
    fn lines(self) -> Result<Vec<String>> {
        let mut child = self;
        let ended = poll::until_well(|| match child.0.try_wait() {
            Ok(Some(_)) => None,
            other => Some(format!("{other:?}")),
        });
        if ended.is_err() {
            child.0.kill()?;
        }
        let mut text = String::new();
        let out = child.0.stdout.as_mut().context("its output")?;
        std::io::Read::read_to_string(out, &mut text)?;
        assert_eq!(ended, Ok(()), "{text}");
        assert!(child.0.wait()?.success(), "{text}");
        Ok(text.lines().map(str::to_owned).collect())
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        // One that has ended cannot be ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn each_packet_is_told_with_its_flow_and_reason() -> Result<()> {
    let guard = lab("tmon")?;
    let agent = guard.agent(1);
    let nodes = &guard.topology().nodes;
    let (from, other, to) = (
        &nodes[0].containers[0],
        &nodes[0].containers[1],
        &nodes[1].containers[0],
    );
    let before = programs(&agent.instance)?;

    let json = ["--count", "3", "--output", "json", "--reason", "dropped"];
    let monitor = Monitor::start(&agent, &json)?;
    spoof(&guard, 3)?;
    let lines = monitor.lines()?;
    are_back(&agent, &before)?;
    assert_eq!(lines.len(), 3, "{lines:#?}");
    for line in &lines {
        let told: Value = serde_json::from_str(line)?;
        for (field, expected) in [
            ("event", "packet"),
            ("verdict", "dropped"),
            ("reason", "spoofed_source"),
            ("rule", "endpoint_source"),
            ("endpoint", &from.namespace),
            ("program", "from_endpoint"),
        ] {
            assert_eq!(told[field], expected, "{told}");
        }
        let flow = serde_json::json!({
            "source": other.address,
            "destination": to.address,
            "protocol": "udp",
            "source_port": 1000,
            "destination_port": 9,
        });
        assert_eq!(told["flow"], flow, "{told}");
        assert!(told["outer"].is_null(), "{told}");
        let time = told["time"].as_str().context("a time")?;
        assert!(time.ends_with('Z') && time.contains('T'), "{time}");
    }

    // The other container sends nothing that is dropped, and is asked about alone.
    let only = ["--seconds", "3", "--endpoint", &other.namespace];
    let monitor = Monitor::start(&agent, &only)?;
    spoof(&guard, 3)?;
    let gateway = nodes[0].gateway.context("a gateway")?;
    assert_eq!(check::ping(&other.namespace, gateway)?, Answer::Ttl(64));
    let lines = monitor.lines()?;
    let passed = format!(
        "passed to_node  endpoint {}  icmp {} → {gateway}",
        other.namespace, other.address
    );
    assert!(
        lines.iter().any(|line| line.contains(&passed)),
        "{lines:#?}"
    );
    assert!(
        lines.iter().all(|line| !line.contains("spoofed_source")),
        "{lines:#?}"
    );

    // What arrives by the tunnel is told with the tunnel, and with the peer.
    let arriving = ["--reason", "forwarded", "--peer", &nodes[1].namespace];
    let arriving = [&arriving[..], &["--count", "2"]].concat();
    let monitor = Monitor::start(&agent, &arriving)?;
    assert_eq!(check::ping(&from.namespace, to.address)?, Answer::Ttl(62));
    let lines = monitor.lines()?;
    let peer = format!("peer {}", nodes[1].namespace);
    assert!(lines.iter().all(|line| line.contains(&peer)), "{lines:#?}");
    let outer = format!(
        "icmp {} → {} (VNI 1, udp {}:",
        to.address, from.address, nodes[1].underlay
    );
    assert!(lines[1].contains(&outer), "{lines:#?}");

    let flood = ["--seconds", "3", "--rate", "5", "--reason", "dropped"];
    let monitor = Monitor::start(&agent, &flood)?;
    spoof(&guard, 500)?;
    let lines = monitor.lines()?;
    let is_more = |line: &&String| line.ends_with("more packets are not shown");
    let more = lines.iter().filter(is_more).count();
    assert!(more > 0 && lines.len() - more < 100, "{lines:#?}");
    are_back(&agent, &before)?;
    let wrong = agent.ask(&["monitor", "--reason", "nosuch"])?;
    assert_eq!(wrong.code, Some(2), "{}", wrong.stderr);
    assert!(
        wrong.stderr.contains("choose forwarded,"),
        "{}",
        wrong.stderr
    );
    let by_kernel = agent.ask(&["monitor", "--reason", "in_the_clear"])?;
    assert_eq!(by_kernel.code, Some(2), "{}", by_kernel.stderr);
    assert!(by_kernel.stderr.contains("stats"), "{}", by_kernel.stderr);
    Ok(guard.down()?)
}

/// Nobody waits for packets that no program sees.
#[test]
fn who_looks_while_the_programs_are_off_is_told() -> Result<()> {
    let guard = Guard::overlay("tmonoff")?;
    let agent = guard.agent(1);
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("x.pcapng");
    let file = file.to_string_lossy();
    for on in [false, true] {
        agent.fastpath(on)?;
        for words in [
            &["monitor", "--seconds", "1"][..],
            &["capture", "-w", &file, "--seconds", "1"],
            &["log-level", "warn"],
        ] {
            let out = agent.ask(words)?;
            assert!(out.success, "{words:?}: {out:?}");
            let told = out.stderr.contains("the fast path is off");
            assert_eq!(told, !on, "{words:?}: {out:?}");
        }
    }
    let refused = agent.ask(&["monitor", "--endpoint", "nobody"])?;
    assert_eq!(refused.code, Some(5), "{refused:?}");
    assert!(refused.stderr.contains("start a monitor"), "{refused:?}");
    Ok(guard.down()?)
}

/// A node whose agent has ended refuses probes, which is noise to whoever has not asked for it.
#[test]
fn refusals_of_probes_are_told_only_to_who_asks_for_probes() -> Result<()> {
    let guard = Guard::configured(Shape::usual("tmonref", Scenario::Overlay)?, |_, config| {
        config.node.probe = Some("100ms");
    })?;
    check::all_pairs(guard.topology())?;
    let agent = guard.agent(1);
    let nodes = &guard.topology().nodes;
    guard.agent(2).kill()?;
    let refused = |more: &[&str]| -> Result<Vec<String>> {
        let all = [
            "--seconds",
            "3",
            "--rate",
            "0",
            "--peer",
            &nodes[1].namespace,
        ];
        let lines = Monitor::start(&agent, &[&all[..], more].concat())?.lines()?;
        Ok(lines
            .into_iter()
            .filter(|line| line.contains("icmp"))
            .collect())
    };
    let asked = refused(&["--probes", "icmp"])?;
    assert!(!asked.is_empty(), "the peer refuses no probes");
    assert_eq!(refused(&[])?, Vec::<String>::new());
    guard.agent(2).start()?;
    Ok(guard.down()?)
}
