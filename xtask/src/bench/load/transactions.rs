//! Requests and responses over TCP, by many clients at once.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Barrier,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::on;
use crate::bench::{cores::Cores, labs::Way};

/// Clients at once, each with a server of its own.
pub(crate) const CLIENTS: usize = 16;
/// Bytes of a request and of a response.
const SIZE: usize = 64;
/// Longer than any answer takes, so that a fault does not become a hang.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a client does for one transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Asks and hears on a connection that stays.
    Request,
    /// Connects, asks, hears and closes.
    Connection,
}

/// The completed transactions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Done {
    pub(crate) transactions: u64,
    pub(crate) seconds: f64,
}

/// Runs clients at one end and servers at the other.
pub(crate) fn run(way: &Way, cores: Cores, kind: Kind, time: Duration) -> Result<Done> {
    // A listener for each client: 28,000 local ports, each closed for a minute before it is
    // used again, are few for thousands of connections a second to one port.
    let listeners = on(&way.server, cores.server, || {
        (0..CLIENTS)
            .map(|_| TcpListener::bind((way.listening, 0)).context("listen"))
            .collect::<Result<Vec<_>>>()
    })?;
    let listening: Vec<SocketAddr> = listeners
        .iter()
        .map(|listener| listener.local_addr().context("listen"))
        .collect::<Result<_>>()?;
    let ports = listening.iter().map(SocketAddr::port);
    let servers: Vec<_> = ports.map(|port| (way.address, port).into()).collect();
    let end = AtomicBool::new(false);

    thread::scope(|scope| {
        let serving = scope.spawn(|| on(&way.server, cores.server, || serve_all(&listeners, &end)));
        let result = on(&way.client, cores.client, || ask_all(&servers, kind, time));
        end.store(true, Ordering::Relaxed);
        // Each server waits for a connection or for a request; this is the last connection.
        let woken = on(&way.server, cores.server, || {
            listening.iter().try_for_each(|server| {
                TcpStream::connect_timeout(server, PATIENCE)
                    .map(drop)
                    .context("wake a server")
            })
        });
        let served = serving
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let done = result?;
        served?;
        woken?;
        Ok(done)
    })
}

fn serve_all(listeners: &[TcpListener], end: &AtomicBool) -> Result<()> {
    thread::scope(|scope| {
        let servers: Vec<_> = listeners
            .iter()
            .map(|listener| scope.spawn(move || serve(listener, end)))
            .collect();
        servers.into_iter().try_for_each(|server| {
            server
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                .context("answer requests")
        })
    })
}

/// Answers on one connection after the other.
fn serve(listener: &TcpListener, end: &AtomicBool) -> io::Result<()> {
    loop {
        let (mut stream, _) = listener.accept()?;
        if end.load(Ordering::Relaxed) {
            return Ok(());
        }
        prepare(&stream)?;
        let mut request = [0; SIZE];
        loop {
            match stream.read_exact(&mut request) {
                Ok(()) => stream.write_all(&request)?,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                Err(error) => return Err(error),
            }
        }
    }
}

fn ask_all(servers: &[SocketAddr], kind: Kind, time: Duration) -> Result<Done> {
    let start = Barrier::new(servers.len() + 1);
    thread::scope(|scope| {
        let clients: Vec<_> = servers
            .iter()
            .map(|&server| {
                let start = &start;
                scope.spawn(move || ask(server, kind, start, time))
            })
            .collect();
        start.wait();
        let started = Instant::now();
        let mut transactions = 0;
        for client in clients {
            transactions += client
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                .context("ask")?;
        }
        Ok(Done {
            transactions,
            seconds: started.elapsed().as_secs_f64(),
        })
    })
}

/// One client; how many transactions it made.
fn ask(server: SocketAddr, kind: Kind, start: &Barrier, time: Duration) -> io::Result<u64> {
    let connected = connect(server);
    // Before any failure is returned, or the others would wait for ever.
    start.wait();
    let mut stream = connected?;
    let started = Instant::now();
    let mut transactions = 0;
    while started.elapsed() < time {
        if kind == Kind::Connection {
            stream = connect(server)?;
        }
        let mut response = [0; SIZE];
        stream.write_all(&[0x5a; SIZE])?;
        stream.read_exact(&mut response)?;
        transactions += 1;
    }
    Ok(transactions)
}

fn connect(server: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&server, PATIENCE)?;
    prepare(&stream)?;
    Ok(stream)
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))
}
