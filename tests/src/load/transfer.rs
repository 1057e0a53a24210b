//! A TCP connection whose every byte is checked.

use std::{
    fmt,
    io::{self, Read as _, Write as _},
    net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd as _,
    time::Duration,
};

use nix::libc;

use super::clock::{Beat, Clock};
use crate::traffic;

/// The bytes come again after a prime number of them, so that no lost or doubled segment,
/// page or buffer fits.
const PERIOD: usize = 65_521;
/// Longer than any fault, so that one does not become a hang.
const PATIENCE: Duration = Duration::from_mins(1);

/// A transfer after its end.
#[derive(Clone, Copy, Debug)]
pub struct Transfer {
    /// Bytes that were sent.
    pub sent: u64,
    /// Bytes that came and were the right ones.
    pub received: u64,
    /// The first byte that was a wrong one.
    pub wrong_from: Option<u64>,
    /// Segments that were sent again.
    pub again: u32,
    /// How long it took.
    pub time: Duration,
}

impl Transfer {
    /// Whether all arrived as it was sent.
    pub fn is_whole(&self) -> bool {
        self.sent == self.received && self.wrong_from.is_none()
    }
}

impl fmt::Display for Transfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = self.time.as_millis().max(1);
        write!(
            f,
            "{} bytes sent at {} Mbit/s, {} received, {} segments sent again",
            self.sent,
            u128::from(self.sent) * 8 / 1000 / milliseconds,
            self.received,
            self.again
        )?;
        if let Some(first) = self.wrong_from {
            write!(f, ", wrong from byte {first} on")?;
        }
        Ok(())
    }
}

/// A stream's bytes, wherever one begins.
struct Pattern(Vec<u8>);

impl Pattern {
    fn new() -> Self {
        let mut bytes = traffic::payload(PERIOD);
        bytes.extend_from_within(..);
        Self(bytes)
    }

    /// The bytes from a position on, as many as asked for, at most a period.
    fn from(&self, position: u64, length: usize) -> &[u8] {
        let begin = usize::try_from(position % PERIOD as u64).unwrap_or(0);
        &self.0[begin..begin + length.min(PERIOD)]
    }
}

/// A sender's final counts.
pub(super) struct Sent {
    pub(super) bytes: u64,
    pub(super) again: u32,
}

/// Connects in the namespace of the calling thread and sends until the load ends.
pub(super) fn send(clock: &Clock, to: SocketAddr, bytes_a_second: u32) -> io::Result<Sent> {
    let pattern = Pattern::new();
    let a_beat = usize::try_from(bytes_a_second / 1000).unwrap_or(0);
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut sent = 0;
    let mut beat = Beat::start();
    while !clock.has_ended() {
        let bytes = pattern.from(sent, a_beat);
        stream.write_all(bytes)?;
        sent += bytes.len() as u64;
        beat.wait();
    }
    stream.shutdown(Shutdown::Write)?;
    // The other end closes when it has all.
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.read_to_end(&mut Vec::new())?;
    Ok(Sent {
        bytes: sent,
        again: retransmitted(&stream)?,
    })
}

/// A receiver's final counts.
pub(super) struct Received {
    pub(super) bytes: u64,
    pub(super) wrong_from: Option<u64>,
}

/// Accepts one connection and compares what comes.
pub(super) fn receive(listener: &TcpListener) -> io::Result<Received> {
    let pattern = Pattern::new();
    let (mut stream, _) = listener.accept()?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut received = Received {
        bytes: 0,
        wrong_from: None,
    };
    let mut buffer = vec![0; PERIOD];
    loop {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return Ok(received);
        }
        if buffer[..length] != *pattern.from(received.bytes, length) {
            received.wrong_from.get_or_insert(received.bytes);
        }
        received.bytes += length as u64;
    }
}

/// Opens the receiver's end in the namespace of the calling thread.
pub(super) fn open(at: IpAddr) -> io::Result<TcpListener> {
    TcpListener::bind((at, 0))
}

fn retransmitted(stream: &TcpStream) -> io::Result<u32> {
    let mut info = std::mem::MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length =
        libc::socklen_t::try_from(size_of::<libc::tcp_info>()).map_err(io::Error::other)?;
    // SAFETY: `info` has `length` bytes, which is all that the kernel writes there; both
    // outlive the call.
    let result = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it consists of numbers alone, and those that the kernel did not write are 0.
    let info = unsafe { info.assume_init() };
    Ok(info.tcpi_total_retrans)
}

#[cfg(test)]
mod tests {
    use super::{PERIOD, Pattern};

    #[test]
    fn bytes_depend_on_their_position_alone() {
        let pattern = Pattern::new();
        let position = 3 * PERIOD as u64 + 100;
        assert_eq!(
            pattern.from(position, 500)[50..],
            *pattern.from(position + 50, 450)
        );
        assert_eq!(pattern.from(0, 2 * PERIOD).len(), PERIOD);
        assert_ne!(pattern.from(0, 100), pattern.from(1448, 100));
    }
}
