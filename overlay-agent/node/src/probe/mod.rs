//! Probes: small UDP packets that agents exchange through the overlay, to see it as a container's
//! packet would.
//!
//! An agent asks its peers at their gateway addresses, from its own and through the network's
//! VXLAN device, so that a question takes the way of everything that a node itself sends
//! (`from_host`, underlay, the peer's kernel), and answers theirs. What it learns: round trip, its
//! jitter, loss, the largest packet that arrives, whether only one of two nodes hears the other,
//! and which agent answers there.
//!
//! - [`wire`]: the form of a message. [`exchange`]: what is asked, when ([`pace`]), of whom
//!   ([`mesh`]), and what an answer means ([`health`], [`rtt`], [`window`], [`mtu`]). All of it
//!   is told the time and has no sockets.
//! - [`thread`] has the sockets. Without `probe = "INTERVAL"` it waits for questions and nothing
//!   else.
//!
//! Only a peer's gateway is answered, from the port itself, as often as a peer may ask, and with
//! no more bytes than it sent. A node without an agent never answers: that is no fault by itself.
//! To have answered and to be silent is one.

mod exchange;
mod health;
mod mesh;
mod mtu;
mod news;
mod pace;
mod report;
mod rtt;
mod sockets;
mod thread;
mod window;
mod wire;

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    os::unix::net::UnixStream,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Instant,
};

use overlay_core::{
    model::{Name, Probe},
    trouble::{Trouble, ids},
};
use tracing::debug;

pub use self::{exchange::Exchange, health::Identity};

pub use self::{
    mesh::NetworkPeers,
    sockets::{Seat, Use},
};

/// UDP port of all probes: VXLAN's, and 10,000.
pub const PORT: u16 = 14_789;

/// A node's probing, as the daemon holds it.
#[derive(Debug, Default)]
pub struct Probes {
    running: Option<Running>,
    failed: Option<Trouble>,
}

/// The targets of the probes, and how they are probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setup {
    /// By which this node answers.
    pub node: Name,
    /// How much is asked.
    pub mode: Probe,
    /// Whose peers are asked.
    pub networks: Vec<NetworkPeers>,
    /// Where sockets belong.
    pub seats: BTreeMap<Use, Seat>,
}

#[derive(Debug)]
struct Running {
    shared: Arc<Shared>,
    orders: UnixStream,
    setup: Setup,
    thread: Option<JoinHandle<()>>,
}

/// State shared by the thread and the daemon.
#[derive(Debug)]
struct Shared {
    exchange: Mutex<Exchange>,
    notes: Mutex<Notes>,
}

#[derive(Debug, Default)]
struct Notes {
    /// Sockets that the thread is to have from now on.
    seats: Option<BTreeMap<Use, Seat>>,
    refused: Vec<String>,
    ended: Option<Trouble>,
}

impl Probes {
    /// Takes in what a round has come to.
    pub fn follow(&mut self, setup: Setup) {
        self.failed = None;
        if setup.mode == Probe::Off {
            self.running = None;
            return;
        }
        match &mut self.running {
            Some(running) => running.follow(setup),
            None => match Running::start(setup) {
                Ok(running) => self.running = Some(running),
                Err(error) => {
                    let cure = "restart the agent";
                    let trouble = Trouble::new(ids::PROBES_FAIL, "probes", error.to_string(), cure);
                    self.failed = Some(trouble.during("probe peers"));
                }
            },
        }
    }

    fn shared(&self) -> Option<&Shared> {
        self.running.as_ref().map(|running| &*running.shared)
    }
}

impl Running {
    fn start(setup: Setup) -> io::Result<Self> {
        let now = Instant::now();
        let identity = Identity {
            node: setup.node.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            abi: overlay_kernel::hooks::abi(),
        };
        let mut exchange = Exchange::new(identity, now);
        exchange.follow(setup.mode, setup.networks.clone(), now);
        let shared = Arc::new(Shared {
            exchange: Mutex::new(exchange),
            notes: Mutex::new(Notes {
                seats: Some(setup.seats.clone()),
                ..Notes::default()
            }),
        });
        let (orders, theirs) = UnixStream::pair()?;
        orders.set_nonblocking(true)?;
        theirs.set_nonblocking(true)?;
        let thread = std::thread::Builder::new()
            .name("probes".to_owned())
            .spawn({
                let shared = shared.clone();
                move || thread::work(&shared, theirs)
            })?;
        let running = Self {
            shared,
            orders,
            setup,
            thread: Some(thread),
        };
        running.wake();
        Ok(running)
    }

    fn follow(&mut self, setup: Setup) {
        let refused = !self.shared.notes().refused.is_empty();
        if self.setup == setup && !refused {
            return;
        }
        let networks = setup.networks.clone();
        self.shared.notes().seats = Some(setup.seats.clone());
        self.shared
            .exchange()
            .follow(setup.mode, networks, Instant::now());
        self.setup = setup;
        self.wake();
    }

    fn wake(&self) {
        if let Err(error) = (&self.orders).write_all(&[1]) {
            // Full: it has orders to wake up for.
            debug!("wake the probes: {error}");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The thread's end of orders is its own.
        if let Err(error) = self.orders.shutdown(std::net::Shutdown::Both) {
            debug!("end the probes: {error}");
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            debug!("the thread of the probes has panicked");
        }
    }
}

impl Shared {
    fn exchange(&self) -> MutexGuard<'_, Exchange> {
        self.exchange.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_seats(&self) -> Option<BTreeMap<Use, Seat>> {
        self.notes().seats.take()
    }

    fn refuse(&self, refused: Vec<String>) {
        self.notes().refused = refused;
    }

    fn end(&self, why: Trouble) {
        self.notes().ended = Some(why);
    }
}
