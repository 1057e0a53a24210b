//! The command line as people who know `kubectl`, `ip` and `docker` type it.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use overlay_tests::{
    agent::Agent,
    check::{self, Answer},
    guard::Guard,
    netns::Temporary,
    run,
    script::words,
    shape::{Scenario, Shape},
};
use serde_json::Value;

/// Runs a command as it stands; what it prints.
fn typed(agent: &Agent, line: &str) -> Result<String> {
    let words: Vec<&str> = line.split(' ').collect();
    let out = agent.call(&words)?;
    assert!(out.success, "{line}: {}{}", out.stdout, out.stderr);
    Ok(out.stdout)
}

#[test]
fn usual_names_and_a_usual_environment_are_understood() -> Result<()> {
    let guard = Guard::overlay("tcmd")?;
    let agent = guard.agent(1);
    let instance = &agent.instance;
    let at_home = agent.with("OVERLAY_INSTANCE", instance);

    let status: Value = serde_json::from_str(&typed(&at_home, "status -o json")?)?;
    assert_eq!(status["instance"], instance.as_str(), "{status}");

    let container = Temporary::make("tcmd-more")?;
    typed(
        &at_home,
        "endpoint add more --network lab --netns tcmd-more",
    )?;
    assert!(typed(&at_home, "endpoint ls")?.contains("more"));
    typed(&at_home, "endpoint delete more")?;
    assert!(!typed(&at_home, "endpoint list")?.contains("more"));
    drop(container);

    typed(&at_home, "down")?;
    // What is wanted is so already.
    let again = typed(&at_home, "down")?;
    assert!(again.contains("nothing to remove"), "{again}");
    // A name that was mistyped is found among those that there are.
    assert!(again.contains("tcmd-n2"), "{again}");
    Ok(guard.down()?)
}

/// A node's namespace that went without a word takes all with it but maps and state: what is said then
/// removes these.
#[test]
fn what_a_namespace_leaves_that_has_gone_is_removed_as_is_told() -> Result<()> {
    let guard = Guard::overlay("tgone")?;
    let agent = guard.agent(1);
    let down = ["down", "--instance", &agent.instance];
    agent.kill()?;
    run::checked(format!("ip netns del {}", agent.instance))?;
    let refused = agent.call(&down)?;
    assert!(!refused.success, "{refused:?}");
    let cure = format!("overlay-agent down --instance {}", agent.instance);
    assert!(refused.stderr.contains(&cure), "{}", refused.stderr);
    run::checked(format!("ip netns add {}", agent.instance))?;
    typed(&agent, &down.join(" "))?;
    let again = typed(&agent, &down.join(" "))?;
    assert!(again.contains("nothing to remove"), "{again}");
    Ok(guard.down()?)
}

/// A cure is a command that can be pasted: by the path that the program was called by, where `PATH`
/// does not have it, and by its name where it does.
#[test]
fn cures_call_the_program_as_it_was_called() -> Result<()> {
    let guard = Guard::underlay(Shape::usual("tcure", Scenario::Overlay)?)?;
    let agent = guard.agent(1);
    let program = agent.argv(&[])[0].clone();
    let program = Path::new(&program);
    let folder = program.parent().context("a folder")?.display();
    let status = ["status", "--instance", "tcure-nobody"];
    for (path, called) in [
        ("/usr/bin:/bin".to_owned(), program.display().to_string()),
        (format!("/bin:{folder}"), "overlay-agent".to_owned()),
    ] {
        let out = agent.with("PATH", &path).call(&status)?;
        let cure = format!("\"{called} run --config FILE");
        assert!(out.stderr.contains(&cure), "{path}: {}", out.stderr);
    }
    Ok(guard.down()?)
}

/// Where an agent has lived, the next one is to live: who forgets that is told, and changes nothing.
#[test]
fn a_stopped_agent_is_started_as_it_was() -> Result<()> {
    let guard = Guard::overlay("tagain")?;
    let agent = guard.agent(1);
    agent.stop()?;
    let config = agent.config_file().to_string_lossy().into_owned();
    let start = format!("run --config {config} --netns {}\"", agent.instance);
    let out = agent.ask(&["status"])?;
    assert_eq!(out.code, Some(3), "{out:?}");
    assert!(out.stderr.contains(&start), "{out:?}");
    for command in ["run", "plan"] {
        let out = agent.call(&[command, "--config", &config])?;
        assert_eq!(out.code, Some(2), "{out:?}");
        let option = format!("add --netns {},", agent.instance);
        assert!(out.stderr.contains(&option), "{out:?}");
    }
    let out = agent.call(&["doctor", "--config", &config])?;
    assert!(out.stdout.starts_with("note: no agent runs"), "{out:?}");
    assert!(out.stdout.contains(start.trim_end_matches('"')), "{out:?}");
    let out = agent.call(&["plan", "--config", &config, "--netns", "tagain-none"])?;
    assert_eq!(out.code, Some(5), "{out:?}");
    agent.start()?;
    let out = agent.call(&["doctor", "--config", &config])?;
    assert!(!out.stdout.contains("no agent runs"), "{out:?}");
    // Nor beside it.
    agent.stop()?;
    let other = &guard.topology().nodes[1].namespace;
    let out = agent.call(&["run", "--config", &config, "--netns", other])?;
    assert_eq!(out.code, Some(2), "{out:?}");
    Ok(guard.down()?)
}

