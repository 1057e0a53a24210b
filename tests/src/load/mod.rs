//! Traffic that notices when one packet is lost: pings, numbered datagrams and a TCP
//! connection between two containers, for as long as the test does something else.
//!
//! ```text
//! let load = Load::start(&pair, Rates::default())?;
//! let switch = load.during(|| agent.fastpath(false))?;     what is tested, and when it was
//! let outcome = load.finish()?;
//! assert_eq!(outcome.datagrams.lost(), 0);
//! ```
//!
//! All of it runs on threads of this process, each in its namespace. Senders stay on one
//! core: a veth hands packets over on the sender's core, and two cores would not keep them
//! in order.

pub mod batch;
mod clock;
mod datagrams;
pub mod drops;
mod pings;
pub mod sequence;
mod transfer;

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::mpsc,
    thread::{self, JoinHandle},
    time::Duration,
};

use self::clock::Clock;
pub use self::{
    sequence::{Late, Stream},
    transfer::Transfer,
};
use crate::{
    cores,
    error::{Error, Result},
    netns,
    traffic::Pair,
};

/// How much of what is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// Echo requests a second, up to 1000; none at 0.
    pub pings: u32,
    /// UDP datagrams a second, in thousands; none at 0.
    pub datagrams: u32,
    /// Bytes a second over TCP; no connection at 0.
    pub bytes: u32,
}

impl Default for Rates {
    /// Rates that an otherwise idle machine carries without loss.
    fn default() -> Self {
        Self {
            pings: 1000,
            datagrams: 50_000,
            bytes: 16 << 20,
        }
    }
}

impl Rates {
    /// As many pings, and half of the rest.
    #[must_use]
    pub const fn halved(self) -> Self {
        Self {
            pings: self.pings,
            datagrams: self.datagrams / 2,
            bytes: self.bytes / 2,
        }
    }
}

/// Traffic under way. Dropping it ends it.
pub struct Load {
    clock: Clock,
    pings: Option<Running<(datagrams::Sent, datagrams::Received)>>,
    datagrams: Option<(Running<datagrams::Sent>, Running<datagrams::Received>)>,
    transfer: Option<(Running<transfer::Sent>, Running<transfer::Received>)>,
    total: mpsc::Sender<u64>,
}

/// The outcome of a load.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Echo requests and replies.
    pub pings: Option<Stream>,
    /// Datagrams.
    pub datagrams: Option<Stream>,
    /// Bytes over TCP.
    pub transfer: Option<Transfer>,
}

/// When something was done, since the load began.
pub type Window = (Duration, Duration);

impl Load {
    /// Starts sending from a pair's client, which has an address of the server's family.
    ///
    /// A ping goes before: packets that the kernel keeps until a neighbour has answered are
    /// overtaken by those that come after the answer, whoever carries them.
    pub fn start(pair: &Pair<'_>, rates: Rates) -> Result<Self> {
        pair.icmp(&[56])?;
        let clock = Clock::start();
        let cores = cores::allowed().map_err(Error::file("look up", "the allowed cores"))?;
        let (first, last) = (cores[0], cores[cores.len() - 1]);
        let (total, told) = mpsc::channel();
        let mut load = Self {
            clock: clock.clone(),
            pings: None,
            datagrams: None,
            transfer: None,
            total,
        };
        if rates.datagrams > 0 {
            let at = pair.address;
            let inbox = opened(pair, "receive datagrams at", move || datagrams::open(at))?;
            let to = inbox.address().map_err(Error::file("bind", pair.server))?;
            let receiving = {
                let clock = clock.clone();
                Running::start(pair.server, None, move || {
                    datagrams::receive(&clock, &inbox, &told)
                })
            };
            let sending = {
                let clock = clock.clone();
                Running::start(pair.client, Some(first), move || {
                    datagrams::send(&clock, to, rates.datagrams)
                })
            };
            load.datagrams = Some((sending, receiving));
        }
        if rates.bytes > 0 {
            let at = pair.address;
            let listener = opened(pair, "listen at", move || transfer::open(at))?;
            let to = listener.local_addr();
            let to: SocketAddr = to.map_err(Error::file("bind", pair.server))?;
            let receiving = Running::start(pair.server, None, move || transfer::receive(&listener));
            let sending = {
                let clock = clock.clone();
                Running::start(pair.client, Some(last), move || {
                    transfer::send(&clock, to, rates.bytes)
                })
            };
            load.transfer = Some((sending, receiving));
        }
        if rates.pings > 0 {
            let to = pair.address;
            load.pings = Some(Running::start(pair.client, Some(last), move || {
                pings::run(&clock, to, rates.pings)
            }));
        }
        Ok(load)
    }

