//! Whether a UDP port can be had.

use std::{
    io,
    net::{Ipv4Addr, UdpSocket},
};

use super::{KernelError, Result};

/// Whether a socket of somebody else has a UDP port in this thread's namespace.
///
/// The kernel's VXLAN devices have their ports through sockets, too.
pub fn is_busy(port: u16) -> Result<bool> {
    match UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)) {
        Ok(_) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(true),
        Err(error) => Err(KernelError::io(format!("try UDP port {port}"), &error)),
    }
}
