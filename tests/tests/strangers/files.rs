//! Files and sockets that have the names of an agent's.

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt as _, symlink},
        net::{UnixDatagram, UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    thread,
};

use anyhow::Result;
use nix::{sys::stat::Mode, unistd::mkfifo};
use overlay_tests::{
    agent::Agent,
    guard::Guard,
    lab,
    shape::{Scenario, Shape},
    state,
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

    // One that takes no streams has no agent left behind.
    let datagrams = UnixDatagram::bind(&socket)?;
    refuses(&agent, &socket, "a socket of another kind")?;
    assert!(UnixDatagram::unbound()?.connect(&socket).is_ok());
    drop(datagrams);
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

/// Puts something at a path.
type Put = fn(&Path) -> Result<()>;

/// What a stranger can have at a path. A link leads to a file beside it, which is nobody's to write.
const THINGS: [(&str, Put); 5] = [
    ("a file", |at| Ok(fs::write(at, "somebody's notes")?)),
    ("a symbolic link", |at| {
        fs::write(at.with_extension("elsewhere"), "somebody's notes")?;
        Ok(symlink(at.with_extension("elsewhere"), at)?)
    }),
    ("a folder", |at| Ok(fs::create_dir(at)?)),
    ("a pipe", |at| {
        Ok(mkfifo(at, Mode::S_IRUSR | Mode::S_IWUSR)?)
    }),
    ("a socket", |at| Ok(UnixListener::bind(at).map(drop)?)),
];

/// A file at each path, and one of the other things in turn: every kind at a path of every kind is
/// tried where there is no agent (`overlay-api`).
fn some_at<'p>(
    paths: impl Iterator<Item = &'p PathBuf>,
) -> impl Iterator<Item = (&'p PathBuf, (&'static str, Put))> {
    let [file, others @ ..] = THINGS;
    paths
        .zip(others.into_iter().cycle())
        .flat_map(move |(path, other)| [(path, file), (path, other)])
}

/// All that can be seen of it without opening a pipe.
fn seen(at: &Path) -> Result<(fs::FileType, u32, u64, Option<Vec<u8>>)> {
    let there = fs::symlink_metadata(at)?;
    let kind = there.file_type();
    let content = if kind.is_file() || kind.is_symlink() {
        Some(fs::read(at)?)
    } else {
        None
    };
    Ok((kind, there.mode(), there.ino(), content))
}

fn take_away(at: &Path) -> Result<()> {
    if at.is_dir() && !at.is_symlink() {
        return Ok(fs::remove_dir(at)?);
    }
    drop(fs::remove_file(at.with_extension("elsewhere")));
    Ok(fs::remove_file(at)?)
}

/// Whatever has the name of a file that an agent writes, removes or renames: before there is an
/// agent, while one runs, and when the instance goes.
#[test]
fn whatever_has_the_name_of_a_file_stays() -> Result<()> {
    let guard = Guard::underlay(Shape::usual("tstrw", Scenario::Overlay)?)?;
    let agent = guard.agent(1);
    fs::write(agent.config_file(), guard.first_config().to_toml())?;
    let [_, runtime, state] = lab::traces(&agent.instance);
    let stops = ["state.json", "state.json.new"].map(|name| state.join(name));
    let stops = [
        stops,
        ["journal", "journal.new"].map(|name| runtime.join(name)),
    ]
    .concat();
    let beside = ["detach", "detach/notes", "making", "making.new", "adding"];
    let beside = beside.map(|name| runtime.join(name));
    let of_state = [
        "cluster.toml",
        "cluster.new",
        "wireguard.key",
        "wireguard.next.key",
    ];
    let of_state = of_state.map(|name| state.join(name));
    let beside = [&beside[..], &of_state].concat();

    // Before: it does not start without its state file, and is not well without its journal.
    for (path, (what, put)) in some_at(stops.iter()) {
        let at = format!("{what} at {}", path.display());
        fs::create_dir_all(path.parent().unwrap_or(path))?;
        put(path)?;
        let before = seen(path)?;
        let said = if path.starts_with(&state) {
            assert!(!agent.try_start()?, "{at}");
            agent.log()?
        } else {
            assert!(!agent.start_anyhow()?, "{at}");
            let status = agent.ask(&["status"])?.stdout;
            agent.stop()?;
            status
        };
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        assert!(
            said.contains(&*name) && said.contains("move it away"),
            "{at}: {said}"
        );
        assert_eq!(seen(path)?, before, "{at}");
        agent.ask(&["down"])?;
        assert_eq!(seen(path)?, before, "{at}");
        take_away(path)?;
        agent.ask(&["down"])?;
    }
    // While it runs, and when it goes.
    let others = stops.iter().chain(&beside);
    for (path, (what, put)) in some_at(others) {
        let at = format!("{what} at {}", path.display());
        agent.start()?;
        fs::create_dir_all(path.parent().unwrap_or(path))?;
        drop(fs::remove_file(path));
        drop(fs::remove_dir(path));
        put(path)?;
        let before = seen(path)?;
        // It is told where that cannot be remembered.
        agent.ask(&["fastpath", "off"])?;
        agent.stop()?;
        assert_eq!(seen(path)?, before, "{at}");
        let down = agent.ask(&["down"])?;
        let said = down.stdout + &down.stderr;
        let folder = [&state, &runtime]
            .into_iter()
            .find(|it| path.starts_with(it));
        let folder = folder.unwrap_or(path).display().to_string();
        assert!(said.contains(&folder), "{at}: {said}");
        assert_eq!(seen(path)?, before, "{at}: {said}");
        take_away(path)?;
        agent.ask(&["down"])?;
    }
    Ok(guard.down()?)
}

#[test]
fn a_lab_takes_no_folder_of_others() -> Result<()> {
    let shape = Shape::usual("tstrl", Scenario::Direct)?;
    let folder = state::folder(&shape.name);
    fs::create_dir_all(&folder)?;
    let notes = folder.join("notes");
    fs::write(&notes, "somebody's notes")?;
    let raised = lab::up(&shape, Path::new("/bin/true"), &mut |_| {});
    let down = lab::down(&shape.name, &mut |_| {});
    let after = fs::read(&notes);
    fs::remove_dir_all(&folder)?;
    let error = raised
        .err()
        .map(|error| error.to_string())
        .unwrap_or_default();
    assert!(error.contains(&folder.display().to_string()), "{error}");
    assert!(!down?);
    assert_eq!(after?, b"somebody's notes");
    Ok(())
}
