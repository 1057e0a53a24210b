//! Takes calls and hands them to the daemon, one after another.

use std::{
    fmt, fs, io,
    os::{
        fd::AsFd as _,
        unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    unistd::{geteuid, getpid},
};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, RwLock, Semaphore, mpsc, oneshot, watch},
    time::timeout,
};
use tracing::debug;

use super::{Reply, Request};
use crate::progress::Activity;

/// Longest request line in bytes.
const MAX_REQUEST: u64 = 64 * 1024;
/// Clients that are served at a time; more wait to be.
const MAX_CLIENTS: usize = 32;
/// How long a client may think, or leave a reply unread.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long an agent that ends waits until its last replies are written.
const LAST: Duration = Duration::from_secs(1);
/// How often it is looked whether a client still waits.
const LOOK: Duration = Duration::from_millis(200);

/// A request with the place for its reply.
#[derive(Debug)]
pub struct Call {
    /// The request.
    pub request: Request,
    /// The caller.
    pub caller: Caller,
    /// Takes the reply; the client may be gone by then.
    pub reply: oneshot::Sender<Reply>,
}

/// A process that asks, as the kernel knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// Its user.
    pub user: u32,
    /// Its number; `None` for one in a namespace of processes that is not seen from here.
    pub process: Option<i32>,
}

impl Caller {
    /// This process.
    pub fn own() -> Self {
        Self {
            user: geteuid().as_raw(),
            process: Some(getpid().as_raw()),
        }
    }

    fn of(stream: &UnixStream) -> io::Result<Self> {
        let peer = stream.peer_cred()?;
        Ok(Self {
            user: peer.uid(),
            // The kernel writes 0 for one that it has no number for here.
            process: peer.pid().filter(|pid| *pid != 0),
        })
    }

    /// Whether it is root, or could replace the agent. The socket's mode says the same, but a
    /// mode can be changed, and a descriptor be handed on.
    fn may_ask(self) -> bool {
        self.user == 0 || self.user == geteuid().as_raw()
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.process {
            Some(process) => write!(f, "process {process} of user {}", self.user),
            None => write!(f, "a process of user {}", self.user),
        }
    }
}

/// The socket could not be made.
#[derive(Debug, thiserror::Error)]
#[error("open the API socket {}: {cause}; check the folder's permissions", socket.display())]
pub struct ServerError {
    socket: PathBuf,
    cause: io::Error,
}

/// A listening API socket; it is removed when dropped.
#[derive(Debug)]
pub struct Server {
    socket: PathBuf,
    /// Of the socket: another file of its name is somebody else's.
    inode: u64,
    replies: Replies,
}

/// What clients have asked and have no reply to yet.
#[derive(Clone, Debug, Default)]
pub struct Replies(Arc<RwLock<()>>);

impl Replies {
    /// Waits until every reply that there is has been written, for a second at most; what was asked and is not
    /// answered has to be given up before. Requests that come then are not taken any more.
    ///
    /// An agent that ended without would have done what nobody was told.
    pub async fn delivered(self) {
        if timeout(LAST, self.0.write()).await.is_err() {
            debug!("a client does not take its reply");
        }
    }
}

impl Server {
    /// Listens, for the owner alone, and sends every call to `calls`. What the daemon does,
    /// `activity` tells: the daemon itself is busy with it.
    ///
    /// A socket that an earlier daemon left is replaced: the caller holds the instance's lock.
    pub fn start(
        socket: &Path,
        calls: mpsc::Sender<Call>,
        activity: watch::Receiver<Activity>,
    ) -> Result<Self, ServerError> {
        let error = |cause| ServerError {
            socket: socket.to_owned(),
            cause,
        };
        match fs::symlink_metadata(socket) {
            Ok(there) if there.file_type().is_socket() => {
                fs::remove_file(socket).map_err(error)?;
            }
            // To listen there is refused, and says so.
            Ok(_) | Err(_) => {}
        }
        // Nobody else can connect before the mode is set: the folder is private.
        let listener = UnixListener::bind(socket).map_err(error)?;
        fs::set_permissions(socket, fs::Permissions::from_mode(0o600)).map_err(error)?;
        let inode = fs::symlink_metadata(socket).map_err(error)?.ino();
        let replies = Replies::default();
        let desk = Desk {
            calls,
            activity,
            replies: replies.clone(),
        };
        tokio::spawn(accept(listener, desk));
        Ok(Self {
            socket: socket.to_owned(),
            inode,
            replies,
        })
    }