/// Whoever leaves something out is told of all that would do, and a variable that is set to nothing
/// is as good as none.
#[test]
fn what_is_left_out_is_told_and_an_empty_variable_is_none() -> Result<()> {
    let guard = Guard::underlay(Shape::usual("tempty", Scenario::Overlay)?)?;
    let agent = guard.agent(1);
    let out = agent.call(&["endpoint", "add", "x", "--network", "lab"])?;
    assert_eq!(out.code, Some(2), "{}", out.stderr);
    for option in ["--netns <NETNS>", "--pid <PID>"] {
        assert!(out.stderr.contains(option), "{option}: {}", out.stderr);
    }
    let with = |value: &str| {
        let agent = agent.with("OVERLAY_INSTANCE", value);
        agent.with("OVERLAY_CONFIG", value).call(&["check"])
    };
    let out = with("")?;
    assert_eq!(out.code, Some(2), "{}", out.stderr);
    assert!(out.stderr.contains("--config <FILE>"), "{}", out.stderr);
    assert!(!out.stderr.contains("is not a name"), "{}", out.stderr);
    let out = with("a/b")?;
    assert!(out.stderr.contains("is not a name"), "{}", out.stderr);
    Ok(guard.down()?)
}

/// What a script can rely on: a code for each kind of failure, and JSON where it is asked for.
#[test]
fn failures_are_told_apart() -> Result<()> {
    let guard = Guard::overlay("tcode")?;
    let agent = guard.agent(1);
    let taken = Temporary::make("tcode-taken")?;
    let nobody = ["--instance", "tcode-nobody"];
    let config = agent.config_file().to_string_lossy().into_owned();
    let add = ["endpoint", "add", "tcode-n1c1", "--network", "lab"];
    let own = ["--instance", &*agent.instance];
    for (code, kind, words, says) in [
        (2, "bad_input", vec!["stauts"], "unrecognized"),
        (
            2,
            "bad_input",
            vec!["fastpath", "sideways"],
            "invalid value",
        ),
        (
            3,
            "no_agent",
            [&["status"], &nobody[..]].concat(),
            "tcode-n1",
        ),
        (
            5,
            "not_found",
            [&["endpoint", "del", "nobody"], &own[..]].concat(),
            "endpoint list",
        ),
        (
            5,
            "not_found",
            [&["endpoint", "show", "nobody"], &own[..]].concat(),
            "endpoint list",
        ),
        (
            5,
            "not_found",
            [&["peer", "show", "nobody"], &own[..]].concat(),
            "peer list",
        ),
        (
            6,
            "exists",
            [&add[..], &["--netns", "tcode-taken"], &own[..]].concat(),
            "already",
        ),
        (
            6,
            "exists",
            vec!["run", "--config", &config, "--netns", &agent.instance],
            "running",
        ),
    ] {
        let out = agent.call(&words)?;
        assert_eq!(
            out.code,
            Some(code),
            "{words:?}: {}{}",
            out.stdout,
            out.stderr
        );
        assert!(out.stderr.contains(says), "{words:?}: {}", out.stderr);
        let out = agent.call(&[&words[..], &["-o", "json"]].concat())?;
        assert_eq!(
            out.code,
            Some(code),
            "{words:?}: {}{}",
            out.stdout,
            out.stderr
        );
        let Some(line) = out.stderr.lines().find(|line| line.starts_with('{')) else {
            anyhow::bail!("{words:?}: no JSON in {}", out.stderr);
        };
        let told: Value = serde_json::from_str(line)?;
        assert_eq!(told["error"]["code"], code, "{words:?}: {told}");
        assert_eq!(told["error"]["kind"], kind, "{words:?}: {told}");
        let message = told["error"]["message"].as_str().unwrap_or_default();
        assert!(message.contains(says), "{words:?}: {told}");
        assert!(out.stdout.is_empty(), "{words:?}: {}", out.stdout);
    }
    drop(taken);
    // Somebody else is told what is missing, not to start what runs.
    let argv = agent.argv(&["status", "--instance", &agent.instance]);
    let mut as_nobody = words("setpriv --reuid 65534 --regid 65534 --clear-groups");
    as_nobody.extend(argv);
    let out = run::output(&as_nobody)?;
    assert_eq!(out.code, Some(4), "{}{}", out.stdout, out.stderr);
    assert!(
        out.stderr.contains("root") && !out.stderr.contains("start it"),
        "{}",
        out.stderr
    );
    Ok(guard.down()?)
}

