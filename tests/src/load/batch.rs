//! UDP sockets that send and receive many datagrams with one system call.

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::{AsFd, AsRawFd as _, BorrowedFd},
};

use nix::{
    errno::Errno,
    sys::socket::{
        MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg, setsockopt, sockopt,
    },
};

/// Datagrams that are received with one system call.
const AT_ONCE: usize = 64;
/// Memory that a receiver may use where nothing may get lost: seconds of a fast stream.
const ROOM: usize = 256 << 20;

/// A socket that sends batches.
pub struct Outbox {
    socket: UdpSocket,
    headers: MultiHeaders<SockaddrStorage>,
}

impl Outbox {
    /// Opens it in the namespace of the calling thread; `at` can be unspecified.
    pub fn open(at: IpAddr, largest_batch: usize) -> io::Result<Self> {
        Ok(Self {
            socket: UdpSocket::bind((at, 0))?,
            headers: MultiHeaders::preallocate(largest_batch, None),
        })
    }

    /// Sends each of the datagrams to the address of its place; how many the kernel took.
    pub fn send<D: AsRef<[u8]>>(
        &mut self,
        datagrams: &[D],
        to: &[Option<SockaddrStorage>],
    ) -> io::Result<u64> {
        if datagrams.is_empty() {
            return Ok(0);
        }
        let slices: Vec<_> = datagrams
            .iter()
            .map(|datagram| [IoSlice::new(datagram.as_ref())])
            .collect();
        let results = sendmmsg(
            self.socket.as_raw_fd(),
            &mut self.headers,
            &slices,
            to,
            [],
            MsgFlags::empty(),
        )?;
        Ok(results.count() as u64)
    }
}

/// A socket that takes all that has arrived, and never waits for more.
pub struct Inbox {
    socket: UdpSocket,
    size: usize,
}

impl Inbox {
    /// Opens it in the namespace of the calling thread, for datagrams up to a size.
    pub fn open(at: SocketAddr, size: usize) -> io::Result<Self> {
        let socket = UdpSocket::bind(at)?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, size })
    }

    /// Lets datagrams wait for seconds until they are taken.
    pub fn make_room(&self) -> io::Result<()> {
        Ok(setsockopt(&self.socket, sockopt::RcvBufForce, &ROOM)?)
    }

    /// Its address.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Takes what is there and shows each datagram; how many there were.
    pub fn drain(&self, mut each: impl FnMut(&[u8])) -> io::Result<u64> {
        let mut buffers = vec![vec![0; self.size]; AT_ONCE];
        let mut headers = MultiHeaders::<()>::preallocate(AT_ONCE, None);
        let mut received = 0;
        loop {
            let mut slices: Vec<_> = buffers
                .iter_mut()
                .map(|buffer| [IoSliceMut::new(buffer)])
                .collect();
            let result = recvmmsg(
                self.socket.as_raw_fd(),
                &mut headers,
                &mut slices,
                MsgFlags::empty(),
                None,
            );
            let lengths: Vec<usize> = match result {
                Ok(results) => results.map(|message| message.bytes).collect(),
                Err(Errno::EAGAIN) => Vec::new(),
                Err(errno) => return Err(errno.into()),
            };
            for (buffer, &length) in buffers.iter().zip(&lengths) {
                each(&buffer[..length]);
            }
            received += lengths.len() as u64;
            if lengths.len() < AT_ONCE {
                return Ok(received);
            }
        }
    }
}

impl AsFd for Inbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
