//! The agent of this node, by its socket.

use std::{
    env,
    ffi::OsStr,
    fs,
    io::{self, BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use ipnet::IpNet;

use crate::{
    Attached, Hold, Key, Kind, Offer, Refusal, Reply, Request, Spool, Unwanted, Wanted, socket,
};

/// An agent that is started again listens within a second or two.
const RESTART: Duration = Duration::from_secs(3);
/// An agent with many peers can be busy for so long.
const PATIENCE: Duration = Duration::from_mins(1);
/// Between two tries to connect.
const PAUSE: Duration = Duration::from_millis(50);

/// One instance of the agent.
#[derive(Debug)]
pub struct Agent {
    runtime: PathBuf,
}

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    /// Nobody listens.
    #[error(
        "connect to the agent at {}: {cause}; start it with \"systemctl start overlay-agent\"",
        socket.display()
    )]
    Away {
        /// Its socket.
        socket: PathBuf,
        /// The cause.
        cause: io::Error,
    },
    /// The connection broke, or the answer is of another version.
    #[error("talk to the agent at {}: {cause}; see its log, and its version", socket.display())]
    Broken {
        /// Its socket.
        socket: PathBuf,
        /// The cause.
        cause: io::Error,
    },
    /// It has refused.
    #[error("{}", .0.message)]
    Refused(Refusal),
}

impl NoAnswer {
    /// Whether there is no agent, or none any more: one that is killed leaves its clients without an
    /// answer.
    fn is_gone(&self) -> bool {
        match self {
            Self::Away { .. } => true,
            Self::Broken { cause, .. } => matches!(
                cause.kind(),
                io::ErrorKind::UnexpectedEof
                    | io::ErrorKind::ConnectionReset
                    | io::ErrorKind::BrokenPipe
            ),
            Self::Refused(_) => false,
        }
    }

    /// The agent's message, if there is one.
    pub fn kind(&self) -> Option<Kind> {
        match self {
            Self::Refused(refusal) => Some(refusal.kind),
            Self::Away { .. } | Self::Broken { .. } => None,
        }
    }
}

/// Which agent is meant cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum NoInstance {
    /// None has ever run.
    #[error("find the agent: none runs on this node, and none has; start one")]
    None,
    /// There are several.
    #[error("find the agent: there are {0}; name one of them with \"instance\"")]
    Several(String),
    /// The name would lead elsewhere.
    #[error("find the agent: {0:?} is not the name of an instance; correct \"instance\"")]
    Name(String),
    /// No agent of that name has ever run.
    #[error(
        "find the agent: instance {name} does not run on this node, and never has{}; correct \"instance\", or \
         start it",
        there_are(there)
    )]
    Absent {
        /// The instance that was asked for.
        name: String,
        /// Those that there are.
        there: Vec<String>,
    },
    /// Where agents leave their traces cannot be looked at.
    #[error("find the agent: read {}: {cause}; run this plugin as root", folder.display())]
    Unreadable {
        /// The folder.
        folder: PathBuf,
        /// The cause.
        cause: io::Error,
    },
}

impl NoInstance {
    /// Whether there has never been an agent, so that there is nothing to detach from.
    pub fn never_ran(&self) -> bool {
        matches!(self, Self::None | Self::Absent { .. })
    }
}

fn there_are(names: &[String]) -> String {
    if names.is_empty() {
        return String::new();
    }
    format!(" (there are: {})", names.join(", "))
}

