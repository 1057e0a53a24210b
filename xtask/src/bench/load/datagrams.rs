//! UDP datagrams of 64 bytes, many with one system call, so that what costs is the path.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::sys::socket::SockaddrStorage;
use overlay_tests::load::batch::{Inbox, Outbox};

/// Bytes in a datagram.
pub(crate) const SIZE: usize = 64;
/// Port of the receiver, and of nobody else.
pub(crate) const PORT: u16 = 7007;

/// How often the paced sender and its receiver work.
const BEAT: Duration = Duration::from_millis(1);

/// Sends `batch` datagrams every millisecond; how many it sent. With no datagrams, it only
/// keeps the beat.
pub(crate) fn paced(to: Ipv4Addr, batch: usize, time: Duration) -> Result<u64> {
    let mut sender = Sender::new(batch)?;
    let to = vec![Some(address(to)); batch];
    let started = Instant::now();
    let mut next = started;
    let mut sent = 0;
    while started.elapsed() < time {
        sent += sender.send(&to)?;
        next += BEAT;
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    Ok(sent)
}

/// Sends as fast as it can to random ones of many addresses; how many it sent, and for how long.
pub(crate) fn flood(
    addresses: impl Fn(u32) -> Ipv4Addr,
    count: u32,
    time: Duration,
) -> Result<(u64, Duration)> {
    const BATCH: usize = 32;
    let mut sender = Sender::new(BATCH)?;
    let mut random = Random::new();
    let started = Instant::now();
    let mut sent = 0;
    while started.elapsed() < time {
        let to: Vec<_> = (0..BATCH)
            .map(|_| Some(address(addresses(random.below(count)))))
            .collect();
        sent += sender.send(&to)?;
    }
    Ok((sent, started.elapsed()))
}

/// Numbers that look random and are the same in every run.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new() -> Self {
        // Any number but 0.
        Self(0x9e37_79b9_7f4a_7c15)
    }

    /// A number below `limit`, by xorshift64 (Marsaglia 2003) and a multiplication.
    pub(crate) fn below(&mut self, limit: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let high = self.0 >> 32;
        u32::try_from((high * u64::from(limit)) >> 32).unwrap_or(0)
    }
}

/// A socket that sends batches of the same datagram.
struct Sender {
    outbox: Outbox,
    datagrams: Vec<[u8; SIZE]>,
}

impl Sender {
    fn new(batch: usize) -> Result<Self> {
        let any = Ipv4Addr::UNSPECIFIED.into();
        Ok(Self {
            outbox: Outbox::open(any, batch).context("open a socket")?,
            datagrams: vec![[0x5a; SIZE]; batch],
        })
    }

    fn send(&mut self, to: &[Option<SockaddrStorage>]) -> Result<u64> {
        let sent = self.outbox.send(&self.datagrams, to);
        sent.context("send datagrams")
    }
}

/// A socket that takes what arrives, every millisecond.
pub(crate) struct Receiver {
    inbox: Inbox,
}

impl Receiver {
    /// Opens it in the namespace of the calling thread.
    pub(crate) fn open(at: Ipv4Addr) -> Result<Self> {
        let inbox = Inbox::open((at, PORT).into(), SIZE);
        let inbox = inbox.with_context(|| format!("receive at {at}:{PORT}"))?;
        Ok(Self { inbox })
    }

    /// Receives until told to end; how many datagrams there were.
    pub(crate) fn run(&self, end: &AtomicBool) -> Result<u64> {
        let mut received = 0;
        let mut next = Instant::now();
        while !end.load(Ordering::Relaxed) {
            received += self.drain()?;
            next += BEAT;
            thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        Ok(received + self.drain()?)
    }

    fn drain(&self) -> Result<u64> {
        self.inbox.drain(|_| {}).context("receive datagrams")
    }
}

fn address(ip: Ipv4Addr) -> SockaddrStorage {
    SocketAddr::from((ip, PORT)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_numbers_stay_below_their_limit_and_reach_everywhere() {
        let mut random = Random::new();
        let mut seen = [false; 10];
        for _ in 0..1_000 {
            seen[random.below(10) as usize] = true;
        }
        assert_eq!(seen, [true; 10]);
    }

    #[test]
    fn what_is_sent_arrives() {
        let sink = Receiver::open(Ipv4Addr::LOCALHOST).unwrap();
        let sent = paced(Ipv4Addr::LOCALHOST, 50, BEAT).unwrap();
        let received = sink.run(&AtomicBool::new(true)).unwrap();
        assert!(sent >= 50 && sent == received, "{sent} {received}");
    }
}
