//! A stream of numbered UDP datagrams.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsFd as _,
    sync::mpsc::Receiver,
    time::Instant,
};

use nix::sys::socket::SockaddrStorage;

use super::{
    batch::{Inbox, Outbox},
    clock::{Beat, Clock, UNDER_WAY},
    drops,
    sequence::{Sequence, Stamp},
};

/// Bytes of a datagram.
const SIZE: usize = 64;

/// A sender's final counts.
pub(super) struct Sent {
    pub(super) packets: u64,
    pub(super) refused: u64,
}

/// Sends numbered datagrams until the load ends.
pub(super) fn send(clock: &Clock, to: SocketAddr, a_second: u32) -> io::Result<Sent> {
    let from = match to {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let batch = usize::try_from(a_second / 1000).unwrap_or(0).max(1);
    let mut outbox = Outbox::open(from, batch)?;
    let addresses = vec![Some(SockaddrStorage::from(to)); batch];
    let mut datagrams = vec![[0; SIZE]; batch];
    let mut sent = Sent {
        packets: 0,
        refused: 0,
    };
    let mut beat = Beat::start();
    while !clock.has_ended() {
        let now = clock.now();
        for (number, datagram) in (sent.packets..).zip(&mut datagrams) {
            datagram[..Stamp::SIZE].copy_from_slice(&Stamp { number, sent: now }.bytes());
        }
        match outbox.send(&datagrams, &addresses) {
            Ok(count) => sent.packets += count,
            // The way is away; what was not taken has its number still to come.
            Err(_) => sent.refused += 1,
        }
        beat.wait();
    }
    Ok(sent)
}

/// A receiver's final counts.
pub(super) struct Received {
    pub(super) came: Sequence,
    pub(super) overflowed: u64,
}

/// Receives until the sender has told how many there were, and those are here or overdue.
pub(super) fn receive(clock: &Clock, inbox: &Inbox, total: &Receiver<u64>) -> io::Result<Received> {
    let mut came = Sequence::default();
    let mut sent = None;
    let mut last = Instant::now();
    let mut beat = Beat::start();
    while sent.is_none_or(|sent| came.received < sent) {
        let now = clock.now();
        let count = inbox.drain(|datagram| {
            if let Some(stamp) = Stamp::read(datagram) {
                came.note(stamp, now);
            }
        })?;
        if count > 0 {
            last = Instant::now();
        } else if sent.is_some() && last.elapsed() > UNDER_WAY {
            break;
        }
        if sent.is_none() {
            sent = total.try_recv().ok();
            last = Instant::now();
        }
        beat.wait();
    }
    Ok(Received {
        came,
        overflowed: drops::of_socket(inbox.as_fd())?,
    })
}

/// Opens the receiver's end in the namespace of the calling thread.
pub(super) fn open(at: IpAddr) -> io::Result<Inbox> {
    let inbox = Inbox::open((at, 0).into(), SIZE)?;
    inbox.make_room()?;
    Ok(inbox)
}
