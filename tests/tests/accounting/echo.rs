//! Datagrams that come back, so many at a time that none can get lost on the way.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};
use overlay_tests::{netns, topology::Container};

/// Bytes of a datagram's payload, and of a frame with it.
const PAYLOAD: usize = 64;
pub(crate) const FRAME: u64 = 14 + 20 + 8 + PAYLOAD as u64;
/// Datagrams under way: fewer than a backlog of the kernel's holds (`netdev_max_backlog`).
const UNDER_WAY: u32 = 128;
/// How long one may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Sends datagrams from one container to another, which sends each of them back.
pub(crate) fn exchange(from: &Container, to: &Container, datagrams: u32) -> Result<()> {
    let bind = |container: &Container| -> Result<UdpSocket> {
        let address = container.address;
        let socket = netns::inside(&container.namespace, || UdpSocket::bind((address, 0)))??;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(socket)
    };
    let (client, server) = (bind(from)?, bind(to)?);
    let address = server.local_addr()?;
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let echo = scope.spawn(|| echo(&server, &done));
        let sent = send(&client, address, datagrams);
        done.store(true, Ordering::Relaxed);
        // One more wakes it up; it stays on this node's loopback device.
        let knock = netns::inside(&to.namespace, || {
            UdpSocket::bind((to.address, 0))?.send_to(&[0], address)
        });
        let echoed = echo
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        sent?;
        knock??;
        let echoed = echoed?;
        ensure!(echoed == datagrams, "{echoed} of {datagrams} came");
        Ok(())
    })
}

fn send(client: &UdpSocket, to: SocketAddr, datagrams: u32) -> io::Result<()> {
    let mut buffer = [0; PAYLOAD];
    let mut left = datagrams;
    while left > 0 {
        let batch = left.min(UNDER_WAY);
        for _ in 0..batch {
            client.send_to(&[0x5a; PAYLOAD], to)?;
        }
        for _ in 0..batch {
            client.recv(&mut buffer)?;
        }
        left -= batch;
    }
    Ok(())
}

fn echo(server: &UdpSocket, done: &AtomicBool) -> io::Result<u32> {
    let mut buffer = [0; PAYLOAD];
    let mut echoed = 0;
    loop {
        let (length, from) = server.recv_from(&mut buffer)?;
        if done.load(Ordering::Relaxed) {
            return Ok(echoed);
        }
        server.send_to(&buffer[..length], from)?;
        echoed += 1;
    }
}
