//! Calls a running daemon.

use std::{
    io::{self, BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Reply, Request};

/// So long an answer is waited for before the agent is asked what it does, and that as long.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a call did not come to an answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("connect to the agent at {}: {cause}; {}", socket.display(), cure_of(cause))]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// The cause.
        cause: io::Error,
    },
    /// The agent has ended.
    #[error("talk to the agent at {}: it ended before it had answered; ask again once it runs, and see its log", socket.display())]
    Ended {
        /// The socket.
        socket: PathBuf,
    },
    /// The connection broke.
    #[error("talk to the agent at {}: {cause}; see its log", socket.display())]
    Io {
        /// The socket.
        socket: PathBuf,
        /// The cause.
        cause: io::Error,
    },
    /// It takes requests, and says nothing.
    #[error(
        "talk to the agent at {}: for {} seconds it has neither answered nor said what it does; see whether its \
         process is stopped (state T in \"ps\", ended by \"kill -CONT PID\"), or end it with \"kill -KILL PID\": what \
         it has built stays, for \"run\" to go on with or \"down\" to remove",
        socket.display(),
        2 * PATIENCE.as_secs()
    )]
    Silent {
        /// The socket.
        socket: PathBuf,
    },
    /// The answer is of another version.
    #[error("understand the agent at {}: {cause}; use the overlay-agent of the daemon's version", socket.display())]
    Foreign {
        /// The socket.
        socket: PathBuf,
        /// The contradiction.
        cause: serde_json::Error,
    },
}

/// The cure for a refused connection, or one that nobody accepts.
fn cure_of(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::PermissionDenied => "run it as the agent's user, which usually is root",
        _ => "start it with \"overlay-agent run --config FILE\"",
    }
}

/// Sends one request and waits for its reply. It is given up when the agent does not even say what
/// it is doing, which it does at once however busy it is. What is given up the agent does not begin
/// later, either.
pub fn call(socket: &Path, request: &Request) -> Result<Reply, ClientError> {
    let answer = ask(socket, request, PATIENCE, || {
        // Others are before it, or the agent stands still.
        *request == (Request::Activity {}) || call(socket, &Request::Activity {}).is_err()
    })?;
    serde_json::from_str(&answer).map_err(|cause| foreign(socket, cause))
}

/// Whether an agent says within so long what it does, which it does at once however busy it is;
/// an error where nobody listens.
pub fn speaks(socket: &Path, within: Duration) -> Result<bool, ClientError> {
    match ask(socket, &Request::Activity {}, within, || true) {
        Ok(_) => Ok(true),
        Err(ClientError::Silent { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

fn foreign(socket: &Path, cause: serde_json::Error) -> ClientError {
    ClientError::Foreign {
        socket: socket.to_owned(),
        cause,
    }
}

/// Sends a request and waits for a line; each time that none has come for so long, `gives_up` says
/// whether to wait no more.
fn ask(
    socket: &Path,
    request: &Request,
    patience: Duration,
    gives_up: impl Fn() -> bool,
) -> Result<String, ClientError> {
    let line = serde_json::to_string(request).map_err(|cause| foreign(socket, cause))? + "\n";
    let io = |cause| ClientError::Io {
        socket: socket.to_owned(),
        cause,
    };
    let mut stream = UnixStream::connect(socket).map_err(|cause| ClientError::Connect {
        socket: socket.to_owned(),
        cause,
    })?;
    stream.set_read_timeout(Some(patience)).map_err(io)?;
    stream.write_all(line.as_bytes()).map_err(io)?;
    let mut answer = Vec::new();
    let mut reader = BufReader::new(stream);
    loop {
        // What was read before the time was up stays in the answer.
        match reader.read_until(b'\n', &mut answer) {
            // The agent ended, or broke it off.
            Ok(_) if !answer.ends_with(b"\n") => {
                return Err(ClientError::Ended {
                    socket: socket.to_owned(),
                });
            }
            Ok(_) => return String::from_utf8(answer).map_err(|cause| io(io::Error::other(cause))),
            Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => {
                if gives_up() {
                    return Err(ClientError::Silent {
                        socket: socket.to_owned(),
                    });
                }
            }
            Err(cause) => return Err(io(cause)),
        }
    }
}
