//! Errors of a lab.

use std::{fmt, fs, io, path::PathBuf};

use crate::{
    names::LabName,
    script,
    shape::{Shape, ShapeError},
};

/// A lab operation that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Namespaces are root's business.
    #[error(
        "network namespaces can only be made by root: run this again with `sudo -E env PATH=\"$PATH\" …`"
    )]
    NotRoot,
    /// A command could not be started.
    #[error(
        "run `{}`: {source}; `cargo xtask setup` installs what the lab uses",
        script::shell(argv)
    )]
    Spawn {
        /// The command.
        argv: Vec<String>,
        /// Why.
        source: io::Error,
    },
    /// A command failed.
    #[error("`{}` failed ({status}): {}", script::shell(argv), said(output))]
    Command {
        /// The command.
        argv: Vec<String>,
        /// How it ended.
        status: std::process::ExitStatus,
        /// Its output.
        output: String,
    },
    /// A terminal does not show what it should.
    #[error("read a terminal: {0}")]
    Screen(String),
    /// A condition did not come true in time: the last answer.
    #[error("{0}")]
    Never(String),
    /// A started process ended before it was ready.
    #[error("{task} ended before it was ready; {log}")]
    Ended {
        /// Which.
        task: String,
        /// The end of its log.
        log: Box<LogEnd>,
    },
    /// A started process is not ready in time.
    #[error(
        "{task} was not ready after {seconds} s; `{asked}` still says: {}\n{log}",
        said(answer)
    )]
    NotReady {
        /// Which.
        task: String,
        /// How long it was waited for.
        seconds: u64,
        /// The command that would have succeeded.
        asked: String,
        /// Its last output.
        answer: String,
        /// The end of the process's log.
        log: Box<LogEnd>,
    },
    /// A file operation failed.
    #[error("{operation} {}: {source}", path.display())]
    File {
        /// Such as `read`.
        operation: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The kernel did not do something.
    #[error("{operation}: {source}")]
    Kernel {
        /// Such as `load a program`.
        operation: String,
        /// Why.
        source: io::Error,
    },
    /// The lab's record cannot be read.
    #[error("{} is not a lab's record: {source}; remove the folder if no lab is running", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// A lab of an impossible shape.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// Another lab has the name.
    #[error("{running} is up: take it down first (`cargo xtask lab down --name {}`), or give this one another --name", running.name)]
    OtherShape {
        /// The lab that is up.
        running: Box<Shape>,
    },
    /// A namespace that the lab did not make.
    #[error("namespace {0} exists already and is not this lab's: choose another --name")]
    ForeignNamespace(String),
    /// Files that no lab has left.
    #[error("{} has files in it that no lab has made: choose another --name, or move it away", .0.display())]
    ForeignFolder(PathBuf),
    /// An instance of the agent that the lab did not start.
    #[error(
        "there is an instance {0} of the agent on this machine, and it is not this lab's: choose another --name; \
         where you know that nobody needs it, `overlay-agent down --instance {0}` removes it"
    )]
    ForeignInstance(String),
    /// No lab of this name.
    #[error("no lab {0} is up: `cargo xtask lab up --name {0}` raises it")]
    NotUp(LabName),
    /// Processes that would not end.
    #[error("lab {lab}: still running after SIGKILL: {processes}")]
    Unkillable {
        /// Which lab.
        lab: LabName,
        /// Their ids and commands.
        processes: String,
    },
    /// The agent's program is not there.
    #[error("there is no agent at {}: build it with `cargo xtask build`, or set OVERLAY_AGENT", .0.display())]
    NoAgent(PathBuf),
    /// There is nothing to make containers of.
    #[error(
        "there is no static busybox at {}: fetch it with `cargo xtask setup`, or set OVERLAY_BUSYBOX",
        .0.display()
    )]
    NoBusybox(PathBuf),
    /// A tool printed something unexpected.
    #[error("the output of `{command}` is not understood: {why}")]
    Output {
        /// Which tool.
        command: String,
        /// How it differs from what was expected.
        why: String,
    },
}

/// The last lines of a log file.
#[derive(Debug)]
pub struct LogEnd {
    path: PathBuf,
    tail: String,
}

impl LogEnd {
    /// Reads them; a log that cannot be read says so in their place.
    pub fn read(path: PathBuf) -> Box<Self> {
        const LINES: usize = 20;
        let tail = match fs::read_to_string(&path) {
            Ok(text) => {
                let lines: Vec<_> = text.lines().collect();
                lines[lines.len().saturating_sub(LINES)..].join("\n")
            }
            Err(error) => format!("(it cannot be read: {error})"),
        };
        Box::new(Self { path, tail })
    }
}

impl fmt::Display for LogEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the end of {}:\n{}", self.path.display(), self.tail)
    }
}

/// Shorthand of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A command whose output is not as it must be.
    pub fn output(command: impl Into<String>, why: impl fmt::Display) -> Self {
        Self::Output {
            command: command.into(),
            why: why.to_string(),
        }
    }

    /// For `map_err` on a file operation.
    pub fn file(
        operation: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File {
            operation,
            path,
            source,
        }
    }
}

fn said(output: &str) -> &str {
    match output.trim() {
        "" => "it printed nothing",
        text => text,
    }
}
