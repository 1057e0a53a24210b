//! Endpoints come and go although the agent is just restarting, and none stays that nobody was
//! promised.

use std::{
    io::Read as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use overlay_tests::{agent::Agent, guard::Guard, lab, netns::Temporary, poll, run, script::words};
use serde_json::Value;

/// The names of the endpoints that an agent has.
fn endpoints(agent: &Agent) -> Result<Vec<String>> {
    let status = agent.json(&["status"])?;
    let endpoints = status["endpoints"].as_array().context("no endpoints")?;
    let name = |endpoint: &Value| endpoint["name"].as_str().map(str::to_owned);
    Ok(endpoints.iter().filter_map(name).collect())
}

/// Asks while `restart` goes on; the answer's standard error when it is a refusal.
fn ask_during(
    agent: &Agent,
    arguments: &[&str],
    restart: impl FnOnce() -> Result<()>,
) -> Result<std::result::Result<(), String>> {
    thread::scope(|scope| {
        let asked = scope.spawn(|| agent.ask(arguments));
        restart()?;
        let out = asked.join().ok().context("it panicked")??;
        Ok(if out.success { Ok(()) } else { Err(out.stderr) })
    })
}

const DELETING: [&str; 3] = ["endpoint", "delete", "job"];

fn adding(netns: &str) -> [&str; 7] {
    [
        "endpoint",
        "add",
        "job",
        "--network",
        "lab",
        "--netns",
        netns,
    ]
}

#[test]
fn add_and_delete_wait_for_the_next_agent() -> Result<()> {
    let guard = Guard::overlay("trest")?;
    let agent = guard.agent(1);
    let netns = Temporary::make("trest-job")?;
    let add = adding("trest-job");
    for end in [Signal::SIGTERM, Signal::SIGKILL] {
        let stop = || {
            if end == Signal::SIGTERM {
                agent.stop()
            } else {
                agent.kill()
            }
        };
        for arguments in [&add[..], &DELETING] {
            stop()?;
            let refused = agent.ask(&[arguments, &["--wait", "0"]].concat())?;
            assert_eq!(refused.code, Some(3), "{end}: {}", refused.stderr);
            let answer = ask_during(&agent, arguments, || Ok(agent.start()?))?;
            assert_eq!(answer, Ok(()), "{end}: {arguments:?}");
            let there = endpoints(&agent)?.iter().any(|name| name == "job");
            assert_eq!(there, arguments == &add[..], "{end}: {arguments:?}");
        }
    }
    drop(netns);
    Ok(guard.down()?)
}

#[test]
fn what_an_agent_that_was_killed_has_not_answered_is_asked_again() -> Result<()> {
    let guard = Guard::overlay("tresk")?;
    let agent = guard.agent(1);
    let netns = Temporary::make("tresk-job")?;
    let add = adding("tresk-job");
    for arguments in [&add[..], &DELETING] {
        let process = agent.process()?.context("no agent")?;
        process.signal(Signal::SIGSTOP)?;
        let answer = ask_during(&agent, arguments, || {
            agent.kill()?;
            Ok(agent.start()?)
        })?;
        assert_eq!(answer, Ok(()), "{arguments:?}");
        let there = endpoints(&agent)?.iter().any(|name| name == "job");
        assert_eq!(there, arguments == &add[..], "{arguments:?}");
    }
    drop(netns);
    Ok(guard.down()?)
}

/// Whoever asks while the agent is ended is told what was done, and what was not is not begun.
#[test]
fn an_agent_that_ends_tells_what_it_has_done() -> Result<()> {
    let guard = Guard::overlay("tresend")?;
    let agent = guard.agent(1);
    let netns = Temporary::make("tresend-job")?;
    let add = adding("tresend-job");
    let ends = |arguments: &[&str], delay: u64| {
        ask_during(&agent, arguments, || {
            thread::sleep(Duration::from_millis(delay));
            Ok(agent.stop()?)
        })
    };
    // While it takes the request, carries it out, and answers.
    for delay in [0, 5, 10, 20, 40, 80] {
        let answer = ends(&[&add[..], &["--wait", "0"]].concat(), delay)?;
        agent.start()?;
        let there = endpoints(&agent)?.iter().any(|name| name == "job");
        assert_eq!(there, answer.is_ok(), "after {delay} ms: {answer:?}");
        if there {
            agent.tell(&DELETING)?;
        }
    }
    for (delay, arguments) in [(10, &add[..]), (10, &DELETING), (40, &add), (40, &DELETING)] {
        let answer = ask_during(&agent, arguments, || {
            thread::sleep(Duration::from_millis(delay));
            agent.stop()?;
            Ok(agent.start()?)
        })?;
        assert_eq!(answer, Ok(()), "after {delay} ms: {arguments:?}");
        let there = endpoints(&agent)?.iter().any(|name| name == "job");
        assert_eq!(there, arguments == &add[..], "{arguments:?}");
    }
    drop(netns);
    Ok(guard.down()?)
}

#[test]
fn of_two_that_take_an_instance_down_the_second_finds_nothing() -> Result<()> {
    let guard = Guard::overlay("trestwo")?;
    let agent = guard.agent(1);
    let process = agent.process()?.context("no agent")?;
    process.signal(Signal::SIGSTOP)?;
    let argv = agent.argv(&["down", "--instance", &agent.instance]);
    // Both have asked before it answers either.
    let downs = [argv.clone(), argv].map(|argv| thread::spawn(move || run::output(&argv)));
    thread::sleep(Duration::from_millis(500));
    process.signal(Signal::SIGCONT)?;
    let mut said = Vec::new();
    for down in downs {
        let down = down.join().ok().context("it panicked")??;
        assert!(down.success, "{down:?}");
        said.push(down.stdout.contains("nothing to remove"));
    }
    said.sort_unstable();
    assert_eq!(said, [false, true]);
    Ok(guard.down()?)
}

/// Agents that a test has started by itself; they end with it.
struct Runs(Vec<Child>);

impl Drop for Runs {
    fn drop(&mut self) {
        for run in &mut self.0 {
            // One that has ended already is what most of them are.
            if let Err(error) = run.kill().and_then(|()| run.wait().map(drop)) {
                eprintln!("an agent runs on: {error}");
            }
        }
    }
}

#[test]
fn of_several_that_are_started_at_once_one_runs() -> Result<()> {
    let guard = Guard::overlay("tresonce")?;
    let agent = guard.agent(1);
    agent.stop()?;
    let config = agent.config_file().to_string_lossy().into_owned();
    let argv = agent.argv(&["run", "--config", &config, "--netns", &agent.instance]);
    let start = |_| {
        let mut run = Command::new(&argv[0]);
        run.args(&argv[1..]).stdout(Stdio::null());
        run.stderr(Stdio::piped()).spawn()
    };
    let mut runs = Runs((0..4).map(start).collect::<Result<_, _>>()?);
    let one = poll::until_well(|| {
        let ended = runs.0.iter_mut().map(Child::try_wait);
        match ended.collect::<Result<Vec<_>, _>>() {
            Ok(ended) if ended.iter().flatten().count() == 3 => None,
            Ok(ended) => Some(format!("{ended:?}")),
            Err(error) => Some(error.to_string()),
        }
    });
    assert_eq!(one, Ok(()), "one runs");
    agent.is_well()?;
    for run in &mut runs.0 {
        if let Some(ended) = run.try_wait()? {
            let mut said = String::new();
            let stderr = run.stderr.as_mut().context("no standard error")?;
            stderr.read_to_string(&mut said)?;
            assert_eq!(ended.code(), Some(6), "{said}");
            assert!(said.contains("is already running"), "{said}");
        }
    }
    drop(runs);
    agent.start()?;
    Ok(guard.down()?)
}

#[test]
fn a_process_that_has_ended_is_said_to_have() -> Result<()> {
    let guard = Guard::overlay("tresp")?;
    let agent = guard.agent(1);
    let mut process = Command::new("unshare")
        .args(["--net", "sleep", "600"])
        .spawn()?;
    let pid = process.id().to_string();
    let own = std::fs::read_link("/proc/self/ns/net")?;
    let apart = poll::until_well(|| {
        let there = std::fs::read_link(format!("/proc/{pid}/ns/net"));
        there
            .map_or(true, |there| there == own)
            .then_some("not yet in its namespace")
    });
    let added = agent.ask(&["endpoint", "add", "job", "--network", "lab", "--pid", &pid]);
    process.kill()?;
    process.wait()?;
    assert_eq!(apart, Ok(()));
    let added = added?;
    assert!(added.success, "{}", added.stderr);

    let cure = format!(
        "overlay-agent endpoint delete job --instance {}",
        agent.instance
    );
    agent.tells(&cure)?;
    agent.tell(&["endpoint", "delete", "job"])?;
    agent.is_well()?;
    Ok(guard.down()?)
}

#[test]
fn an_agent_that_is_stopped_is_told_of_instead_of_waited_for() -> Result<()> {
    let guard = Guard::overlay("tstopped")?;
    let agent = guard.agent(1);
    let file = std::env::temp_dir().join("tstopped.pcapng");
    let file = file.to_string_lossy();
    let adding = adding("tstopped-job");
    let commands = [
        &["status"][..],
        &["stats"],
        &["doctor"],
        &["explain", "node", "10.244.2.10"],
        &["ping", "10.244.2.10", "--count", "1"],
        &["peer", "list"],
        &["config", "show"],
        &["log-level", "warn"],
        &["fastpath", "off"],
        &["capture", "-w", &file],
        &["monitor"],
        &adding,
        &["endpoint", "delete", "tstopped-n1c1"],
        &["down"],
    ];
    let process = agent.process()?.context("the agent runs")?;
    process.signal(Signal::SIGSTOP)?;
    let said = commands.map(|command| {
        let arguments = [command, &["-o", "json", "--instance", &agent.instance]].concat();
        let argv = agent.argv(&arguments);
        // One that waits for ever is to fail alone.
        let argv = [words("timeout 60"), argv].concat();
        thread::spawn(move || run::output(&argv))
    });
    let said = said.map(thread::JoinHandle::join);
    // First of all: a process that is stopped ends by no test's failure.
    process.signal(Signal::SIGCONT)?;
    for (command, said) in commands.iter().zip(said) {
        let said = said.ok().context("it panicked")??;
        assert_eq!(said.code, Some(3), "{command:?}: {said:?}");
        let error: Value = serde_json::from_str(&said.stderr)
            .with_context(|| format!("{command:?}: {}", said.stderr))?;
        assert_eq!(error["error"]["kind"], "no_agent", "{command:?}: {error}");
        let message = error["error"]["message"].as_str().unwrap_or_default();
        for part in ["neither answered nor said what it does", "kill -CONT"] {
            assert!(message.contains(part), "{command:?}: {error}");
        }
    }
    // Nothing of it is done now.
    agent.is_well()?;
    let endpoints = endpoints(&agent)?;
    assert_eq!(endpoints, ["tstopped-n1c1", "tstopped-n1c2"]);
    assert_eq!(agent.json(&["status"])?["fastpath"]["state"], "on");
    assert!(!std::fs::exists(&*file)?, "a capture that was not begun");
    Ok(guard.down()?)
}

#[test]
fn what_nobody_waits_for_any_more_is_not_begun() -> Result<()> {
    let guard = Guard::overlay("tresg")?;
    let agent = guard.agent(1);
    let process = agent.process()?.context("a process")?;
    process.signal(Signal::SIGSTOP)?;
    let abandoned = (|| {
        for arguments in [&adding("tresg-job")[..], &["down"]] {
            let arguments = [arguments, &["--instance", &agent.instance]].concat();
            let mut client = run::command(&agent.argv(&arguments))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()?;
            // Until it has asked.
            thread::sleep(Duration::from_millis(500));
            client.kill()?;
            client.wait()?;
        }
        anyhow::Ok(())
    })();
    process.signal(Signal::SIGCONT)?;
    abandoned?;
    // Those that came before have had their turn.
    agent.json(&["status"])?;
    assert!(!endpoints(&agent)?.iter().any(|name| name == "job"));
    assert!(!std::fs::exists("/run/netns/tresg-job")?);
    Ok(guard.down()?)
}

#[test]
fn a_lab_gets_an_agent_back_that_has_ended() -> Result<()> {
    let guard = Guard::overlay("tresl")?;
    let agent = guard.agent(1);
    let program: PathBuf = agent.argv(&[]).remove(0).into();
    assert_eq!(lab::start_missing(guard.topology(), &program)?, [""; 0]);
    agent.kill()?;
    assert_eq!(lab::missing(guard.topology())?, [&*agent.instance]);
    assert_eq!(
        lab::start_missing(guard.topology(), &program)?,
        [&*agent.instance]
    );
    agent.json(&["status"])?;
    assert_eq!(lab::missing(guard.topology())?, [""; 0]);
    Ok(guard.down()?)
}

/// What `plan` says is what `run` does: an agent that starts attaches programs of its own.
#[test]
fn plan_tells_of_the_programs_of_an_agent_that_was_killed() -> Result<()> {
    let guard = Guard::overlay("trestp")?;
    let agent = guard.agent(1);
    assert_eq!(agent.plan()?, Vec::<Value>::new(), "it runs");
    agent.kill()?;
    let plan = agent.plan()?;
    let attaches = |step: &Value| step.to_string().contains("attach");
    assert!(!plan.is_empty() && plan.iter().all(attaches), "{plan:?}");
    let before = agent.log()?.len();
    agent.start()?;
    let log = agent.log()?;
    let done = format!("applied {} steps", plan.len());
    let new = log.get(before..).unwrap_or(&log);
    assert!(new.contains(&done), "no {done:?} in {log}");
    Ok(guard.down()?)
}
