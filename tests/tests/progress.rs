//! Long work tells a terminal what it has come to, and nobody else.

use std::fs;

use anyhow::{Context as _, Result};
use overlay_tests::{
    agent::Agent,
    config::Peer,
    guard::Guard,
    poll,
    run::{self, Output},
    script::{Step, inside},
    state,
};

/// Enough for several batches of steps.
const PEERS: u16 = 5_000;
/// What takes the line away, and what begins each of its texts.
const ERASE: &str = "\x1b[K";
const BEGIN: &str = "\x1b[?7l";

/// A lab whose first agent has very many peers to look after once it is started.
fn lab(name: &str) -> Result<Guard> {
    let guard = Guard::pair(name)?;
    let agent = guard.agent(1);
    agent.tell(&["down"])?;
    let route = "ip route add 192.0.0.0/16 dev eth1";
    run::checked(inside(&agent.instance, route))?;
    let mut config = guard.first_config();
    let network = config.networks.first_mut().context("no network")?;
    network.cidr = vec!["10.0.0.0/8".to_owned()];
    let peers = (0..PEERS).map(|number| Peer::absent(number, number));
    network.peers.extend(peers);
    fs::write(agent.config_file(), config.to_toml())?;
    Ok(guard)
}

/// A command line as it is typed in a terminal, which is all three of its files.
fn in_terminal(argv: &[String]) -> Vec<String> {
    let line = argv.join(" ");
    let own = ["env", "TERM=xterm", "script", "-qefc", &line, "/dev/null"];
    own.map(str::to_owned).into()
}

fn down_in_terminal(agent: &Agent) -> Result<Output> {
    let argv = agent.argv(&["down", "--instance", &agent.instance]);
    Ok(run::output(in_terminal(&argv))?)
}

/// The largest number of steps that a terminal was told of.
fn steps(terminal: &str) -> usize {
    let texts = terminal.split(BEGIN).skip(1);
    let numbers = texts.filter_map(|text| {
        let (numbers, _) = text.split_once(" steps: ")?;
        let (done, of) = numbers.split_once(" of ")?;
        done.parse::<usize>().ok()?;
        of.parse().ok()
    });
    numbers.max().unwrap_or(0)
}

/// Asserts that nothing of the line is left.
fn is_clean(terminal: &str) {
    let (erased, drawn) = (terminal.rfind(ERASE), terminal.rfind(BEGIN));
    assert!(drawn.is_some() && erased > drawn, "{terminal:?}");
}

#[test]
fn a_start_tells_a_terminal_and_no_file() -> Result<()> {
    let guard = lab("tprogrun")?;
    let (agent, name) = (guard.agent(1), &guard.topology().shape.name);
    let config = agent.config_file().display().to_string();
    let argv = agent.argv(&["run", "--config", &config, "--netns", &agent.instance]);
    let log = state::log_file(name, "terminal");
    run::run_step(
        name,
        &Step::Start {
            task: "terminal".to_owned(),
            argv: in_terminal(&argv),
            log: log.clone(),
        },
    )?;
    run::run_step(
        name,
        &Step::Await {
            argv: agent.argv(&["status", "--instance", &agent.instance]),
            task: "terminal".to_owned(),
        },
    )?;
    agent.tell(&["down"])?;
    let shown = fs::read_to_string(&log)?;
    assert!(steps(&shown) > usize::from(PEERS), "{shown:?}");
    for text in ["reading the configuration", "looking at the node"] {
        assert!(shown.contains(&format!("{BEGIN}{text}")), "{shown:?}");
    }
    is_clean(&shown);
    // Lines of the log begin where nothing else is.
    let up = shown.lines().find(|line| line.contains("is up"));
    let (_, up) = up
        .context("it is not up")?
        .rsplit_once(ERASE)
        .unwrap_or_default();
    assert!(!up.contains("steps: ") && !up.contains(BEGIN), "{shown:?}");

    let before = agent.log()?.len();
    agent.start()?;
    let log = &agent.log()?[before..];
    assert!(log.contains("is up"), "{log:?}");
    assert!(!log.contains(ERASE) && !log.contains(BEGIN), "{log:?}");
    Ok(guard.down()?)
}

#[test]
fn down_tells_a_terminal_and_no_pipe() -> Result<()> {
    let guard = lab("tprogdn")?;
    let agent = guard.agent(1);
    // Through the daemon, which does it.
    agent.start()?;
    let out = down_in_terminal(&agent)?;
    assert_eq!(out.code, Some(0), "{out:?}");
    is_clean(&out.stdout);
    // By itself.
    agent.start()?;
    agent.kill()?;
    let out = down_in_terminal(&agent)?;
    assert_eq!(out.code, Some(0), "{out:?}");
    assert!(steps(&out.stdout) > 0, "{out:?}");
    assert!(out.stdout.contains("looking at the node"), "{out:?}");
    is_clean(&out.stdout);
    let left = poll::until_well(|| agent.process().ok().flatten().map(|_| "it runs on"));
    assert_eq!(left, Ok(()));

    for ends_first in [false, true] {
        agent.start()?;
        if ends_first {
            agent.kill()?;
        }
        let out = agent.ask(&["down"])?;
        assert_eq!(out.code, Some(0), "{out:?}");
        assert_eq!((out.stdout.as_str(), out.stderr.as_str()), ("", ""));
    }
    Ok(guard.down()?)
}
