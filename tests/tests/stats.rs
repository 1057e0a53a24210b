//! `overlay-agent stats`: the same numbers as on the wire, in a terminal's width, and as JSON
//! with the fields that its document names.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use overlay_tests::{
    agent::Agent,
    check::{self, Answer},
    guard::Guard,
    raw::{self, Socket},
    run,
};
use serde_json::Value;

/// Frames that are dropped.
const SPOOFED: u64 = 7;
/// Columns of the usual terminal.
const WIDTH: usize = 80;

/// A lab in which the first container has pinged, and has sent from another's MAC.
fn lab_with_traffic(name: &str) -> Result<Guard> {
    let guard = Guard::overlay(name)?;
    let nodes = &guard.topology().nodes;
    let (here, there) = (&nodes[0].containers[0], &nodes[1].containers[0]);
    let answer = check::ping(&here.namespace, there.address)?;
    assert_eq!(answer, Answer::Ttl(62));
    let mut frame = [0; 60];
    frame[6..12].copy_from_slice(&raw::mac_of(&here.namespace, "eth0")?);
    frame[11] ^= 0x40;
    frame[12..14].copy_from_slice(&[8, 0]);
    let device = Socket::open(&here.namespace, "eth0")?;
    for _ in 0..SPOOFED {
        device.send(&frame)?;
    }
    Ok(guard)
}

fn one<'v>(list: &'v Value, field: &str, name: &str) -> Result<&'v Value> {
    let list = list.as_array().context("a list")?;
    let found = list.iter().find(|entry| entry[field] == name);
    found.with_context(|| format!("no {field} {name} in {list:?}"))
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(u64::MAX)
}

#[test]
fn json_tells_whose_packets_were_counted() -> Result<()> {
    let guard = lab_with_traffic("tstats")?;
    let nodes = &guard.topology().nodes;
    let agent = guard.agent(1);
    let here = &nodes[0].containers[0].namespace;
    let stats = agent.json(&["stats"])?;

    let network = &stats["networks"][0];
    let peer = one(&network["peers"], "name", &nodes[1].namespace)?;
    assert_eq!(peer["vtep"], nodes[1].underlay.to_string());
    let endpoint = one(&stats["endpoints"], "name", here)?;
    for direction in ["tx", "rx"] {
        assert!(number(&peer[direction]["packets"]) > 0, "{stats:#}");
        assert_eq!(peer[direction], endpoint[direction]);
        assert_eq!(peer[direction], network["total"][direction]);
    }
    let spoofed = one(&stats["drops"], "reason", "spoofed_source")?;
    assert_eq!(spoofed["rule"], "endpoint_source", "{spoofed}");
    assert_eq!(number(&spoofed["packets"]), SPOOFED);
    assert_eq!(number(&spoofed["bytes"]), 60 * SPOOFED);
    assert_eq!(spoofed["programs"][0]["program"], "from_endpoint");
    let sender = &spoofed["senders"][0];
    assert_eq!(
        (&sender["sender"], &sender["name"]),
        (&"endpoint".into(), &here[..].into())
    );
    assert_eq!(number(&sender["packets"]), SPOOFED);
    assert_eq!(number(&spoofed["unknown"]["packets"]), 0);
    assert_eq!(endpoint["dropped"]["packets"], spoofed["packets"]);
    let ports = one(&stats["maps"], "map", "PORTS")?;
    assert_eq!(number(&ports["entries"]), 3);

    // Who had no traffic is counted, and told when it is asked for.
    let second = guard.agent(2);
    let mut config = guard.first_config();
    config.networks[0].peers.push(overlay_tests::config::Peer {
        name: "silent".to_owned(),
        vtep: "192.168.56.99".to_owned(),
        subnet: vec!["10.244.96.0/20".to_owned()],
        ..Default::default()
    });
    fs::write(agent.config_file(), config.to_toml())?;
    let told = overlay_tests::poll::until_well(|| {
        let silent = agent
            .json(&["stats"])
            .map(|stats| stats["networks"][0]["silent"].clone());
        (!matches!(&silent, Ok(silent) if *silent == 1)).then(|| format!("{silent:?}"))
    });
    assert_eq!(told, Ok(()));
    let all = agent.json(&["stats", "--all"])?;
    assert_eq!(all["networks"][0]["silent"], 0);
    one(&all["networks"][0]["peers"], "name", "silent")?;
    assert_eq!(second.json(&["stats"])?["networks"][0]["silent"], 0);
    every_field_is_documented(&all)?;
    Ok(guard.down()?)
}

