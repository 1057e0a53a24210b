//! Datagrams to ports that nobody listens on: whoever gets one refuses it, and is there.
//!
//! It takes no privileges, other than an ICMP echo, and tells which size arrives.

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use overlay_core::model::Family;

use super::keep_whole;

/// Bytes of a UDP header.
const UDP_HEADER: u16 = 8;

/// A datagram to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// The address of this node that it comes from; `None`: the one that its route has.
    pub from: Option<IpAddr>,
    /// Where it goes.
    pub to: SocketAddr,
    /// Bytes of the IP packet, which nobody may cut up; 0: as few as possible.
    pub size: u16,
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// It was refused.
    Refused,
    /// It is too big for a link on the way, or for the first one.
    TooBig,
    /// Nothing, by now.
    Nothing,
    /// It could not be sent.
    Unsent,
}

/// Sends all datagrams and waits for what comes back, until all have an answer or the time is
/// up.
pub fn ask(questions: &[Question], patience: Duration) -> Vec<Reply> {
    let mut replies = vec![Reply::Unsent; questions.len()];
    let mut waiting = Vec::new();
    for (number, question) in questions.iter().enumerate() {
        match send(question) {
            Ok(socket) => waiting.push((number, socket)),
            Err(error) => replies[number] = reply(&error),
        }
    }
    let deadline = Instant::now() + patience;
    while !waiting.is_empty() {
        wait(&waiting, deadline.saturating_duration_since(Instant::now()));
        let is_late = Instant::now() >= deadline;
        waiting.retain(|(number, socket)| match socket.recv(&mut [0; 1]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                replies[*number] = Reply::Nothing;
                !is_late
            }
            Err(error) => {
                replies[*number] = reply(&error);
                false
            }
            // Somebody listens there after all.
            Ok(_) => {
                replies[*number] = Reply::Refused;
                false
            }
        });
    }
    replies
}

fn wait(waiting: &[(usize, UdpSocket)], patience: Duration) {
    let mut sockets: Vec<PollFd<'_>> = waiting
        .iter()
        .map(|(_, socket)| PollFd::new(socket.as_fd(), PollFlags::POLLIN))
        .collect();
    let milliseconds = u16::try_from(patience.as_millis()).unwrap_or(u16::MAX);
    // An interrupted wait is a short one: what follows looks again.
    let _ = poll(&mut sockets, PollTimeout::from(milliseconds));
}

fn reply(error: &io::Error) -> Reply {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EMSGSIZE) => Reply::TooBig,
        // By this node: it has no way, or a filter of its own.
        Some(
            Errno::ENETUNREACH
            | Errno::EPERM
            | Errno::EADDRNOTAVAIL
            | Errno::EINVAL
            | Errno::EMFILE,
        ) => Reply::Unsent,
        // By its receiver, or by a filter on the way that says so.
        _ => Reply::Refused,
    }
}

fn send(question: &Question) -> io::Result<UdpSocket> {
    let family = Family::of(question.to.ip());
    let any = match family {
        Family::V4 => IpAddr::from([0; 4]),
        Family::V6 => IpAddr::from([0; 16]),
    };
    let socket = UdpSocket::bind((question.from.unwrap_or(any), 0))?;
    socket.set_nonblocking(true)?;
    keep_whole(&socket, family)?;
    socket.connect(question.to)?;
    let header = match family {
        Family::V4 => 20,
        Family::V6 => 40,
    };
    let length = question.size.saturating_sub(header + UDP_HEADER);
    socket.send(&vec![0; length.into()])?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::{net::UdpSocket, time::Duration};

    use super::{Question, Reply, ask};

    fn to(port: u16, size: u16) -> Question {
        Question {
            from: None,
            to: ([127, 0, 0, 1], port).into(),
            size,
        }
    }

    #[test]
    fn a_closed_port_refuses_and_an_open_one_keeps_silent() {
        let open = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
        let open = (open.local_addr().unwrap().port(), open);
        let closed = {
            let closed = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
            closed.local_addr().unwrap().port()
        };
        let questions = [to(closed, 0), to(open.0, 0), to(closed, 1400)];
        let replies = ask(&questions, Duration::from_millis(200));
        assert_eq!(replies, [Reply::Refused, Reply::Nothing, Reply::Refused]);
    }

    #[test]
    fn what_the_first_link_does_not_carry_is_too_big() {
        // No IPv4 packet is that large, whatever the MTU of loopback is.
        let replies = ask(&[to(9, u16::MAX)], Duration::from_millis(10));
        assert!(
            matches!(replies[0], Reply::TooBig | Reply::Refused),
            "{replies:?}"
        );
        let elsewhere = Question {
            from: "192.0.2.1".parse().ok(),
            ..to(9, 0)
        };
        assert_eq!(ask(&[elsewhere], Duration::ZERO), [Reply::Unsent]);
    }
}
