//! The socket and the state are nobody else's.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
};

use anyhow::{Context as _, Result, ensure};
use overlay_tests::{guard::Guard, run};
use serde_json::Value;

use crate::{PATIENCE, refusal, socket};

/// A path with another mode, until the value goes.
struct Door(String, fs::Permissions);

impl Door {
    fn open(path: String, mode: u32) -> Result<Self> {
        let before = fs::metadata(&path)?.permissions();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        Ok(Self(path, before))
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        if let Err(error) = fs::set_permissions(&self.0, self.1.clone()) {
            eprintln!("{} keeps its mode: {error}", self.0);
        }
    }
}

#[test]
fn socket_and_state_are_private() -> Result<()> {
    let guard = Guard::pair("tapimode")?;
    let agent = guard.agent(1);
    let instance = &agent.instance;
    for (path, mode) in [
        (format!("/run/overlay/{instance}"), 0o700),
        (format!("/run/overlay/{instance}/api.sock"), 0o600),
        (format!("/var/lib/overlay/{instance}"), 0o700),
        (format!("/var/lib/overlay/{instance}/state.json"), 0o600),
    ] {
        let found = fs::metadata(&path).with_context(|| path.clone())?;
        assert_eq!((found.mode() & 0o7777, found.uid()), (mode, 0), "{path}");
    }

    // Even where somebody has opened the doors, another user is told off.
    let opened = [("/run/overlay".to_owned(), 0o711)].into_iter().chain([
        (format!("/run/overlay/{instance}"), 0o755),
        (format!("/run/overlay/{instance}/api.sock"), 0o666),
    ]);
    let opened: Vec<Door> = opened
        .map(|(path, mode)| Door::open(path, mode))
        .collect::<Result<_>>()?;
    let ask = format!(
        "setpriv --reuid 65534 --regid 65534 --clear-groups socat -t5 - UNIX-CONNECT:{}",
        socket(&agent).display()
    );
    let mut argv = vec!["sh".to_owned(), "-c".to_owned()];
    argv.push(format!("echo '{{\"op\":\"down\"}}' | {ask}"));
    let answer = run::checked(&argv)?;
    let answer: Value = serde_json::from_str(&answer)?;
    assert!(refusal(&answer)?.contains("65534"), "{answer}");
    assert!(agent.ask(&["status"])?.success);
    drop(opened);
    fs::set_permissions(
        format!("/run/overlay/{instance}"),
        fs::Permissions::from_mode(0o755),
    )?;

    // What was opened is closed by the next start.
    let process = agent.process()?.context("no agent runs")?;
    process.signal(nix::sys::signal::Signal::SIGKILL)?;
    ensure!(
        process.wait(std::time::Instant::now() + PATIENCE),
        "it does not end"
    );
    agent.start()?;
    let mode = fs::metadata(format!("/run/overlay/{instance}"))?.mode();
    assert_eq!(mode & 0o777, 0o700);
    Ok(guard.down()?)
}

#[test]
fn a_runtime_folder_of_somebody_else_is_not_used() -> Result<()> {
    let guard = Guard::pair("tapiown")?;
    let agent = guard.agent(1);
    agent.tell(&["down"])?;
    let folder = format!("/run/overlay/{}", agent.instance);
    fs::create_dir_all(&folder)?;
    chown(&folder, Some(65534), None)?;
    let config = agent.config_file();
    let out = agent.call(&[
        "run",
        "--config",
        &config.to_string_lossy(),
        "--netns",
        &agent.instance,
    ])?;
    assert_eq!(out.code, Some(2), "{}", out.stderr);
    assert!(
        out.stderr.contains(&folder) && out.stderr.contains("65534"),
        "{}",
        out.stderr
    );
    chown(&folder, Some(0), None)?;
    Ok(guard.down()?)
}