#[test]
fn what_there_is_can_be_listed_and_shown() -> Result<()> {
    let guard = Guard::overlay("tshow")?;
    let agent = guard.agent(1);
    let container = &guard.topology().nodes[0].containers[0];
    let peer = &guard.topology().nodes[1].namespace;

    let listed: Value = serde_json::from_str(&agent.tell(&["peer", "list", "-o", "json"])?)?;
    assert_eq!(listed[0]["name"], peer.as_str(), "{listed}");
    assert_eq!(listed[0]["network"], "lab", "{listed}");
    assert!(agent.tell(&["peer", "ls"])?.contains(peer.as_str()));
    let shown: Value = serde_json::from_str(&agent.tell(&["peer", "show", peer, "-o", "json"])?)?;
    assert_eq!(shown["peers"][0]["vtep"], listed[0]["vtep"], "{shown}");
    assert!(agent.tell(&["peer", "show", peer])?.contains("fast path"));

    let name = &container.namespace;
    let shown: Value =
        serde_json::from_str(&agent.tell(&["endpoint", "show", name, "-o", "json"])?)?;
    let inside = run::checked(format!("ip -n {name} -json link show eth0"))?;
    let inside: Value = serde_json::from_str(&inside)?;
    assert_eq!(shown["mac"], inside[0]["address"], "{shown} {inside}");
    // The other end of a veth.
    assert_eq!(
        shown["ifindex"], inside[0]["link_index"],
        "{shown} {inside}"
    );
    assert!(shown["traffic"]["tx"]["packets"].is_u64(), "{shown}");
    assert!(agent.tell(&["endpoint", "show", name])?.contains("ifindex"));

    // The effective configuration is a file again, which asks for nothing else.
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("node.toml");
    let effective = agent.tell(&["config", "show"])?;
    assert!(effective.contains("martians = \"drop\""), "{effective}");
    fs::write(&file, &effective)?;
    let file = file.to_string_lossy();
    let again = agent.call(&["config", "show", "--config", &file])?;
    assert_eq!(again.stdout, effective);
    assert!(agent.call(&["check", "--config", &file])?.success);
    let json: Value = serde_json::from_str(&agent.tell(&["config", "show", "-o", "json"])?)?;
    assert_eq!(
        json["networks"][0]["peers"][0]["name"],
        peer.as_str(),
        "{json}"
    );
    fs::write(&*file, agent.call(&["config", "example"])?.stdout)?;
    let example = agent.call(&["check", "--config", &file])?;
    assert!(
        example.success && example.stdout.contains("1 peer,"),
        "{example:?}"
    );
    Ok(guard.down()?)
}

/// What can be set can be asked for.
#[test]
fn the_fast_path_and_the_log_level_can_be_asked_for() -> Result<()> {
    let guard = Guard::overlay("tasks")?;
    let agent = guard.agent(1);
    for (state, level) in [("off", "off"), ("on", "debug")] {
        agent.tell(&["fastpath", state])?;
        agent.tell(&["log-level", level])?;
        assert_eq!(agent.tell(&["fastpath"])?.trim_end(), state);
        assert_eq!(agent.json(&["fastpath"])?["fastpath"], state);
        assert_eq!(agent.tell(&["log-level"])?.trim_end(), level);
        assert_eq!(agent.json(&["log-level"])?["log_level"], level);
    }
    Ok(guard.down()?)
}

#[test]
fn a_log_level_that_is_none_is_refused() -> Result<()> {
    let guard = Guard::overlay("tlog")?;
    let agent = guard.agent(1);
    agent.stop()?;
    let config = agent.config_file().to_string_lossy().into_owned();
    let loud = agent.with("OVERLAY_LOG", "nonsense");
    let out = loud.call(&["run", "--config", &config, "--netns", &agent.instance])?;
    assert_eq!(out.code, Some(2), "{out:?}");
    assert!(
        out.stderr.contains("nonsense") && out.stderr.contains("debug"),
        "{out:?}"
    );
    Ok(guard.down()?)
}

/// Packets that the programs leave to the kernel are in `status`, too.
#[test]
fn what_each_path_carried_is_told() -> Result<()> {
    let guard = Guard::overlay("tpaths")?;
    let agent = guard.agent(1);
    let nodes = &guard.topology().nodes;
    let (from, to) = (
        &nodes[0].containers[0].namespace,
        nodes[1].containers[0].address,
    );
    let carried = || -> Result<[u64; 4]> {
        let status = agent.json(&["status"])?;
        let carried = &status["networks"][0]["carried"];
        let of = |path: &str, way: &str| carried[path][way]["packets"].as_u64().unwrap_or_default();
        Ok([
            of("fastpath", "tx"),
            of("fastpath", "rx"),
            of("kernel", "tx"),
            of("kernel", "rx"),
        ])
    };
    let before = carried()?;
    assert_eq!(check::ping(from, to)?, Answer::Ttl(62));
    let fast = carried()?;
    assert!(
        fast[0] > before[0] && fast[1] > before[1],
        "{before:?} {fast:?}"
    );
    agent.fastpath(false)?;
    assert_eq!(check::ping(from, to)?, Answer::Ttl(62));
    let slow = carried()?;
    assert_eq!(slow[..2], fast[..2], "{fast:?} {slow:?}");
    assert!(slow[2] > fast[2] && slow[3] > fast[3], "{fast:?} {slow:?}");
    let told = agent.tell(&["status"])?;
    assert!(told.contains("by the kernel"), "{told}");
    Ok(guard.down()?)
}
