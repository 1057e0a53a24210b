//! Whether a UDP port can be had.

use std::os::fd::AsRawFd as _;

use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, SockFlag, SockType, SockaddrIn, SockaddrIn6, bind, setsockopt, socket,
        sockopt::Ipv6V6Only,
    },
};
use overlay_core::model::Family;

use crate::{KernelError, Result};

/// Whether a socket of somebody else has a UDP port of a family in this thread's namespace.
///
/// The kernel's VXLAN devices have their ports through sockets, too.
pub fn is_busy(family: Family, port: u16) -> Result<bool> {
    match try_bind(family, port) {
        // Without IPv6 in the kernel, nobody has a port of it.
        Ok(()) | Err(Errno::EAFNOSUPPORT) => Ok(false),
        Err(Errno::EADDRINUSE) => Ok(true),
        Err(errno) => Err(KernelError::os(format!("try UDP port {port}"), errno)),
    }
}

fn try_bind(family: Family, port: u16) -> nix::Result<()> {
    let domain = match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    };
    let socket = socket(domain, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    match family {
        Family::V4 => bind(socket.as_raw_fd(), &SockaddrIn::new(0, 0, 0, 0, port)),
        Family::V6 => {
            // As the kernel's own: beside a socket of the same port for IPv4.
            setsockopt(&socket, Ipv6V6Only, &true)?;
            let any = std::net::SocketAddrV6::new([0; 16].into(), port, 0, 0);
            bind(socket.as_raw_fd(), &SockaddrIn6::from(any))
        }
    }
}
