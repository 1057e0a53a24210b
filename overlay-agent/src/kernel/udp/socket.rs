//! UDP sockets of the agent's own, for messages through a device.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::AsRawFd as _,
};

use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket,
        sockopt::{BindToDevice, IpFreebind, Ipv6DontFrag, Ipv6V6Only},
    },
};

use super::keep_whole;
use crate::{
    kernel::{KernelError, Result},
    model::{Family, IfName},
};

/// A socket that hears and says nothing but through one device, from one address, and never has
/// a packet cut into fragments here; it does not block.
///
/// The address need not be there yet.
pub fn through(device: IfName, address: IpAddr, port: u16) -> Result<UdpSocket> {
    let at = SocketAddr::new(address, port);
    open(device, at).map_err(|errno| {
        let error = KernelError::os(format!("open UDP {at} on {device}"), errno);
        if errno == Errno::EADDRINUSE {
            error.with_cure("end the program that has this port")
        } else {
            error
        }
    })
}

fn open(device: IfName, at: SocketAddr) -> nix::Result<UdpSocket> {
    let family = if at.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(family, SockType::Datagram, flags, None)?;
    setsockopt(&socket, BindToDevice, &device.as_str().into())?;
    setsockopt(&socket, IpFreebind, &true)?;
    if at.is_ipv6() {
        setsockopt(&socket, Ipv6V6Only, &true)?;
        setsockopt(&socket, Ipv6DontFrag, &true)?;
    }
    keep_whole(&socket, Family::of(at.ip()))?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(at))?;
    Ok(socket.into())
}
