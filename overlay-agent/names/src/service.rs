//! The sockets, and the thread that waits for questions.

use std::{
    collections::BTreeMap,
    io::{self, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::{fd::AsFd as _, unix::net::UnixStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use crate::{
    PORT, ask,
    judge::{By, Verdict, decide, failure, written},
    peers::Peers,
    room::Room,
};

/// Questions that others are asked at a time; more are told to come again.
const MAX_ASKED: usize = 64;
/// Datagrams that are taken from a socket before something else is looked at.
const BATCH: usize = 64;
/// Larger than any datagram.
const BUFFER: usize = 1 << 16;
/// How long somebody who has connected may take for a question.
const PATIENCE: Duration = Duration::from_secs(2);

/// The networks whose names are answered, each at its gateway's addresses.
pub type Setup = BTreeMap<IpAddr, Arc<Room>>;

/// Questions so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Answered by what this node knows.
    pub answered: u64,
    /// Put to peers.
    pub peers: u64,
    /// Handed to name servers of the node.
    pub forwarded: u64,
    /// Not answered, because nobody has, or too many were put to others.
    pub failed: u64,
}

/// A thread that answers; it ends with the value.
#[derive(Debug)]
pub struct Service {
    shared: Arc<Shared>,
    orders: UnixStream,
    setup: Setup,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    wanted: Mutex<Option<Setup>>,
    refused: Mutex<BTreeMap<IpAddr, String>>,
    known: Peers,
    asked: AtomicUsize,
    answered: AtomicU64,
    peers: AtomicU64,
    forwarded: AtomicU64,
    failed: AtomicU64,
}

fn held<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Service {
    /// Starts it in this thread's network namespace.
    ///
    /// # Errors
    /// When there is no thread or socket to be had.
    pub fn start() -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let (orders, theirs) = UnixStream::pair()?;
        orders.set_nonblocking(true)?;
        theirs.set_nonblocking(true)?;
        let thread = thread::Builder::new().name("names".to_owned()).spawn({
            let shared = shared.clone();
            move || work(&shared, theirs)
        })?;
        Ok(Self {
            shared,
            orders,
            setup: Setup::new(),
            thread: Some(thread),
        })
    }

    /// Has it answer for these networks from now on; what could not be opened is tried again.
    pub fn follow(&mut self, setup: Setup) {
        if setup == self.setup && held(&self.shared.refused).is_empty() {
            return;
        }
        *held(&self.shared.wanted) = Some(setup.clone());
        self.setup = setup;
        // Its buffer is full of orders that it has not read: it will see this one with them.
        let _ = (&self.orders).write(&[0]);
    }

    /// The networks that it answers for.
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Where it could not listen, and why.
    pub fn refused(&self) -> BTreeMap<IpAddr, String> {
        held(&self.shared.refused).clone()
    }

    /// Questions so far.
    pub fn counters(&self) -> Counters {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            answered: of(&self.shared.answered),
            peers: of(&self.shared.peers),
            forwarded: of(&self.shared.forwarded),
            failed: of(&self.shared.failed),
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It ends when it sees that this end is closed.
        let _ = self.orders.shutdown(std::net::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            // One that has panicked has ended, too.
            let _ = thread.join();
        }
    }
}

/// A place where questions arrive.
struct Seat {
    room: Arc<Room>,
    gateway: IpAddr,
    datagrams: Arc<UdpSocket>,
    connections: TcpListener,
}

impl Seat {
    fn open(gateway: IpAddr, room: Arc<Room>) -> io::Result<Self> {
        let at = SocketAddr::new(gateway, PORT);
        let datagrams = UdpSocket::bind(at)?;
        datagrams.set_nonblocking(true)?;
        let connections = TcpListener::bind(at)?;
        connections.set_nonblocking(true)?;
        Ok(Self {
            room,
            gateway,
            datagrams: Arc::new(datagrams),
            connections,
        })
    }
}

fn work(shared: &Arc<Shared>, mut orders: UnixStream) {
    let mut seats: BTreeMap<IpAddr, Seat> = BTreeMap::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        if let Err(error) = wait(&seats, &orders) {
            let why = format!("wait for questions: {error}");
            held(&shared.refused).extend(seats.keys().map(|at| (*at, why.clone())));
            return;
        }
        match orders.read(&mut [0; 64]) {
            Ok(0) => return,
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return,
            _ => {}
        }
        if let Some(wanted) = held(&shared.wanted).take() {
            follow(shared, &mut seats, wanted);
        }
        for seat in seats.values() {
            receive(shared, seat, &mut buffer);
            accept(shared, seat);
        }
    }
}