impl Agent {
    /// The one that is named, or the only one that is or was there.
    ///
    /// # Errors
    /// When it cannot be told which one is meant.
    pub fn find(instance: Option<&str>) -> Result<Self, NoInstance> {
        let folder = |variable: &str, default: &str| {
            env::var_os(variable).map_or_else(|| PathBuf::from(default), PathBuf::from)
        };
        let runtimes = folder("OVERLAY_RUNTIME_DIR", "/run/overlay");
        let states = folder("OVERLAY_STATE_DIR", "/var/lib/overlay");
        let mut names = folders(&runtimes)?;
        names.extend(folders(&states)?);
        names.sort();
        names.dedup();
        if let Some(name) = instance {
            let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
            if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) || !name.chars().all(fine) {
                return Err(NoInstance::Name(name.to_owned()));
            }
            if !names.iter().any(|there| there == name) {
                return Err(NoInstance::Absent {
                    name: name.to_owned(),
                    there: names,
                });
            }
            return Ok(Self {
                runtime: runtimes.join(name),
            });
        }
        match names.as_slice() {
            [] => Err(NoInstance::None),
            [only] => Ok(Self {
                runtime: runtimes.join(only),
            }),
            several => Err(NoInstance::Several(several.join(", "))),
        }
    }

    /// Attaches a container. An agent that is being started again is waited for.
    ///
    /// # Errors
    /// When it is not attached.
    pub fn add(&self, wanted: Wanted) -> Result<Attached, NoAnswer> {
        match self.ask(&Request::AttachmentAdd(wanted), RESTART)? {
            Reply::Attached(attached) => Ok(*attached),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Detaches a container; one that is not attached is fine. What an agent cannot be told that is
    /// away it reads when it starts: then it is told why that is so.
    ///
    /// # Errors
    /// When it is attached still, and nobody knows that it should not be.
    pub fn delete(&self, key: &Key) -> Result<Option<NoAnswer>, NoAnswer> {
        let unwanted = Unwanted {
            key: key.clone(),
            if_gone: false,
        };
        let request = Request::AttachmentDel(unwanted);
        let spool = Spool::of(&self.runtime);
        let told = match self.ask(&request, Duration::ZERO) {
            Err(error) if error.is_gone() => {
                let socket = socket(&self.runtime);
                let kept = spool.put(key);
                kept.map_err(|cause| NoAnswer::Broken { socket, cause })?;
                // It may have come in between, and have looked there before.
                self.ask(&request, Duration::ZERO)
            }
            told => told,
        };
        match told {
            Ok(_) => Ok(None),
            Err(error) if error.kind() == Some(Kind::NotFound) => Ok(None),
            Err(error) if error.is_gone() => Ok(Some(error)),
            Err(error) => Err(error),
        }
    }

    /// Has the agent do something of which there is nothing to tell.
    ///
    /// # Errors
    /// When it is not done.
    pub fn tell(&self, request: &Request) -> Result<(), NoAnswer> {
        match self.ask(request, RESTART)? {
            Reply::Done => Ok(()),
            other => Err(self.unexpected(&other)),
        }
    }

    /// The attachments of a source.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn list(&self, source: &str) -> Result<Vec<Key>, NoAnswer> {
        let source = source.to_owned();
        match self.ask(&Request::AttachmentList { source }, RESTART)? {
            Reply::Attachments(keys) => Ok(keys),
            other => Err(self.unexpected(&other)),
        }
    }

    /// The networks that there are.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn networks(&self) -> Result<Vec<Offer>, NoAnswer> {
        match self.ask(&Request::AttachmentNetworks {}, RESTART)? {
            Reply::Offers(offers) => Ok(offers),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Keeps an address for a container that is about to come.
    ///
    /// # Errors
    /// When it is in use, or none is left.
    pub fn hold(&self, hold: Hold) -> Result<IpNet, NoAnswer> {
        match self.ask(&Request::AddressHold(hold), RESTART)? {
            Reply::Held(net) => Ok(net),
            other => Err(self.unexpected(&other)),
        }
    }

    /// The name of the instance.
    pub fn instance(&self) -> &str {
        let name = self.runtime.file_name().and_then(OsStr::to_str);
        name.unwrap_or_default()
    }

    fn unexpected(&self, reply: &Reply) -> NoAnswer {
        NoAnswer::Broken {
            socket: socket(&self.runtime),
            cause: io::Error::other(format!("it answers another question: {reply:?}")),
        }
    }

    /// Asks, and asks once more where an agent that is waited for was ended before its answer: what is
    /// asked can be repeated.
    fn ask(&self, request: &Request, patience: Duration) -> Result<Reply, NoAnswer> {
        match self.ask_once(request, patience) {
            Err(error @ NoAnswer::Broken { .. }) if error.is_gone() && !patience.is_zero() => {
                self.ask_once(request, patience)
            }
            answer => answer,
        }
    }

    fn ask_once(&self, request: &Request, patience: Duration) -> Result<Reply, NoAnswer> {
        let socket = socket(&self.runtime);
        let stream = connect(&socket, patience).map_err(|cause| NoAnswer::Away {
            socket: socket.clone(),
            cause,
        })?;
        let answer = converse(stream, request);
        match answer.map_err(|cause| NoAnswer::Broken { socket, cause })? {
            Reply::Refused(refusal) => Err(NoAnswer::Refused(refusal)),
            Reply::BadInput(message) => Err(NoAnswer::Refused(Refusal {
                kind: Kind::Invalid,
                message,
            })),
            Reply::Failed(message) => Err(NoAnswer::Refused(Refusal {
                kind: Kind::Failed,
                message,
            })),
            reply => Ok(reply),
        }
    }
}

fn connect(socket: &Path, patience: Duration) -> io::Result<UnixStream> {
    let since = Instant::now();
    loop {
        match UnixStream::connect(socket) {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound
                        | io::ErrorKind::ConnectionRefused
                        | io::ErrorKind::WouldBlock
                ) && since.elapsed() < patience =>
            {
                thread::sleep(PAUSE);
            }
            other => return other,
        }
    }
}

fn converse(mut stream: UnixStream, request: &Request) -> io::Result<Reply> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = serde_json::to_string(request)?;
    line.push('\n');
    stream.write_all(line.as_bytes())?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    if answer.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_str(&answer)?)
}

/// Names of the folders in a folder; none where it is not there.
fn folders(folder: &Path) -> Result<Vec<String>, NoInstance> {
    let unreadable = |cause| NoInstance::Unreadable {
        folder: folder.to_owned(),
        cause,
    };
    let entries = match fs::read_dir(folder) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(unreadable)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(unreadable)?;
        if entry.path().is_dir() {
            names.extend(entry.file_name().into_string());
        }
    }
    Ok(names)
}