/// Every key of the answer stands in the document as code.
fn every_field_is_documented(stats: &Value) -> Result<()> {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/stats.md");
    let document = fs::read_to_string(&document).with_context(|| document.display().to_string())?;
    let mut keys = Vec::new();
    collect(stats, &mut keys);
    for key in keys {
        assert!(
            document.contains(&format!("`{key}`")),
            "{key} is not documented"
        );
    }
    Ok(())
}

fn collect(value: &Value, keys: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                keys.push(key.clone());
                collect(value, keys);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| collect(value, keys)),
        _ => {}
    }
}

#[test]
fn tables_fit_a_terminal() -> Result<()> {
    let guard = lab_with_traffic("tstattab")?;
    let nodes = &guard.topology().nodes;
    let agent = guard.agent(1);
    let text = agent.tell(&["stats"])?;
    for line in text.lines() {
        assert!(line.chars().count() <= WIDTH, "{line}\n{text}");
    }
    for mark in [
        "healthy",
        &nodes[1].namespace,
        &nodes[0].containers[0].namespace,
        "from_endpoint",
        "spoofed_source",
        "an endpoint sent from a MAC or address",
    ] {
        assert!(text.contains(mark), "no {mark:?} in\n{text}");
    }
    Ok(guard.down()?)
}

#[test]
fn a_watch_goes_on_until_it_is_interrupted() -> Result<()> {
    let guard = lab_with_traffic("tstatwat")?;
    let agent = guard.agent(1);
    let line = |agent: &Agent| {
        agent.argv(&[
            "stats",
            "--watch",
            "0.2",
            "--output",
            "json",
            "--instance",
            &agent.instance,
        ])
    };
    let argv = line(&agent);
    let mut child = Command::new(&argv[0])
        .args(&argv[1..])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("its output")?).lines();
    let mut times = Vec::new();
    for line in lines.by_ref().take(3) {
        let stats: Value = serde_json::from_str(&line?)?;
        times.push(number(&stats["time_ms"]));
    }
    assert!(times.is_sorted_by(|a, b| a < b), "{times:?}");
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT)?;
    let rest: usize = lines.count();
    let status = child.wait()?;
    assert!(status.success(), "{status} after {rest} more lines");
    let refused = agent.ask(&["stats", "--watch", "0"])?;
    assert!(refused.stderr.contains("at least 0.1"), "{refused:?}");
    Ok(guard.down()?)
}

/// What the help texts pipe into `jq` says something, on a node of which doctor finds something.
#[test]
fn what_the_help_texts_pipe_into_jq_says_something() -> Result<()> {
    let guard = lab_with_traffic("tjq")?;
    let agent = guard.agent(1);
    let rules = "table inet closed { chain input {
        type filter hook input priority 0;
        udp dport 4789 drop
        }
        }";
    let node = format!("--net=/run/netns/{}", agent.instance);
    run::checked(["nsenter", &node, "nft", rules].map(str::to_owned))?;
    let program = &agent.argv(&[])[0];
    let mut tried = 0;
    // Those of `plan` are about a file.
    for command in [
        "",
        "status",
        "stats",
        "doctor",
        "endpoint list",
        "peer list",
    ] {
        let words: Vec<&str> = command.split_whitespace().collect();
        let help = agent.call(&[&words[..], &["--help"]].concat())?.stdout;
        let examples = help.lines().filter(|line| line.contains("| jq "));
        for example in examples {
            let (call, filter) = example.split_once(" | ").context("a pipe")?;
            let call = call.trim().trim_start_matches("sudo ");
            let call = call.strip_prefix("overlay-agent").context("our program")?;
            let line = format!("{program}{call} --instance {} | {filter}", agent.instance);
            let said = run::checked(&["sh".to_owned(), "-c".to_owned(), line])?;
            assert!(!said.trim().is_empty(), "nothing: {example}");
            assert!(!said.contains("null"), "{example}: {said}");
            tried += 1;
        }
    }
    assert!(tried >= 5, "{tried} examples");
    Ok(guard.down()?)
}
