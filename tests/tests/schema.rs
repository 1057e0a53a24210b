//! What `--output json` prints is what `docs/schema/v1.json` says, with nothing besides.

use std::fs;

use anyhow::{Context as _, Result};
use overlay_tests::{
    agent::Agent,
    check,
    guard::Guard,
    netns::Temporary,
    poll, run,
    schema::Schema,
    script::words,
    shape::{Scenario, Shape},
};
use serde_json::Value;

fn asked(agent: &Agent, words: &[&str]) -> Result<Value> {
    let out = agent.ask(&[words, &["--output", "json"]].concat())?;
    let text = if out.stdout.is_empty() {
        &out.stderr
    } else {
        &out.stdout
    };
    serde_json::from_str(text).with_context(|| format!("{words:?}: {out:?}"))
}

/// What a command that tells of packets says of probes, and of packets that are dropped because they
/// say they are another's.
fn told_of_packets(agent: &Agent, container: &str, command: &[&str]) -> Result<String> {
    let more = [
        "--seconds",
        "3",
        "--reason",
        "forwarded",
        "--reason",
        "dropped",
    ];
    let more = [&more[..], &["-o", "json", "--instance", &agent.instance]].concat();
    let command = agent.argv(&[command, &more].concat());
    let address = "10.244.1.99";
    let spoof = format!("ip netns exec {container} ping -n -c1 -W0.2 -I {address} 10.244.2.10");
    let spoof = words(spoof);
    let told = std::thread::scope(|scope| {
        let told = scope.spawn(|| run::checked(&command));
        while !told.is_finished() {
            agent.ask(&["ping", "tschema-n2", "-c", "1", "--no-mtu"])?;
            run::output(&spoof)?;
        }
        anyhow::Ok(told.join().ok().context("it panicked")??)
    })?;
    for verdict in ["dropped", "forwarded"] {
        let verdict = format!("\"verdict\":\"{verdict}\"");
        anyhow::ensure!(told.contains(&verdict), "no {verdict} in {told}");
    }
    Ok(told)
}

/// Without an agent, doctor says so, and what starts one.
fn without_an_agent(schema: &Schema, agent: &Agent, config: &str) -> Result<()> {
    agent.stop()?;
    let alone = agent.call(&["doctor", "--config", config, "-o", "json"])?;
    let alone: Value = serde_json::from_str(&alone.stdout).with_context(|| format!("{alone:?}"))?;
    let faults = schema.faults("doctor", &alone);
    assert!(faults.is_empty(), "{faults:#?}");
    let note = &alone["notes"][0];
    assert_eq!(note["id"], "no-agent", "{alone:#}");
    assert_eq!(note["object"], agent.instance.as_str());
    let start = note["cure"]["commands"][0].as_str().context("a command")?;
    assert!(start.contains("overlay-agent run --config "), "{start}");
    agent.start()?;
    let asked_it = asked(agent, &["doctor"])?;
    assert_eq!(asked_it["notes"], serde_json::json!([]));
    Ok(())
}

/// What `plan` says where all is to be made.
fn plan_where_nothing_is(schema: &Schema, agent: &Agent, config: &str) -> Result<()> {
    let place = ["--netns", agent.instance.as_str()];
    let plan = [&["plan", "--config", config, "-o", "json"], &place[..]].concat();
    let plan = agent.call(&plan)?;
    let plan: Value = serde_json::from_str(&plan.stdout).with_context(|| format!("{plan:?}"))?;
    assert!(
        plan["steps"]
            .as_array()
            .is_some_and(|steps| steps.len() > 5),
        "{plan:#}"
    );
    let faults = schema.faults("plan", &plan);
    assert!(faults.is_empty(), "{faults:#?}");
    Ok(())
}

