//! The thread that probes: neither a long round of the agent delays an answer, nor does a probe
//! delay the agent.

use std::{
    io::{self, Read as _},
    net::{SocketAddr, UdpSocket},
    os::{fd::AsFd as _, unix::net::UnixStream},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use overlay_core::{
    model::{Family, Vni},
    trouble::{Trouble, ids},
};
use overlay_kernel::udp;
use tracing::{debug, error};

use super::{
    PORT, Shared,
    exchange::{Question, Unsent},
    news::News,
    sockets::{Sockets, Use},
};

/// Datagrams that are taken from a socket before something else is looked at.
const BATCH: usize = 64;
/// Larger than any IP packet.
const BUFFER: usize = 1 << 16;

/// Works until the other end of `orders` is closed.
pub(super) fn work(shared: &Shared, mut orders: UnixStream) {
    let mut thread = Thread {
        shared,
        sockets: Sockets::default(),
        news: News::default(),
        buffer: vec![0; BUFFER],
    };
    loop {
        if let Err(error) = thread.wait(&orders) {
            error!("wait for probes: {error}; peers are not probed any more");
            let trouble = Trouble::new(
                ids::PROBES_FAIL,
                "probes",
                error.to_string(),
                "restart the agent",
            );
            shared.end(trouble.during("wait for probes"));
            return;
        }
        match orders.read(&mut [0; 64]) {
            // The agent is done with probing.
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => debug!("read an order: {error}"),
        }
        // First: what is to be sent may need a socket that was not there.
        thread.follow();
        thread.receive();
        thread.send();
    }
}

struct Thread<'a> {
    shared: &'a Shared,
    sockets: Sockets,
    news: News,
    buffer: Vec<u8>,
}

impl Thread<'_> {
    /// Until something arrives, is ordered or has to be sent.
    fn wait(&self, orders: &UnixStream) -> nix::Result<()> {
        let due = self.shared.exchange().due();
        let timeout = due.map_or(PollTimeout::NONE, |due| {
            let left = due.saturating_duration_since(Instant::now());
            // Rounded up: to wake too early is to wake twice.
            let left = if left.is_zero() {
                left
            } else {
                left + Duration::from_millis(1)
            };
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        });
        let sockets = self.sockets.iter().map(|(_, socket)| socket.as_fd());
        let mut waiting: Vec<PollFd<'_>> = sockets
            .chain([orders.as_fd()])
            .map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN))
            .collect();
        match poll(&mut waiting, timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    fn follow(&mut self) {
        if let Some(seats) = self.shared.take_seats() {
            self.sockets.follow(&seats);
            self.shared
                .refuse(self.sockets.refused().cloned().collect());
        }
    }

    fn receive(&mut self) {
        for (vni, socket) in self.sockets.iter() {
            self.take_refusals(vni, socket);
            for _ in 0..BATCH {
                let (length, from) = match socket.recv_from(&mut self.buffer) {
                    Ok(received) => received,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => {
                        debug!("receive a probe: {error}");
                        break;
                    }
                };
                let mut exchange = self.shared.exchange();
                if from.port() != PORT {
                    exchange.messages.strangers += 1;
                    continue;
                }
                let datagram = &self.buffer[..length];
                let answer = exchange.receive(vni, from.ip(), datagram, Instant::now());
                if let Some(answer) = answer
                    && let Err(error) = socket.send_to(&answer, from)
                {
                    debug!("answer the probe of {from}: {error}");
                }
            }
        }
    }

    /// What has come back. Unread, it would be the answer to the next question that is to be sent.
    fn take_refusals(&self, vni: Vni, socket: &UdpSocket) {
        while let Some((to, nobody)) = udp::refused(socket) {
            if let (Some(to), true) = (to, nobody) {
                self.shared.exchange().refused(vni, to, Instant::now());
            }
        }
    }

    fn send(&mut self) {
        let mut exchange = self.shared.exchange();
        let now = Instant::now();
        for question in exchange.questions(now) {
            let outcome = send(&self.sockets, &question);
            exchange.sent(&question, outcome);
            if let Some((before, after)) = exchange.news(question.peer, now) {
                let (network, peer) = exchange.mesh.peer(question.peer);
                self.news.add(&network.name, peer, before, after);
            }
        }
        self.news.tell(now);
    }
}

fn send(sockets: &Sockets, question: &Question) -> Result<(), Unsent> {
    let of: Use = (question.vni, question.tunnel, Family::of(question.to));
    let socket = sockets.get(of).ok_or(Unsent::Other)?;
    let to = SocketAddr::new(question.to, PORT);
    let send = || socket.send_to(&question.datagram, to);
    send()
        .or_else(|error| match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EMSGSIZE) => Err(error),
            // It may be about an earlier one, which has come back just now: it is told once.
            _ => send(),
        })
        .map(drop)
        .map_err(|error| {
            debug!("probe {to}: {error}");
            if error.raw_os_error() == Some(Errno::EMSGSIZE as i32) {
                Unsent::TooLong
            } else {
                Unsent::Other
            }
        })
}