fn wait(seats: &BTreeMap<IpAddr, Seat>, orders: &UnixStream) -> nix::Result<()> {
    let sockets = seats
        .values()
        .flat_map(|seat| [seat.datagrams.as_fd(), seat.connections.as_fd()]);
    let mut waiting: Vec<PollFd<'_>> = sockets
        .chain([orders.as_fd()])
        .map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN))
        .collect();
    match poll(&mut waiting, PollTimeout::NONE) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn follow(shared: &Shared, seats: &mut BTreeMap<IpAddr, Seat>, wanted: Setup) {
    seats.retain(|at, _| wanted.contains_key(at));
    let mut refused = BTreeMap::new();
    for (at, room) in wanted {
        if let Some(seat) = seats.get_mut(&at) {
            seat.room = room;
            continue;
        }
        match Seat::open(at, room) {
            Ok(seat) => {
                seats.insert(at, seat);
            }
            Err(error) => {
                refused.insert(at, error.to_string());
            }
        }
    }
    *held(&shared.refused) = refused;
}

fn receive(shared: &Arc<Shared>, seat: &Seat, buffer: &mut [u8]) {
    for _ in 0..BATCH {
        // A datagram that could not be sent may be told of here; there is nothing to do about it.
        let Ok((length, from)) = seat.datagrams.recv_from(buffer) else {
            break;
        };
        if !seat.room.is_home_of(from.ip()) {
            continue;
        }
        let question = &buffer[..length];
        let socket = seat.datagrams.clone();
        let reply = move |answer: &[u8]| {
            // Who has asked asks again.
            let _ = socket.send_to(answer, from);
        };
        match decide(question, &seat.room, By::Udp) {
            Verdict::Answer(answer) => {
                shared.answered.fetch_add(1, Ordering::Relaxed);
                reply(&answer);
            }
            Verdict::Ignore => {}
            verdict => {
                let (room, gateway) = (seat.room.clone(), seat.gateway);
                let (shared, question) = (shared.clone(), question.to_vec());
                let refusal = failure(&question);
                let done = elsewhere(&shared.clone(), move || {
                    if let Some(answer) = put(&shared, verdict, &question, &room, gateway, By::Udp)
                    {
                        reply(&answer);
                    }
                });
                if let (Err(_), Some(refusal)) = (done, refusal) {
                    let _ = seat.datagrams.send_to(&refusal, from);
                }
            }
        }
    }
}

fn accept(shared: &Arc<Shared>, seat: &Seat) {
    for _ in 0..BATCH {
        let Ok((stream, from)) = seat.connections.accept() else {
            break;
        };
        if !seat.room.is_home_of(from.ip()) {
            continue;
        }
        let (room, gateway) = (seat.room.clone(), seat.gateway);
        let attended = shared.clone();
        // Without a place for it, the connection is closed, and tried again by who wants it.
        let _ = elsewhere(shared, move || {
            let _ = attend(&attended, stream, &room, gateway);
        });
    }
}

/// Answers what is asked over a connection, one question after another.
fn attend(shared: &Shared, mut stream: TcpStream, room: &Room, gateway: IpAddr) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    loop {
        let question = ask::read_framed(&mut stream)?;
        let answer = match decide(&question, room, By::Tcp) {
            Verdict::Answer(answer) => {
                shared.answered.fetch_add(1, Ordering::Relaxed);
                Some(answer)
            }
            verdict => put(shared, verdict, &question, room, gateway, By::Tcp),
        };
        let Some(answer) = answer else {
            return Ok(());
        };
        ask::write_framed(&mut stream, &answer)?;
    }
}

/// Puts a question to others, and says what came of it.
fn put(
    shared: &Shared,
    verdict: Verdict,
    question: &[u8],
    room: &Room,
    gateway: IpAddr,
    by: By,
) -> Option<Vec<u8>> {
    let answer = match verdict {
        Verdict::Answer(answer) => Some(answer),
        Verdict::Ignore => return None,
        Verdict::AskPeers(mut answer) => {
            shared.peers.fetch_add(1, Ordering::Relaxed);
            let asked = shared.known.ask(&mut answer, room, gateway);
            asked.ok().and_then(|()| {
                let question = hickory_proto::op::Message::from_vec(question).ok()?;
                written(&answer, &question, by)
            })
        }
        Verdict::Forward => {
            shared.forwarded.fetch_add(1, Ordering::Relaxed);
            let exchange: ask::Exchange = match by {
                By::Udp => ask::by_udp,
                By::Tcp => ask::by_tcp,
            };
            ask::forward(question, room, exchange)
        }
    };
    answer.or_else(|| {
        shared.failed.fetch_add(1, Ordering::Relaxed);
        failure(question)
    })
}

/// Works in a thread of its own, if there are not too many.
fn elsewhere(shared: &Arc<Shared>, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let crowded = || {
        shared.failed.fetch_add(1, Ordering::Relaxed);
        io::Error::from(io::ErrorKind::WouldBlock)
    };
    if shared.asked.fetch_add(1, Ordering::Relaxed) >= MAX_ASKED {
        shared.asked.fetch_sub(1, Ordering::Relaxed);
        return Err(crowded());
    }
    let place = Place(shared.clone());
    let started = thread::Builder::new()
        .name("name".to_owned())
        .spawn(move || {
            let _place = place;
            work();
        });
    started.map(drop)
}

/// One of those that others are asked in at a time.
struct Place(Arc<Shared>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.asked.fetch_sub(1, Ordering::Relaxed);
    }
}