    /// The replies that it writes.
    pub fn replies(&self) -> Replies {
        self.replies.clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let removed = match fs::symlink_metadata(&self.socket) {
            Ok(there) if there.ino() == self.inode => fs::remove_file(&self.socket),
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = removed {
            debug!("remove {}: {error}", self.socket.display());
        }
    }
}

/// Where requests are answered, or handed on.
#[derive(Clone)]
struct Desk {
    calls: mpsc::Sender<Call>,
    activity: watch::Receiver<Activity>,
    replies: Replies,
}

async fn accept(listener: UnixListener, desk: Desk) {
    let places = Arc::new(Semaphore::new(MAX_CLIENTS));
    // It is never closed.
    while let Ok(place) = places.clone().acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(attend(stream, desk.clone(), place));
            }
            Err(error) => {
                // Out of descriptors: wait until some are closed instead of spinning.
                debug!("accept an API client: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn attend(stream: UnixStream, desk: Desk, _place: OwnedSemaphorePermit) {
    if let Err(error) = serve(stream, &desk).await {
        debug!("an API client went away: {error}");
    }
}

async fn serve(stream: UnixStream, desk: &Desk) -> io::Result<()> {
    let caller = Caller::of(&stream)?;
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read.take(MAX_REQUEST));
    loop {
        let mut line = Vec::new();
        timeout(PATIENCE, read.read_until(b'\n', &mut line)).await??;
        let whole = line.ends_with(b"\n");
        let unanswered = desk.replies.0.read().await;
        let reply = if line.is_empty() {
            return Ok(());
        } else if !caller.may_ask() {
            Reply::BadInput(format!(
                "ask the agent: user {} may not; ask as root, or as the agent's user",
                caller.user
            ))
        } else if !whole && read.get_ref().limit() == 0 {
            Reply::BadInput(format!(
                "understand the request: it is longer than {MAX_REQUEST} bytes"
            ))
        } else {
            match serde_json::from_slice(&line) {
                Ok(request) => {
                    tokio::select! {
                        biased;
                        // What nobody waits for any more is not begun.
                        () = gone(write.as_ref()) => return Err(io::ErrorKind::BrokenPipe.into()),
                        reply = desk.answer(request, caller) => match reply {
                            Some(reply) => reply,
                            // Whoever waits for the next agent asks that.
                            None => return Ok(()),
                        },
                    }
                }
                Err(error) => Reply::BadInput(format!("understand the request: {error}")),
            }
        };
        let mut text = serde_json::to_string(&reply).map_err(io::Error::other)?;
        text.push('\n');
        deliver(&mut write, text.as_bytes(), PATIENCE).await?;
        drop(unanswered);
        if !whole {
            return Ok(());
        }
        read.get_mut().set_limit(MAX_REQUEST);
    }
}

/// Writes all of a reply to a client that takes some of it within so long, each time. How long all of
/// it takes is the agent's doing, too: a round keeps it from writing.
async fn deliver(
    client: &mut (impl AsyncWrite + Unpin),
    mut reply: &[u8],
    patience: Duration,
) -> io::Result<()> {
    while !reply.is_empty() {
        let taken = timeout(patience, client.write(reply)).await??;
        if taken == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        reply = reply.get(taken..).unwrap_or_default();
    }
    Ok(())
}

/// Waits until the client has closed its connection. One that has only said all that it has to
/// say waits for its reply.
async fn gone(stream: &UnixStream) {
    loop {
        let mut connection = [PollFd::new(stream.as_fd(), PollFlags::empty())];
        let polled = poll(&mut connection, PollTimeout::ZERO);
        let [connection] = connection;
        let has = connection.revents().unwrap_or(PollFlags::empty());
        if polled.is_ok() && has.contains(PollFlags::POLLHUP) {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
}

impl Desk {
    /// `None` when the agent ends before there is an answer.
    async fn answer(&self, request: Request, caller: Caller) -> Option<Reply> {
        if request == (Request::Activity {}) {
            return Some(Reply::Activity(self.activity.borrow().clone()));
        }
        let (reply, answer) = oneshot::channel();
        let call = Call {
            request,
            caller,
            reply,
        };
        self.calls.send(call).await.ok()?;
        answer.await.ok()
    }
}

#[cfg(test)]
mod tests {
    use std::{io, time::Duration};

    use tokio::{io::AsyncReadExt as _, time::sleep};

    use super::deliver;

    #[tokio::test]
    async fn a_slow_client_gets_all_of_a_reply_and_one_that_stands_still_is_left() {
        let patience = Duration::from_millis(300);
        let reply = [7_u8; 1024];
        let (mut agent, mut client) = tokio::io::duplex(64);
        let reads = async {
            let mut all: Vec<u8> = Vec::new();
            while all.len() < reply.len() {
                sleep(Duration::from_millis(50)).await;
                let mut some = [0; 64];
                let taken = client.read(&mut some).await.unwrap();
                all.extend(&some[..taken]);
            }
            all
        };
        let (delivered, all) = tokio::join!(deliver(&mut agent, &reply, patience), reads);
        delivered.unwrap();
        assert_eq!(all, reply);
        let error = deliver(&mut agent, &reply, patience).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
