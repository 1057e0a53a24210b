//! Learning that a table changed.

use std::io;

use nix::errno::Errno;
use rtnetlink::sys::{
    AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, protocols::NETLINK_NETFILTER,
};

use crate::{KernelError, Result};

/// `NFNLGRP_NFTABLES` of `linux/netfilter/nfnetlink.h`.
const GROUP: u32 = 7;
/// No datagram of the kernel is larger.
const BUFFER: usize = 32 * 1024;

/// Which tables have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Among them the one that was asked for.
    Ours,
    /// Others only.
    Others,
}

/// Changes of the tables of the calling thread's namespace.
///
/// It says that something changed, not what, as [`netlink::Watch`](crate::netlink::Watch).
pub struct Watch {
    socket: TokioSocket,
    buffer: Vec<u8>,
    table: Vec<u8>,
}

impl Watch {
    /// Needs a tokio runtime.
    pub fn open(table: &str) -> Result<Self> {
        let open = || -> io::Result<TokioSocket> {
            let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
            socket
                .socket_mut()
                .bind(&SocketAddr::new(0, 1 << (GROUP - 1)))?;
            Ok(socket)
        };
        let socket = open().map_err(|error| KernelError::io("listen to nftables", &error))?;
        // Names end with a zero in messages.
        let table = table.bytes().chain([0]).collect();
        Ok(Self {
            socket,
            buffer: Vec::with_capacity(BUFFER),
            table,
        })
    }

    /// Waits for the next change. Nothing is lost when the future is dropped.
    ///
    /// Events that the kernel could not deliver count as a change of the table that was asked
    /// for. An error means that this watch is of no more use.
    pub async fn changed(&mut self) -> Result<Whose> {
        self.buffer.clear();
        match self.socket.recv(&mut self.buffer).await {
            Ok(()) if names(&self.buffer, &self.table) => Ok(Whose::Ours),
            Ok(()) => Ok(Whose::Others),
            Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => Ok(Whose::Ours),
            Err(error) => Err(KernelError::io("listen to nftables", &error)),
        }
    }
}

/// Whether a message is about a table: every kind of object carries the name of its own.
///
/// Others change their tables often; a name that only ends like ours costs a look.
fn names(datagram: &[u8], table: &[u8]) -> bool {
    datagram.windows(table.len()).any(|part| part == table)
}
