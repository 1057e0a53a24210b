//! Real traffic whose every byte is checked.

use std::{
    fmt,
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use nix::sys::{
    socket::{setsockopt, sockopt},
    time::{TimeVal, TimeValLike as _},
};

use crate::{
    error::{Error, Result},
    families::Family,
    netns, run,
    script::inside,
    topology::Container,
};

/// Long enough for a loaded machine; a lost datagram is not sent again.
const PATIENCE: Duration = Duration::from_secs(10);

/// Two who talk.
#[derive(Clone, Debug)]
pub struct Pair<'a> {
    /// Namespace of the one who asks.
    pub client: &'a str,
    /// Namespace of the one who answers.
    pub server: &'a str,
    /// The server's address.
    pub address: IpAddr,
}

/// One who talks to a server elsewhere that sends everything back.
#[derive(Clone, Debug)]
pub struct Caller<'a> {
    /// Namespace of the one who asks.
    pub client: &'a str,
    /// Where the server is.
    pub server: SocketAddr,
}

/// Bytes that look random and are the same in every run, so that neither a lost, a doubled
/// nor a moved one goes unnoticed.
pub fn payload(length: usize) -> Vec<u8> {
    // xorshift64 (Marsaglia 2003); the seed is any number but 0.
    let mut state = 0x9e37_79b9_7f4a_7c15 ^ length as u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(&mut next).take(length).collect()
}

impl<'a> Pair<'a> {
    /// Two containers that talk in a family.
    pub const fn between(client: &'a Container, server: &'a Container, family: Family) -> Self {
        Self {
            client: client.namespace.as_str(),
            server: server.namespace.as_str(),
            address: server.at(family),
        }
    }
}

impl Pair<'_> {
    /// Sends a datagram of each size and compares what comes back.
    pub fn udp(&self, sizes: &[usize]) -> Result<()> {
        let server = netns::inside(self.server, || UdpSocket::bind((self.address, 0)))?;
        let server = self.io("bind", server)?;
        let client = netns::inside(self.client, || UdpSocket::bind((any(self.address), 0)))?;
        let client = self.io("bind", client)?;
        let port = self.io("bind", server.local_addr())?.port();
        for socket in [&server, &client] {
            self.io("set a time limit", socket.set_read_timeout(Some(PATIENCE)))?;
        }
        self.io("connect", client.connect((self.address, port)))?;

        let mut buffer = vec![0; 1 << 16];
        for &size in sizes {
            let sent = payload(size);
            self.io("send", client.send(&sent))?;
            let (length, from) = self.io("receive", server.recv_from(&mut buffer))?;
            self.same("UDP, there", &sent, &buffer[..length])?;
            self.io("answer", server.send_to(&sent, from))?;
            let length = self.io("receive the answer", client.recv(&mut buffer))?;
            self.same("UDP, back", &sent, &buffer[..length])?;
        }
        Ok(())
    }

    /// Sends a stream of each size over a connection of its own, and compares what comes back.
    pub fn tcp(&self, sizes: &[usize]) -> Result<()> {
        let listener = netns::inside(self.server, || TcpListener::bind((self.address, 0)))?;
        let listener = self.io("listen", listener)?;
        let port = self.io("listen", listener.local_addr())?.port();
        for &size in sizes {
            let sent = payload(size);
            let received = thread::scope(|scope| {
                let echo = scope.spawn(|| echo(&listener));
                let received =
                    netns::inside(self.client, || exchange((self.address, port).into(), &sent))?;
                let echoed = echo
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                self.io("echo", echoed)?;
                self.io("exchange", received)
            })?;
            self.same("TCP, there and back", &sent, &received)?;
        }
        Ok(())
    }

    /// Pings with this many bytes of data each; `ping` compares them when they come back.
    pub fn icmp(&self, sizes: &[usize]) -> Result<()> {
        for &size in sizes {
            let ping = format!("ping -n -c 1 -W 10 -p a5 -s {size} {}", self.address);
            let out = run::checked(inside(self.client, ping))?;
            if out.contains("wrong data") || out.contains("truncated") {
                return Err(self.differs(&format!("ICMP of {size} bytes: {out}")));
            }
        }
        Ok(())
    }

    fn same(&self, what: &str, sent: &[u8], received: &[u8]) -> Result<()> {
        same(self, what, sent, received)
    }

    fn differs(&self, what: &str) -> Error {
        differs(self, what)
    }

    fn io<T>(&self, operation: &str, result: io::Result<T>) -> Result<T> {
        io(self, operation, result)
    }
}

