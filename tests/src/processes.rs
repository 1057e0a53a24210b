//! The processes of a lab.
//!
//! Whatever a lab starts carries its name in its environment, which children inherit
//! and the kernel shows in `/proc`. So the lab's processes are found even when the
//! command that started them was killed before it could write anything down, and
//! nothing else is ever signalled.

use std::{
    fs, io,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    error::{Error, Result},
    names::LabName,
};

/// Environment variable that holds the lab's name.
pub const MARK: &str = "OVERLAY_LAB";
/// Environment variable that holds the task's name.
pub const TASK: &str = "OVERLAY_LAB_TASK";

/// How long a process may take to clean up after SIGTERM.
const GRACE: Duration = Duration::from_secs(20);

/// A running process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// When it started, in clock ticks since boot: with the id, it is unique.
    started: u64,
    /// The task that it is, or that it was started by.
    pub task: Option<String>,
    /// Its command line.
    pub command: String,
}

impl Process {
    /// Whether it still runs; one that ended and was not yet collected does not.
    pub fn is_alive(&self) -> bool {
        running_since(self.pid) == Some(self.started)
    }

    /// Sends a signal, unless it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        if !self.is_alive() {
            return Ok(());
        }
        match kill(Pid::from_raw(self.pid), signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(errno) => Err(Error::File {
                operation: "signal",
                path: PathBuf::from(format!("/proc/{}", self.pid)),
                source: errno.into(),
            }),
        }
    }

    /// Waits until it has ended; false when it has not by the deadline.
    pub fn wait(&self, deadline: Instant) -> bool {
        while self.is_alive() {
            if Instant::now() > deadline {
                return false;
            }
            thread::sleep(Duration::from_millis(20));
        }
        true
    }
}

/// Every process with the lab's mark, except this one and those that it was started by.
pub fn of_lab(lab: &LabName) -> Result<Vec<Process>> {
    let ancestors = ancestors();
    let mut found = Vec::new();
    let folder = fs::read_dir("/proc").map_err(Error::file("read", "/proc"))?;
    for entry in folder {
        let entry = entry.map_err(Error::file("read", "/proc"))?;
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        if ancestors.contains(&pid) {
            continue;
        }
        let environment = environment(pid)?;
        let value = |name: &str| {
            environment
                .split('\0')
                .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
        };
        if value(MARK) != Some(&lab.to_string()) {
            continue;
        }
        let Some(started) = running_since(pid) else {
            continue;
        };
        found.push(Process {
            pid,
            started,
            task: value(TASK).map(str::to_owned),
            command: read(pid, "cmdline")?
                .replace('\0', " ")
                .trim_end()
                .to_owned(),
        });
    }
    Ok(found)
}

/// The process that a task of the lab is.
pub fn task(lab: &LabName, task: &str) -> Result<Option<Process>> {
    Ok(of_lab(lab)?
        .into_iter()
        .find(|process| process.task.as_deref() == Some(task)))
}

/// Ends every process of the lab: politely, then not.
pub fn end_all(lab: &LabName) -> Result<()> {
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let deadline = Instant::now() + GRACE;
        // Again until none is found: one may be out of sight, or have started another.
        loop {
            let processes = of_lab(lab)?;
            if processes.is_empty() {
                return Ok(());
            }
            processes
                .iter()
                .try_for_each(|process| process.signal(signal))?;
            let ended = processes.iter().all(|process| process.wait(deadline));
            if !ended || Instant::now() > deadline {
                break;
            }
        }
    }
    let left = of_lab(lab)?;
    let left = left
        .iter()
        .map(|process| format!("{} ({})", process.pid, process.command));
    Err(Error::Unkillable {
        lab: lab.clone(),
        processes: left.collect::<Vec<_>>().join(", "),
    })
}

/// This process, its parent, and so on: a shell inside the lab may take the lab down.
fn ancestors() -> Vec<i32> {
    let mut chain = Vec::new();
    let mut next = i32::try_from(std::process::id()).ok();
    while let Some(pid) = next.filter(|&pid| pid > 0 && !chain.contains(&pid)) {
        chain.push(pid);
        next = stat_field(pid, 1).and_then(|parent| parent.parse().ok());
    }
    chain
}

/// A field of `/proc/PID/stat`, counted from the state, which follows the command's name.
fn stat_field(pid: i32, index: usize) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may itself contain any of them.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(index).map(str::to_owned)
}

/// The start time of a process that has not ended.
fn running_since(pid: i32) -> Option<u64> {
    let state = stat_field(pid, 0)?;
    if matches!(state.as_str(), "Z" | "X") && !has_threads(pid) {
        None
    } else {
        stat_field(pid, 19)?.parse().ok()
    }
}

/// Whether a process whose first thread has ended has others, which keep its files and locks.
fn has_threads(pid: i32) -> bool {
    fs::read_dir(format!("/proc/{pid}/task")).is_ok_and(|tasks| tasks.count() > 1)
}

/// The environment of a process.
///
/// It cannot be seen for a moment while the process replaces its program, as `setsid` and
/// `nsenter` do; a kernel thread and a process that has ended never have one.
fn environment(pid: i32) -> Result<String> {
    /// `PF_KTHREAD` of `include/linux/sched.h`.
    const KERNEL_THREAD: u64 = 0x0020_0000;
    for _ in 0..10 {
        let environment = read(pid, "environ")?;
        let flags = stat_field(pid, 6).and_then(|flags| flags.parse::<u64>().ok());
        let has_none = flags.is_none_or(|flags| flags & KERNEL_THREAD != 0);
        if !environment.is_empty() || has_none || running_since(pid).is_none() {
            return Ok(environment);
        }
        thread::sleep(Duration::from_millis(2));
    }
    Ok(String::new())
}

/// A file of a process; empty when the process has ended or is about to.
fn read(pid: i32, file: &str) -> Result<String> {
    let path = format!("/proc/{pid}/{file}");
    match fs::read(&path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        // One that is ending is there, but its memory cannot be read any more.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied
            ) || error.raw_os_error() == Some(Errno::ESRCH as i32) =>
        {
            Ok(String::new())
        }
        Err(error) => Err(Error::File {
            operation: "read",
            path: path.into(),
            source: error,
        }),
    }
}
