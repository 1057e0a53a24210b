//! Numbered echo requests, many a second.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    ops::Range,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    sync::atomic::{AtomicU16, Ordering},
    time::Instant,
};

use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, recv, sendto,
        setsockopt, socket, sockopt,
    },
};

use super::{
    clock::{Beat, Clock, UNDER_WAY},
    datagrams::{Received, Sent},
    drops,
    sequence::{Sequence, Stamp},
};
use crate::frames::checksum;

/// Type, code, checksum, identifier, number.
const HEADER: usize = 8;
/// Tells the replies to one run from those to others in the same namespace.
const IDENTIFIER: Range<usize> = 4..6;
static NEXT_IDENTIFIER: AtomicU16 = AtomicU16::new(1);
/// Room for answers that nobody has read yet.
const ROOM: usize = 16 << 20;

/// The types of an echo (RFC 792, RFC 4443 §4).
struct Types {
    request: u8,
    reply: u8,
    /// Bytes of the IP header that a raw socket shows before the message.
    before: usize,
}

/// Sends echo requests until the load ends, and notes the replies.
///
/// It ends when all replies are there or overdue.
pub(super) fn run(clock: &Clock, to: IpAddr, a_second: u32) -> io::Result<(Sent, Received)> {
    let types = match to {
        IpAddr::V4(_) => Types {
            request: 8,
            reply: 0,
            before: 20,
        },
        IpAddr::V6(_) => Types {
            request: 128,
            reply: 129,
            before: 0,
        },
    };
    let socket = open(to)?;
    let identifier = NEXT_IDENTIFIER
        .fetch_add(1, Ordering::Relaxed)
        .to_be_bytes();
    let to_address = SockaddrStorage::from(SocketAddr::new(to, 0));
    let every = 1000 / a_second.clamp(1, 1000);
    let mut sent = Sent {
        packets: 0,
        refused: 0,
    };
    let mut came = Sequence::default();
    let mut beat = Beat::start();
    let mut beats = 0;
    let mut last = Instant::now();
    loop {
        let ended = clock.has_ended();
        if !ended && beats % every == 0 {
            let stamp = Stamp {
                number: sent.packets,
                sent: clock.now(),
            };
            let message = request(&types, identifier, stamp);
            match sendto(socket.as_raw_fd(), &message, &to_address, MsgFlags::empty()) {
                Ok(_) => sent.packets += 1,
                Err(_) => sent.refused += 1,
            }
            last = Instant::now();
        }
        let before = came.received;
        drain(&socket, &types, identifier, |stamp| {
            came.note(stamp, clock.now());
        })?;
        if came.received > before {
            last = Instant::now();
        }
        if ended && (came.received >= sent.packets || last.elapsed() > UNDER_WAY) {
            let overflowed = drops::of_socket(socket.as_fd())?;
            return Ok((sent, Received { came, overflowed }));
        }
        beat.wait();
        beats += 1;
    }
}

fn open(to: IpAddr) -> io::Result<OwnedFd> {
    let (family, protocol) = match to {
        IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp),
        IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6),
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(family, SockType::Raw, flags, protocol)?;
    setsockopt(&socket, sockopt::RcvBufForce, &ROOM)?;
    Ok(socket)
}

/// An echo request whose data are the stamp, which is what the reply is told by.
fn request(types: &Types, identifier: [u8; 2], stamp: Stamp) -> [u8; HEADER + Stamp::SIZE] {
    let mut message = [0; HEADER + Stamp::SIZE];
    message[0] = types.request;
    message[IDENTIFIER].copy_from_slice(&identifier);
    message[HEADER..].copy_from_slice(&stamp.bytes());
    // Of ICMPv6 the kernel makes it itself.
    let sum = checksum(&message).to_be_bytes();
    message[2..4].copy_from_slice(&sum);
    message
}

fn drain(
    socket: &OwnedFd,
    types: &Types,
    identifier: [u8; 2],
    mut each: impl FnMut(Stamp),
) -> io::Result<()> {
    let mut buffer = [0; 256];
    loop {
        let length = match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(length) => length,
            Err(Errno::EAGAIN) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        };
        let message = buffer.get(types.before..length).unwrap_or_default();
        let is_reply =
            message.first() == Some(&types.reply) && message.get(IDENTIFIER) == Some(&identifier);
        if let Some(stamp) = message.get(HEADER..).and_then(Stamp::read)
            && is_reply
        {
            each(stamp);
        }
    }
}
