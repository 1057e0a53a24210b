//! The agent as a service manager sees it: `sd_notify(3)`, the journal's lines, signals.

use std::{
    fs,
    os::unix::{fs::MetadataExt as _, net::UnixDatagram},
    path::PathBuf,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;
use overlay_tests::{
    agent::Agent,
    check::{self, Answer},
    guard::Guard,
    poll, state,
};

/// A loaded machine is slow, and "never" is what fails a test.
const PATIENCE: Duration = Duration::from_mins(1);

/// Stands for the service manager.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    fn listen(guard: &Guard) -> Result<Self> {
        let path = state::folder(&guard.topology().shape.name).join("notify");
        let socket = UnixDatagram::bind(&path).with_context(|| path.display().to_string())?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { socket, path })
    }

    /// The agent, told of this manager.
    fn tells(&self, agent: &Agent) -> Agent {
        agent.with("NOTIFY_SOCKET", self.path.display())
    }

    /// The next message with a line that begins so.
    fn until(&self, line: &str) -> Result<String> {
        let deadline = Instant::now() + PATIENCE;
        let mut buffer = [0; 4096];
        let mut others = Vec::new();
        while Instant::now() < deadline {
            let length = self
                .socket
                .recv(&mut buffer)
                .with_context(|| format!("no {line} after {others:?}"))?;
            let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if message.lines().any(|one| one.starts_with(line)) {
                return Ok(message);
            }
            others.push(message);
        }
        bail!("no {line} in {others:?}")
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            eprintln!("{} was not removed: {error}", self.path.display());
        }
    }
}

#[test]
fn it_is_ready_when_its_peers_are_reached() -> Result<()> {
    let guard = Guard::pair("tready")?;
    let agent = guard.agent(1);
    agent.tell(&["down"])?;
    let manager = Manager::listen(&guard)?;
    let [here, there] = guard.topology().two_nodes();
    let (from, to) = (&here.containers[0].namespace, there.containers[0].address);
    let (sender, outcome) = mpsc::channel();
    thread::scope(|scope| -> Result<()> {
        scope.spawn(|| {
            // At once: whatever comes after "ready" must find the overlay there.
            let ready = manager.until("READY=1");
            let answer = ready.and_then(|_| Ok(check::ping(from, to)?));
            sender.send(answer)
        });
        manager.tells(&agent).start()?;
        assert_eq!(outcome.recv()??, Answer::Ttl(62));
        Ok(())
    })?;

    let process = agent.process()?.context("no agent runs")?;
    process.signal(Signal::SIGHUP)?;
    assert!(manager.until("RELOADING=1")?.contains("MONOTONIC_USEC="));
    manager.until("READY=1")?;
    // What it is told next is read again, and what goes wrong is told.
    let config = fs::read_to_string(agent.config_file())?;
    fs::write(agent.config_file(), "rubbish")?;
    process.signal(Signal::SIGHUP)?;
    manager.until("STATUS=degraded:")?;
    fs::write(agent.config_file(), config)?;
    process.signal(Signal::SIGHUP)?;
    manager.until("STATUS=healthy: 1 network, 1 peer, 1 container")?;

    agent.stop()?;
    manager.until("STOPPING=1")?;
    assert_eq!(
        check::ping(from, to)?,
        Answer::Ttl(62),
        "forwarding goes on"
    );
    drop(manager);
    Ok(guard.down()?)
}

#[test]
fn work_that_takes_long_is_told_and_is_given_time() -> Result<()> {
    let guard = Guard::pair("tlong")?;
    let agent = guard.agent(1);
    agent.tell(&["down"])?;
    let manager = Manager::listen(&guard)?;
    manager.tells(&agent).start()?;
    let starting = manager.until("STATUS=starting: ")?;
    assert!(starting.contains("EXTEND_TIMEOUT_USEC="), "{starting}");
    manager.until("READY=1")?;
    agent.tell(&["down"])?;
    let removing = manager.until("STATUS=removing: ")?;
    assert!(removing.contains("EXTEND_TIMEOUT_USEC="), "{removing}");
    drop(manager);
    Ok(guard.down()?)
}

#[test]
fn the_watchdog_hears_that_it_lives() -> Result<()> {
    let guard = Guard::pair("twatch")?;
    let agent = guard.agent(1);
    agent.stop()?;
    let manager = Manager::listen(&guard)?;
    manager
        .tells(&agent)
        .with("WATCHDOG_USEC", 400_000)
        .start()?;
    for _ in 0..5 {
        manager.until("WATCHDOG=1")?;
    }
    agent.tell(&["down"])?;
    manager.until("STOPPING=1")?;
    drop(manager);
    Ok(guard.down()?)
}

#[test]
fn the_journal_gets_levels_and_everybody_else_gets_the_time() -> Result<()> {
    let guard = Guard::pair("tjournal")?;
    let agent = guard.agent(1);
    agent.stop()?;
    let file = fs::metadata(agent.log_file())?;
    let before = agent.log()?.len();
    let stream = format!("{}:{}", file.dev(), file.ino());
    agent.with("JOURNAL_STREAM", stream).start()?;
    let up = format!("instance {} is up", agent.instance);
    let logged = |line: String| {
        let is_there = |log: &String| log[before..].lines().any(|one| one == line);
        poll::until(|| agent.log(), is_there).context(line.clone())
    };
    logged(format!("<6>{up}"))?;
    let config = fs::read_to_string(agent.config_file())?;
    fs::write(agent.config_file(), "[node]\nname = 1\n")?;
    poll::until(
        || agent.log(),
        |log| log[before..].contains("<3>the configuration is refused"),
    )?;
    fs::write(agent.config_file(), config)?;
    let log = agent.log()?;
    for line in log[before..].lines() {
        assert!(line.starts_with('<'), "{line:?} of\n{log}");
        assert!(!line.contains('\u{1b}'), "{line:?}");
    }

    // A terminal or a file that is not the journal's.
    agent.stop()?;
    let before = agent.log()?.len();
    agent.with("JOURNAL_STREAM", "1:2").start()?;
    let log = agent.log()?;
    let line = log[before..].lines().find(|line| line.contains(&up));
    let line = line.context("it is not up")?;
    assert!(
        line.starts_with("20") && line.contains(" INFO "),
        "{line:?}"
    );
    Ok(guard.down()?)
}
