//! A word there and back.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use overlay_tests::netns;

/// Long enough for a loaded machine; a datagram that is lost is not sent again.
const PATIENCE: Duration = Duration::from_secs(10);
/// Long enough for what does not arrive.
const MOMENT: Duration = Duration::from_millis(500);
/// Kernels send few errors a second to one address.
const TRIES: u32 = 20;

/// Over UDP and TCP, to a server that is asked at another address, but the same port.
pub(crate) fn asks(client: &str, at: (IpAddr, u16), server: &str, backend: IpAddr) -> Result<()> {
    let own = (backend, at.1);
    let listener = netns::inside(server, || TcpListener::bind(own))??;
    let socket = netns::inside(server, || UdpSocket::bind(own))??;
    socket.set_read_timeout(Some(PATIENCE))?;
    let at = SocketAddr::from(at);
    let datagrams = thread::spawn(move || echo(&socket));
    let word = ask(client, at, PATIENCE).with_context(|| format!("UDP {at}"))?;
    assert_eq!(&word, b"word");
    joined(datagrams)?;
    let streams = thread::spawn(move || -> Result<()> {
        let mut word = [0; 4];
        let (mut stream, _) = listener.accept()?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.read_exact(&mut word)?;
        stream.write_all(&word)?;
        Ok(())
    });
    let mut word = [0; 4];
    let mut stream = netns::inside(client, || TcpStream::connect_timeout(&at, PATIENCE))?
        .with_context(|| format!("TCP {at}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"word")?;
    stream
        .read_exact(&mut word)
        .with_context(|| format!("TCP {at}"))?;
    assert_eq!(&word, b"word");
    joined(streams)
}

/// Whether an answer over UDP comes soon.
pub(crate) fn arrives(
    client: &str,
    at: (IpAddr, u16),
    server: &str,
    backend: IpAddr,
) -> Result<bool> {
    let socket = netns::inside(server, || UdpSocket::bind((backend, at.1)))??;
    socket.set_read_timeout(Some(MOMENT))?;
    let datagrams = thread::spawn(move || echo(&socket));
    let answer = ask(client, at.into(), MOMENT);
    // Where the question does not arrive either, the server has waited in vain.
    let _ = joined(datagrams);
    Ok(answer.is_ok())
}

/// Asserts that the sender is told that nobody listens.
pub(crate) fn is_refused(client: &str, at: (IpAddr, u16)) -> Result<()> {
    let socket = asking(client, at.into(), MOMENT)?;
    for _ in 0..TRIES {
        // The error of the last question may be told here, too.
        let told = socket.send(b"word").and_then(|_| socket.recv(&mut [0; 4]));
        match told.map_err(|error| error.kind()) {
            Err(ErrorKind::ConnectionRefused) => return Ok(()),
            Err(ErrorKind::WouldBlock) => {}
            other => bail!("not refused: {other:?}"),
        }
    }
    bail!("no error about a datagram to {at:?} came back");
}

fn echo(socket: &UdpSocket) -> Result<()> {
    let mut word = [0; 4];
    let (length, from) = socket.recv_from(&mut word)?;
    socket.send_to(&word[..length], from)?;
    Ok(())
}

fn ask(client: &str, at: SocketAddr, patience: Duration) -> Result<[u8; 4]> {
    let socket = asking(client, at, patience)?;
    socket.send(b"word")?;
    let mut word = [0; 4];
    socket.recv(&mut word)?;
    Ok(word)
}

fn asking(client: &str, at: SocketAddr, patience: Duration) -> Result<UdpSocket> {
    let any: IpAddr = match at {
        SocketAddr::V4(_) => [0; 4].into(),
        SocketAddr::V6(_) => [0; 16].into(),
    };
    let socket = netns::inside(client, || UdpSocket::bind((any, 0)))??;
    socket.set_read_timeout(Some(patience))?;
    netns::inside(client, || socket.connect(at))??;
    Ok(socket)
}

fn joined(thread: thread::JoinHandle<Result<()>>) -> Result<()> {
    let done = thread.join();
    done.map_err(|_| anyhow::anyhow!("the server has panicked"))?
}
