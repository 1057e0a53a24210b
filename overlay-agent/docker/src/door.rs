//! The socket, and HTTP on it.

use std::{
    convert::Infallible,
    fs, io,
    os::{
        fd::{FromRawFd as _, RawFd},
        unix::{
            fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
            net,
        },
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    net::{UnixListener, UnixStream},
    select,
    signal::unix::{SignalKind, signal},
    task::spawn_blocking,
    time::sleep,
};

use crate::{driver::Driver, trouble::Trouble};

/// The form in which answers are given.
const FORM: &str = "application/vnd.docker.plugins.v1.2+json";
/// Bytes that a question can have: Docker's have some hundred, and those with many ports some thousand.
const LONGEST: usize = 1 << 20;

/// Why nobody is attended to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DoorError {
    /// No threads, or no descriptors.
    #[error("start: {0}")]
    Runtime(io::Error),
    /// Somebody else does already what this program would do.
    #[error(
        "listen at {}: another program does; stop it, as with \"systemctl stop overlay-docker.socket\", or \
         name another socket",
        .0.display()
    )]
    Taken(PathBuf),
    /// Something of somebody else is in the way.
    #[error(
        "listen at {}: it is there and not a socket, so this program has not made it; move it away, or name another socket",
        .0.display()
    )]
    NotSocket(PathBuf),
    /// The socket cannot be made.
    #[error("listen at {}: {cause}; run this program as root", socket.display())]
    Closed {
        /// The socket.
        socket: PathBuf,
        /// The cause.
        cause: io::Error,
    },
    /// The descriptor from systemd is no socket.
    #[error("listen at what systemd has opened: {0}; it has to be one unix socket for streams")]
    Handed(io::Error),
}

/// Answers until a signal ends it.
pub(crate) async fn open(socket: PathBuf, driver: Arc<Driver>) -> Result<(), DoorError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(DoorError::Runtime)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(DoorError::Runtime)?;
    let (listener, made) = if let Some(listener) = handed_over()? {
        (listener, None)
    } else {
        let listener = listen(&socket)?;
        let made = fs::symlink_metadata(&socket);
        (listener, made.ok().map(|made| (socket, made.ino())))
    };
    // Nobody waits for it where it was not started by systemd.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    loop {
        select! {
            client = listener.accept() => match client {
                Ok((stream, _)) => {
                    tokio::spawn(attend(stream, driver.clone()));
                }
                Err(error) => {
                    // Out of descriptors: wait until some are closed instead of spinning.
                    eprintln!("overlay-docker: accept a client: {error}");
                    sleep(Duration::from_millis(100)).await;
                }
            },
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    if let Some((socket, inode)) = made {
        // What has taken its place is somebody else's.
        if !fs::symlink_metadata(&socket).is_ok_and(|there| there.ino() == inode) {
            return Ok(());
        }
        // dockerd waits for a driver whose socket is there.
        let removed = fs::remove_file(&socket);
        removed.map_err(|cause| DoorError::Closed { socket, cause })?;
    }
    Ok(())
}

/// The socket that systemd has opened for this program.
fn handed_over() -> Result<Option<UnixListener>, DoorError> {
    let mut descriptors = sd_notify::listen_fds().map_err(DoorError::Handed)?;
    let Some(descriptor): Option<RawFd> = descriptors.next() else {
        return Ok(None);
    };
    // SAFETY: systemd opened it for this process, which takes it here, once, and at no other place.
    let listener = unsafe { net::UnixListener::from_raw_fd(descriptor) };
    listener.set_nonblocking(true).map_err(DoorError::Handed)?;
    UnixListener::from_std(listener)
        .map(Some)
        .map_err(DoorError::Handed)
}

fn listen(socket: &Path) -> Result<UnixListener, DoorError> {
    let closed = |cause| DoorError::Closed {
        socket: socket.to_owned(),
        cause,
    };
    if let Some(folder) = socket.parent() {
        fs::create_dir_all(folder).map_err(closed)?;
    }
    // A connection to a plain file is refused, too.
    if fs::symlink_metadata(socket).is_ok_and(|there| !there.file_type().is_socket()) {
        return Err(DoorError::NotSocket(socket.to_owned()));
    }
    match net::UnixStream::connect(socket) {
        Ok(_) => return Err(DoorError::Taken(socket.to_owned())),
        // One that was killed has left it.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(socket).map_err(closed)?;
        }
        Err(_) => {}
    }
    let listener = UnixListener::bind(socket).map_err(closed)?;
    fs::set_permissions(socket, fs::Permissions::from_mode(0o600)).map_err(closed)?;
    Ok(listener)
}

async fn attend(stream: UnixStream, driver: Arc<Driver>) {
    let service = service_fn(|request| answer(request, driver.clone()));
    let served = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        eprintln!("overlay-docker: a client went away: {error}");
    }
}

async fn answer(
    request: Request<Incoming>,
    driver: Arc<Driver>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let method = request.uri().path().trim_start_matches('/').to_owned();
    let done = match read(request).await {
        Ok(question) => {
            let asked = method.clone();
            spawn_blocking(move || driver.answer(&asked, &question))
                .await
                .unwrap_or_else(|error| Err(Trouble::Ended(error.to_string())))
        }
        Err(trouble) => Err(trouble),
    };
    let (status, answer) = match done {
        Ok(answer) => (StatusCode::OK, answer),
        Err(trouble) => {
            eprintln!("overlay-docker: {method}: {trouble}");
            (trouble.status(), {
                // The one is what Docker looks for in answers about networks, the other in those about addresses.
                let text = trouble.to_string();
                json!({ "Err": text, "Error": text })
            })
        }
    };
    let mut response = Response::new(Full::from(answer.to_string()));
    *response.status_mut() = status;
    let form = HeaderValue::from_static(FORM);
    response.headers_mut().insert(CONTENT_TYPE, form);
    Ok(response)
}

/// The body of a request; none where the path says everything.
async fn read(request: Request<Incoming>) -> Result<Value, Trouble> {
    if request.method() != Method::POST {
        return Err(Trouble::NoMethod(request.method().to_string()));
    }
    let body = Limited::new(request.into_body(), LONGEST).collect().await;
    let bytes = body
        .map_err(|error| Trouble::Question(error.to_string()))?
        .to_bytes();
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(&bytes).map_err(|error| Trouble::Question(error.to_string()))
}
