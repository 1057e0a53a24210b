//! Files and sockets that have the names of an agent's.

use std::{
    fs,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    thread,
};

use anyhow::Result;
use overlay_tests::{
    agent::Agent,
    guard::Guard,
    lab,
    shape::{Scenario, Shape},
};

/// Neither `run` nor `down` goes on, and both say why.
fn refuses(agent: &Agent, path: &Path, said: &str) -> Result<()> {
    let path = path.display().to_string();
    assert!(!agent.try_start()?, "{path}: it runs");
    let log = agent.log()?;
    assert!(log.contains(said) && log.contains(&path), "{log}");
    let down = agent.ask(&["down"])?;
    assert_eq!(down.code, Some(2), "{path}: {}", down.stderr);
    assert!(down.stderr.contains(said), "{path}: {}", down.stderr);
    Ok(())
}

#[test]
fn none_is_removed() -> Result<()> {
    let guard = Guard::underlay(Shape::usual("tstrf", Scenario::Overlay)?)?;
    let agent = guard.agent(1);
    fs::write(agent.config_file(), guard.first_config().to_toml())?;
    let [_, runtime, _] = lab::traces(&agent.instance);
    let [socket, lock]: [PathBuf; 2] = ["api.sock", "lock"].map(|name| runtime.join(name));
    agent.start()?;
    assert!(UnixStream::connect(&socket).is_ok(), "{}", socket.display());
    assert!(lock.exists());
    let mine = b"somebody's notes";

    // While it runs: what took the place of its socket stays when it ends.
    fs::remove_file(&socket)?;
    fs::write(&socket, mine)?;
    agent.stop()?;
    assert_eq!(fs::read(&socket)?, mine);
    refuses(&agent, &socket, "it is not a socket")?;
    assert_eq!(fs::read(&socket)?, mine);
    fs::remove_file(&socket)?;

    // A socket of somebody who listens there.
    let listener = UnixListener::bind(&socket)?;
    // It has nothing to say to anybody.
    thread::spawn(move || listener.incoming().for_each(drop));
    refuses(&agent, &socket, "another program listens")?;
    assert!(UnixStream::connect(&socket).is_ok(), "its socket is gone");
    fs::remove_file(&socket)?;

    fs::write(&lock, mine)?;
    refuses(&agent, &lock, "it is a file with content")?;
    assert_eq!(fs::read(&lock)?, mine);
    fs::remove_file(&lock)?;
    fs::create_dir(&lock)?;
    refuses(&agent, &lock, "it is not a file")?;
    assert!(lock.is_dir());
    fs::remove_dir(&lock)?;

    agent.start()?;
    agent.tell(&["down"])?;
    assert!(!runtime.exists(), "{}", runtime.display());
    Ok(guard.down()?)
}