impl Caller<'_> {
    /// Sends a datagram of each size and compares what comes back.
    pub fn udp(&self, sizes: &[usize]) -> Result<()> {
        let any = any(self.server.ip());
        let client = netns::inside(self.client, || UdpSocket::bind((any, 0)))?;
        let client = io(self, "bind", client)?;
        io(
            self,
            "set a time limit",
            client.set_read_timeout(Some(PATIENCE)),
        )?;
        io(self, "connect", client.connect(self.server))?;
        let mut buffer = vec![0; 1 << 16];
        for &size in sizes {
            let sent = payload(size);
            io(self, "send", client.send(&sent))?;
            let length = io(self, "receive", client.recv(&mut buffer))?;
            same(self, "UDP, there and back", &sent, &buffer[..length])?;
        }
        Ok(())
    }

    /// Sends a stream of each size over a connection of its own, and compares what comes back.
    pub fn tcp(&self, sizes: &[usize]) -> Result<()> {
        for &size in sizes {
            let sent = payload(size);
            let received = netns::inside(self.client, || exchange(self.server, &sent))?;
            let received = io(self, "exchange", received)?;
            same(self, "TCP, there and back", &sent, &received)?;
        }
        Ok(())
    }
}

impl fmt::Display for Pair<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} → {} ({})", self.client, self.server, self.address)
    }
}

impl fmt::Display for Caller<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} → {}", self.client, self.server)
    }
}

/// The unspecified address of an address's family.
const fn any(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

fn same(who: &impl fmt::Display, what: &str, sent: &[u8], received: &[u8]) -> Result<()> {
    if sent == received {
        return Ok(());
    }
    let first = sent.iter().zip(received).position(|(a, b)| a != b);
    let what = format!(
        "{what}: sent {} bytes, received {}, first difference at {first:?}",
        sent.len(),
        received.len()
    );
    Err(differs(who, &what))
}

fn differs(who: &impl fmt::Display, what: &str) -> Error {
    Error::output(who.to_string(), what)
}

fn io<T>(who: &impl fmt::Display, operation: &str, result: io::Result<T>) -> Result<T> {
    result.map_err(|error| differs(who, &format!("{operation}: {error}")))
}

/// Accepts one connection and returns what it gets.
fn echo(listener: &TcpListener) -> io::Result<()> {
    // Linux has `accept` wait no longer than that: who asks may not get here.
    let patience = TimeVal::seconds(2 * PATIENCE.as_secs().cast_signed());
    setsockopt(listener, sockopt::ReceiveTimeout, &patience)?;
    let (mut stream, _) = listener.accept()?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut reader = stream.try_clone()?;
    io::copy(&mut reader, &mut stream)?;
    stream.shutdown(Shutdown::Write)
}

fn exchange(server: SocketAddr, sent: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut reader = stream.try_clone()?;
    thread::scope(|scope| {
        let received = scope.spawn(move || {
            let mut received = Vec::new();
            reader.read_to_end(&mut received).map(|_| received)
        });
        stream.write_all(sent)?;
        stream.shutdown(Shutdown::Write)?;
        received
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[cfg(test)]
mod tests {
    use super::payload;

    #[test]
    fn payloads_of_different_lengths_differ_from_the_first_bytes() {
        assert_eq!(payload(1000), payload(1000));
        assert_ne!(payload(1000)[..16], payload(1001)[..16]);
    }
}
