//! UDP sockets of the agent's own, for messages through a device.

use std::{
    io::IoSliceMut,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::AsRawFd as _,
};

use nix::{
    cmsg_space,
    errno::Errno,
    libc,
    sys::socket::{
        AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, SockaddrStorage, bind,
        recvmsg, setsockopt, socket,
        sockopt::{BindToDevice, IpFreebind, Ipv4RecvErr, Ipv6DontFrag, Ipv6RecvErr, Ipv6V6Only},
    },
};
use overlay_core::model::{Family, IfName};

use super::keep_whole;
use crate::{KernelError, Result};

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
    // What comes back is told with whom it was for. It has to be read.
    if at.is_ipv6() {
        setsockopt(&socket, Ipv6RecvErr, &true)?;
    } else {
        setsockopt(&socket, Ipv4RecvErr, &true)?;
    }
    keep_whole(&socket, Family::of(at.ip()))?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(at))?;
    Ok(socket.into())
}

/// ICMP: the port is unreachable (RFC 792, RFC 4443 §3.1), as type and code.
const PORT_UNREACHABLE: [(u8, u8, u8); 2] = [
    (libc::SO_EE_ORIGIN_ICMP, 3, 3),
    (libc::SO_EE_ORIGIN_ICMP6, 1, 4),
];

/// The next error that has come for what such a socket has sent: whom that was for, and whether
/// there is nobody at that port; `None` when there are no more.
///
/// Until it is read, whoever waits for the socket is woken at once.
pub fn refused(socket: &UdpSocket) -> Option<(Option<IpAddr>, bool)> {
    let mut control = cmsg_space!(libc::sock_extended_err, libc::sockaddr_in6);
    // What is returned of the packet itself is of no use.
    let mut packet = [IoSliceMut::new(&mut [])];
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    let read =
        recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut packet, Some(&mut control), flags);
    let message = read.ok()?;
    let to = message.address.and_then(|to| {
        let four = to.as_sockaddr_in().map(|to| IpAddr::from(to.ip()));
        four.or_else(|| to.as_sockaddr_in6().map(|to| IpAddr::from(to.ip())))
    });
    let mut errors = message.cmsgs().ok()?.filter_map(|message| match message {
        ControlMessageOwned::Ipv4RecvErr(error, _) | ControlMessageOwned::Ipv6RecvErr(error, _) => {
            Some((error.ee_origin, error.ee_type, error.ee_code))
        }
        _ => None,
    });
    let nobody = errors.any(|error| PORT_UNREACHABLE.contains(&error));
    Some((to, nobody))
}

#[cfg(test)]
mod tests {
    use std::{net::IpAddr, time::Duration};

    use super::{refused, through};

    #[test]
    fn who_has_nobody_at_a_port_is_known() {
        for address in ["127.0.0.1", "::1"] {
            let address: IpAddr = address.parse().unwrap();
            let Ok(socket) = through("lo".parse().unwrap(), address, 0) else {
                // Not without the right to bind to a device, or without IPv6.
                continue;
            };
            let closed = std::net::UdpSocket::bind((address, 0)).unwrap();
            let port = closed.local_addr().unwrap().port();
            drop(closed);
            assert_eq!(refused(&socket), None);
            socket.send_to(b"x", (address, port)).unwrap();
            std::thread::sleep(Duration::from_millis(50));
            assert_eq!(refused(&socket), Some((Some(address), true)));
            assert_eq!(refused(&socket), None);
            // It is of use as before.
            socket.send_to(b"x", (address, port)).unwrap();
        }
    }
}
