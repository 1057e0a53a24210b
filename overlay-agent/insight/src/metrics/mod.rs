//! Counters for Prometheus, over HTTP.
//!
//! It asks the daemon as any client does, so a scrape waits until a round is done. Whoever
//! connects gets one page: few at a time, each within a time, whatever they send.

mod cluster;
mod export;
mod paths;

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use overlay_control::{self as api, Call, Caller, Reply, stats::Export};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc, oneshot},
    task::JoinHandle,
    time::{sleep, timeout},
};
use tracing::debug;

/// Clients that are served at a time; more wait to be.
const MAX_CLIENTS: usize = 8;
/// How long one may take, from its connection to its last byte.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest head of a request in bytes; hyper takes no less.
const MAX_HEAD: usize = 8 * 1024;

/// An open door for Prometheus; it is closed when dropped.
#[derive(Debug)]
pub struct Exporter {
    task: JoinHandle<()>,
}

impl Exporter {
    /// Listens at an address of this thread's namespace.
    pub async fn open(at: SocketAddr, calls: mpsc::Sender<Call>) -> io::Result<Self> {
        let listener = TcpListener::bind(at).await?;
        let task = tokio::spawn(accept(listener, calls));
        Ok(Self { task })
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, calls: mpsc::Sender<Call>) {
    let places = Arc::new(Semaphore::new(MAX_CLIENTS));
    // It is never closed.
    while let Ok(place) = places.clone().acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let calls = calls.clone();
                tokio::spawn(async move {
                    attend(stream, calls).await;
                    drop(place);
                });
            }
            Err(error) => {
                // Out of descriptors: wait until some are closed instead of spinning.
                debug!("accept a client of the metrics: {error}");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn attend(stream: TcpStream, calls: mpsc::Sender<Call>) {
    let service = service_fn(|request| answer(request, &calls));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(MAX_HEAD)
        // The next scrape is far away, and others wait for the place.
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(PATIENCE, served).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!("a client of the metrics went away: {error}"),
        Err(_) => debug!("a client of the metrics was too slow"),
    }
}

async fn answer(
    request: Request<Incoming>,
    calls: &mpsc::Sender<Call>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let text = |status, text: String| {
        let mut response = Response::new(Full::from(text));
        *response.status_mut() = status;
        response
    };
    Ok(match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => match page(calls).await {
            Ok(page) => {
                let mut response = Response::new(Full::from(page));
                let kind = HeaderValue::from_static(prometheus::TEXT_FORMAT);
                response.headers_mut().insert(CONTENT_TYPE, kind);
                response
            }
            Err(error) => text(StatusCode::SERVICE_UNAVAILABLE, error + "\n"),
        },
        (_, "/metrics") => {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, String::new());
            let get = HeaderValue::from_static("GET");
            response.headers_mut().insert(ALLOW, get);
            response
        }
        _ => text(StatusCode::NOT_FOUND, "see /metrics\n".to_owned()),
    })
}

async fn page(calls: &mpsc::Sender<Call>) -> Result<Vec<u8>, String> {
    let export = ask(calls).await?;
    export::page(&export).map_err(|error| error.to_string())
}

async fn ask(calls: &mpsc::Sender<Call>) -> Result<Export, String> {
    let ending = || "the agent is ending".to_owned();
    let (reply, answer) = oneshot::channel();
    let request = api::Request::Export {};
    let call = Call {
        request,
        caller: Caller::own(),
        reply,
    };
    let asked = calls.send(call).await;
    asked.map_err(|_| ending())?;
    match answer.await.map_err(|_| ending())? {
        Reply::Export(export) => Ok(*export),
        Reply::Failed(error) | Reply::BadInput(error) => Err(error),
        _ => Err("the agent gave an answer to another question".to_owned()),
    }
}

#[cfg(test)]
mod tests;