    /// Does something, and tells when.
    pub fn during<E>(
        &self,
        work: impl FnOnce() -> std::result::Result<(), E>,
    ) -> std::result::Result<Window, E> {
        let from = self.clock.now();
        work()?;
        Ok((from, self.clock.now()))
    }

    /// Ends it, and waits for what is under way.
    pub fn finish(mut self) -> Result<Outcome> {
        self.clock.end();
        let pings = self.pings.take().map(Running::end).transpose()?;
        let datagrams = match self.datagrams.take() {
            Some((sending, receiving)) => {
                let sent = sending.end()?;
                // One that has failed listens no more, and tells why when it is joined.
                let _ = self.total.send(sent.value.packets);
                Some((sent, receiving.end()?.value))
            }
            None => None,
        };
        let transfer = match self.transfer.take() {
            Some((sending, receiving)) => Some((sending.end()?, receiving.end()?.value)),
            None => None,
        };
        let stream = |time, sent: datagrams::Sent, received: datagrams::Received| Stream {
            sent: sent.packets,
            refused: sent.refused,
            time,
            came: received.came,
            overflowed: received.overflowed,
        };
        Ok(Outcome {
            pings: pings.map(|done| stream(done.time, done.value.0, done.value.1)),
            datagrams: datagrams.map(|(done, received)| stream(done.time, done.value, received)),
            transfer: transfer.map(|(done, received)| Transfer {
                sent: done.value.bytes,
                received: received.bytes,
                wrong_from: received.wrong_from,
                again: done.value.again,
                time: done.time,
            }),
        })
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.clock.end();
    }
}

impl fmt::Debug for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Load")
            .field("clock", &self.clock)
            .finish_non_exhaustive()
    }
}

impl Outcome {
    /// The numbered streams.
    pub fn streams(&self) -> impl Iterator<Item = &Stream> {
        self.pings.iter().chain(&self.datagrams)
    }

    /// Packets of the numbered streams that were sent and never came.
    pub fn lost(&self) -> u64 {
        self.streams().map(Stream::lost).sum()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = Vec::new();
        lines.extend(self.pings.iter().map(|pings| format!("pings: {pings}")));
        lines.extend(self.datagrams.iter().map(|stream| format!("UDP: {stream}")));
        lines.extend(
            self.transfer
                .iter()
                .map(|transfer| format!("TCP: {transfer}")),
        );
        f.write_str(&lines.join("\n"))
    }
}

/// A thread in a namespace.
struct Running<T> {
    thread: JoinHandle<Result<Done<T>>>,
}

/// A thread's result, and how long it worked.
struct Done<T> {
    value: T,
    time: Duration,
}

impl<T: Send + 'static> Running<T> {
    fn start(
        namespace: &str,
        core: Option<usize>,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Self {
        let namespace = namespace.to_owned();
        let thread = thread::spawn(move || {
            let began = std::time::Instant::now();
            let done = netns::inside(&namespace, || match core {
                Some(core) => cores::on_core(core, work)?,
                None => work(),
            })?;
            let value = done.map_err(Error::file("run traffic in", &namespace))?;
            let time = began.elapsed();
            Ok(Done { value, time })
        });
        Self { thread }
    }

    fn end(self) -> Result<Done<T>> {
        self.thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// Opens the receiver's end of a pair.
fn opened<T: Send>(
    pair: &Pair<'_>,
    operation: &'static str,
    open: impl FnOnce() -> io::Result<T> + Send,
) -> Result<T> {
    let address: IpAddr = pair.address;
    netns::inside(pair.server, open)?.map_err(Error::file(
        operation,
        format!("{address} of {}", pair.server),
    ))
}
