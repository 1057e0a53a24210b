//! A line at the end of a terminal that tells what long work has come to.
//!
//! Standard error that is no terminal gets nothing of it.

use std::{
    future::Future,
    io::{self, IsTerminal as _, Write},
    path::Path,
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use overlay_control::{
    self as api, Reply, Request,
    progress::{Activity, Progress},
};

/// How often a daemon is asked what it does.
const PAUSE: Duration = Duration::from_millis(100);
/// To the line's beginning, and away with what is there.
const ERASE: &str = "\r\x1b[K";
/// What would be longer than the terminal is wide is cut: a second line could not be erased.
const NO_WRAP: &str = "\x1b[?7l";
const WRAP: &str = "\x1b[?7h";

/// Whether the line is on the terminal. There is one standard error, and so one of these; it
/// changes while that is locked.
static SHOWN: AtomicBool = AtomicBool::new(false);

/// Does work while the terminal, if there is one, shows what it tells.
pub(super) async fn shown<T>(progress: &Progress, work: impl Future<Output = T>) -> T {
    if !is_wanted() {
        return work.await;
    }
    let _line = Line;
    progress.followed(draw, work).await
}

/// Waits for a daemon while the terminal, if there is one, shows what that does.
pub(super) fn while_waiting<T>(socket: &Path, wait: impl FnOnce() -> T) -> T {
    if !is_wanted() {
        return wait();
    }
    let _line = Line;
    let (waits, ended) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(move || follow(socket, &ended));
        let answer = wait();
        // This ends the other one.
        drop(waits);
        answer
    })
}

fn follow(socket: &Path, ended: &Receiver<()>) {
    loop {
        match api::call(socket, &Request::Activity {}) {
            Ok(Reply::Activity(activity)) => draw(&activity),
            // It is of another version, or has ended: there is nothing to be shown.
            _ => return,
        }
        if ended.recv_timeout(PAUSE) != Err(RecvTimeoutError::Timeout) {
            return;
        }
    }
}

fn is_wanted() -> bool {
    io::stderr().is_terminal() && std::env::var_os("TERM").is_some_and(|term| term != "dumb")
}

/// The line; it goes when the value goes.
struct Line;

impl Drop for Line {
    fn drop(&mut self) {
        attempt(erase);
    }
}

fn draw(activity: &Activity) {
    attempt(|terminal| {
        erase(terminal)?;
        if *activity != Activity::Waiting {
            SHOWN.store(true, Ordering::Relaxed);
            write!(terminal, "{NO_WRAP}{activity}{WRAP}")?;
        }
        terminal.flush()
    });
}

/// A terminal that is gone does not end the work that it would have shown.
fn attempt(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) {
    if let Err(error) = write(&mut io::stderr().lock()) {
        tracing::debug!("write to the terminal: {error}");
    }
}

fn erase(terminal: &mut dyn Write) -> io::Result<()> {
    if SHOWN.swap(false, Ordering::Relaxed) {
        terminal.write_all(ERASE.as_bytes())?;
    }
    Ok(())
}

/// Standard error for those who write whole lines: the line that is shown makes room.
pub(super) struct Lines;

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut terminal = io::stderr().lock();
        erase(&mut terminal)?;
        terminal.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