#[test]
fn every_command_prints_what_the_schema_says() -> Result<()> {
    let schema = Schema::read()?;
    let guard = Guard::configured(Shape::usual("tschema", Scenario::Overlay)?, |_, config| {
        config.node.probe = Some("100ms");
    })?;
    check::all_pairs(guard.topology())?;
    let agent = guard.agent(1);
    // A peer that answers has all that probes find out, and something is wrong.
    poll::until(
        || asked(&agent, &["peer", "list"]),
        |peers| peers[0]["health"]["rtt"].is_object(),
    )?;
    let file = agent.config_file();
    let good = fs::read_to_string(&file)?;
    fs::write(&file, format!("{good}\nrubbish"))?;
    poll::until(
        || asked(&agent, &["status"]),
        |status| status["problems"][0]["id"] == "config-refused",
    )?;
    let container = Temporary::make("tschema-more")?;
    let (from, to) = ("tschema-n1c1", "tschema-n2c1");
    for (definition, words) in [
        ("status", &["status"][..]),
        ("stats", &["stats", "--all"]),
        ("doctor", &["doctor"]),
        ("explain", &["explain", from, to]),
        ("explain", &["explain", from, to, "--source", "10.244.1.99"]),
        ("explain", &["explain", from, "10.244.1.1"]),
        ("endpoint_list", &["endpoint", "list"]),
        (
            "endpoint_list",
            &[
                "endpoint",
                "add",
                "more",
                "--network",
                "lab",
                "--netns",
                "tschema-more",
            ],
        ),
        ("endpoint_show", &["endpoint", "show", from]),
        ("peer_list", &["peer", "list"]),
        ("peer_show", &["peer", "show", "tschema-n2"]),
        ("config", &["config", "show"]),
        ("config", &["config", "example"]),
        ("endpoint_del", &["endpoint", "del", "more"]),
        ("fastpath", &["fastpath", "off"]),
        ("fastpath", &["fastpath", "on"]),
        ("log_level", &["log-level", "off"]),
        ("key", &["key"]),
        ("ping", &["ping", "tschema-n2", "-c", "1"]),
        ("ping", &["ping", "10.244.2.200", "-c", "1"]),
        ("error", &["ping", "nobody"]),
        ("error", &["monitor", "--reason", "nosuch"]),
        ("error", &["capture", "port", "http"]),
        ("error", &["capture", "-w", "-"]),
        ("error", &["endpoint", "del", "nobody"]),
        ("error", &["endpoint", "del", from]),
    ] {
        let said = asked(&agent, words)?;
        let faults = schema.faults(definition, &said);
        assert!(faults.is_empty(), "{words:?}: {faults:#?}");
    }
    drop(container);
    let another_s = format!("ip -n {from} address add 10.244.1.99/32 dev lo");
    run::checked(another_s)?;
    for (definition, command) in [
        ("monitor", &["monitor", "--probes"][..]),
        ("capture", &["capture"]),
    ] {
        for line in told_of_packets(&agent, from, command)?.lines() {
            let faults = schema.faults(definition, &serde_json::from_str(line)?);
            assert!(faults.is_empty(), "{line}: {faults:#?}");
        }
    }
    fs::write(&file, good)?;
    let config = file.to_string_lossy();
    let check = agent.call(&["check", "--config", &config, "-o", "json"])?;
    let faults = schema.faults("check", &serde_json::from_str(&check.stdout)?);
    assert!(faults.is_empty(), "{faults:#?}");
    without_an_agent(&schema, &agent, &config)?;
    // Where everything is to be made.
    for there in [true, false] {
        let down = asked(&agent, &["down"])?;
        let faults = schema.faults("down", &down);
        assert!(faults.is_empty(), "{faults:#?}");
        assert_eq!(
            (down["removed"].is_null(), down["nothing"].is_null()),
            (!there, there),
            "{down}"
        );
    }
    plan_where_nothing_is(&schema, &agent, &config)?;
    Ok(guard.down()?)
}

#[test]
fn what_the_schema_does_not_say_is_found() -> Result<()> {
    let schema = Schema::read()?;
    let good = serde_json::json!({
        "schema": 1, "error": { "code": 5, "kind": "not_found", "message": "x" },
    });
    assert!(schema.faults("error", &good).is_empty());
    for (place, value) in [
        ("/schema", Value::from(2)),
        ("/error/code", Value::from("5")),
        ("/error/kind", Value::from("lost")),
        ("/error", Value::Null),
    ] {
        let mut wrong = good.clone();
        *wrong.pointer_mut(place).context("a place")? = value;
        assert!(!schema.faults("error", &wrong).is_empty(), "{place}");
    }
    let mut more = good;
    more["colour"] = Value::from("red");
    assert!(!schema.faults("error", &more).is_empty());
    // No definition speaks of what is not checked.
    let definitions = schema.definitions().context("definitions")?;
    for name in definitions.keys() {
        let faults = schema.faults(name, &Value::Null);
        assert!(
            faults.iter().all(|fault| !fault.contains("not understood")),
            "{faults:?}"
        );
    }
    Ok(())
}
