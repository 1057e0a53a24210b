//! Calls a running daemon.

use std::{
    io::{self, BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

use super::{Reply, Request};

/// Why a call did not come to an answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("connect to the agent at {}: {cause}; {}", socket.display(), cure_of(cause))]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// What the kernel said.
        cause: io::Error,
    },
    /// The connection broke.
    #[error("talk to the agent at {}: {cause}; see its log", socket.display())]
    Io {
        /// The socket.
        socket: PathBuf,
        /// What the kernel said.
        cause: io::Error,
    },
    /// The answer is of another version.
    #[error("understand the agent at {}: {cause}; use the overlay-agent of the daemon's version", socket.display())]
    Foreign {
        /// The socket.
        socket: PathBuf,
        /// What does not fit.
        cause: serde_json::Error,
    },
}

/// What helps against a connection that was refused, or for which there is nobody.
fn cure_of(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::PermissionDenied => "run it as the agent's user, which usually is root",
        _ => "start it with \"overlay-agent run --config FILE\"",
    }
}

/// Sends one request and waits for its reply.
pub fn call(socket: &Path, request: &Request) -> Result<Reply, ClientError> {
    let io = |cause| ClientError::Io {
        socket: socket.to_owned(),
        cause,
    };
    let foreign = |cause| ClientError::Foreign {
        socket: socket.to_owned(),
        cause,
    };
    let mut stream = UnixStream::connect(socket).map_err(|cause| ClientError::Connect {
        socket: socket.to_owned(),
        cause,
    })?;
    let mut line = serde_json::to_string(request).map_err(foreign)?;
    line.push('\n');
    stream.write_all(line.as_bytes()).map_err(io)?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).map_err(io)?;
    if answer.is_empty() {
        return Err(io(io::ErrorKind::UnexpectedEof.into()));
    }
    serde_json::from_str(&answer).map_err(foreign)
}
