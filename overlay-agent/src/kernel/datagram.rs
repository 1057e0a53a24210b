//! UDP sockets of the agent's own, for messages through a device.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::{
    errno::Errno,
    libc,
    sys::socket::{
        AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket,
        sockopt::{BindToDevice, IpFreebind, Ipv6DontFrag, Ipv6V6Only},
    },
};

use super::{KernelError, Result};
use crate::model::IfName;

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
    ignore_path_mtu(&socket, at.ip())?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(at))?;
    Ok(socket.into())
}

/// Only the device's MTU limits what is sent: whether more arrives than the kernel has heard of is
/// what somebody wants to know.
fn ignore_path_mtu(socket: &OwnedFd, address: IpAddr) -> nix::Result<()> {
    let (level, option, value) = match address {
        IpAddr::V4(_) => (
            libc::IPPROTO_IP,
            libc::IP_MTU_DISCOVER,
            libc::IP_PMTUDISC_PROBE,
        ),
        IpAddr::V6(_) => (
            libc::IPPROTO_IPV6,
            libc::IPV6_MTU_DISCOVER,
            libc::IPV6_PMTUDISC_PROBE,
        ),
    };
    let length = libc::socklen_t::try_from(size_of_val(&value)).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the kernel reads `length` bytes at the pointer, which are those of `value`, and
    // keeps none of it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            length,
        )
    };
    Errno::result(result).map(drop)
}
