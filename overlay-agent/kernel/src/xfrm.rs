//! Policies of `IPsec` (XFRM): what they say of the tunnels' packets the kernel does on its own way
//! alone.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use nix::errno::Errno;
use overlay_core::{
    model::Family,
    surroundings::{Direction, Policy},
};
use rtnetlink::sys::{
    AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, protocols::NETLINK_XFRM,
};

use super::{
    KernelError, Result,
    dump::{attribute, dump},
};

/// `XFRMNLGRP_POLICY` of `linux/xfrm.h`.
const GROUP: u32 = 4;
/// `XFRM_MSG_GETPOLICY`.
const GET: u16 = 0x15;
/// `sizeof(struct xfrm_userpolicy_id)`.
const ID: usize = 64;
/// `sizeof(struct xfrm_userpolicy_info)`.
const INFO: usize = 168;
/// `XFRMA_TMPL`: what is done to a packet.
const TEMPLATES: u16 = 5;
/// The largest announcement; it is not looked at.
const BUFFER: usize = 4 * 1024;

/// The policies of the calling thread's namespace; none where the kernel has no `IPsec`.
pub fn policies() -> Result<Vec<Policy>> {
    match dump(NETLINK_XFRM, GET, &[0; ID]) {
        Ok(found) => Ok(found.iter().filter_map(|body| policy(body)).collect()),
        Err(error) if is_missing(&error) => Ok(Vec::new()),
        Err(error) => Err(KernelError::io("list IPsec policies", &error)),
    }
}

fn is_missing(error: &io::Error) -> bool {
    let missing = [
        Errno::EPROTONOSUPPORT,
        Errno::ECONNREFUSED,
        Errno::EOPNOTSUPP,
    ];
    let errno = error.raw_os_error().map(Errno::from_raw);
    errno.is_some_and(|errno| missing.contains(&errno))
}

/// The policy of a `struct xfrm_userpolicy_info` and its attributes; `None` for one that lets
/// packets pass as they are, or is about those that are sent on.
fn policy(body: &[u8]) -> Option<Policy> {
    const DESTINATION: usize = 0;
    const SOURCE: usize = 16;
    const PORT: usize = 32;
    const PORT_MASK: usize = 34;
    const FAMILY: usize = 40;
    const LENGTHS: usize = 42;
    const PROTOCOL: usize = 44;
    const DIRECTION: usize = 160;
    const ACTION: usize = 161;
    /// `AF_INET6`.
    const INET6: u16 = 10;

    let info: &[u8; INFO] = body.first_chunk()?;
    let blocks = info[ACTION] != 0;
    if !blocks && attribute(body.get(INFO..)?, TEMPLATES).is_none() {
        return None;
    }
    let direction = match info[DIRECTION] {
        0 => Direction::In,
        1 => Direction::Out,
        _ => return None,
    };
    let half = |at: usize| [info[at], info[at + 1]];
    let family = if u16::from_ne_bytes(half(FAMILY)) == INET6 {
        Family::V6
    } else {
        Family::V4
    };
    let net = |at: usize, length: u8| {
        let bytes: [u8; 16] = info.get(at..)?.first_chunk().copied()?;
        let address: IpAddr = match family {
            Family::V4 => {
                let [a, b, c, d, ..] = bytes;
                Ipv4Addr::new(a, b, c, d).into()
            }
            Family::V6 => Ipv6Addr::from(bytes).into(),
        };
        IpNet::new(address, length).ok()
    };
    let port = u16::from_be_bytes(half(PORT)) & u16::from_be_bytes(half(PORT_MASK));
    Some(Policy {
        direction,
        source: net(SOURCE, info[LENGTHS + 1])?,
        destination: net(DESTINATION, info[LENGTHS])?,
        protocol: info[PROTOCOL],
        port,
        blocks,
    })
}

/// Changes of policies of the calling thread's namespace.
///
/// It says that something changed, not what.
pub struct Watch {
    socket: TokioSocket,
    buffer: Vec<u8>,
}

impl Watch {
    /// Needs a tokio runtime. `None` where the kernel has no `IPsec`.
    pub fn open() -> Result<Option<Self>> {
        let open = || -> io::Result<TokioSocket> {
            let mut socket = TokioSocket::new(NETLINK_XFRM)?;
            let groups = 1 << (GROUP - 1);
            socket.socket_mut().bind(&SocketAddr::new(0, groups))?;
            Ok(socket)
        };
        match open() {
            Ok(socket) => Ok(Some(Self {
                socket,
                buffer: Vec::with_capacity(BUFFER),
            })),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(KernelError::io("listen to IPsec policies", &error)),
        }
    }

    /// Waits for the next change. Nothing is lost when the future is dropped.
    ///
    /// Events that the kernel could not deliver count as a change. An error means
    /// that this watch is of no more use.
    pub async fn changed(&mut self) -> Result<()> {
        self.buffer.clear();
        match self.socket.recv(&mut self.buffer).await {
            Ok(()) => Ok(()),
            Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => Ok(()),
            Err(error) => Err(KernelError::io("listen to IPsec policies", &error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Linux 6.18 tells of `ip xfrm policy add src 192.0.2.1 dst 192.0.2.2 proto udp dport 4789
    /// dir out tmpl …`, or of one without what is done.
    fn told(direction: u8, action: u8, templates: bool) -> Vec<u8> {
        let mut body = vec![0; INFO];
        body[..4].copy_from_slice(&[192, 0, 2, 2]);
        body[16..20].copy_from_slice(&[192, 0, 2, 1]);
        body[32..36].copy_from_slice(&[0x12, 0xb5, 0xff, 0xff]);
        body[40..42].copy_from_slice(&2_u16.to_ne_bytes());
        body[42..45].copy_from_slice(&[32, 32, 17]);
        body[160] = direction;
        body[161] = action;
        if templates {
            body.extend([8, 0, 20, 0, 0, 0, 0, 0]);
            let length = body.len();
            body.extend([6_u16.to_ne_bytes(), TEMPLATES.to_ne_bytes()].concat());
            body.extend([0, 0, 0, 0]);
            assert_eq!(body.len(), length + 8);
        }
        body
    }

    #[test]
    fn a_policy_is_about_the_tunnels_that_its_selector_has() {
        let (own, other): (IpAddr, IpAddr) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
        let out = policy(&told(1, 0, true)).unwrap();
        assert!(out.is_about(own, other, 4789));
        assert!(!out.is_about(own, other, 8472));
        assert!(!out.is_about(other, own, 4789));
        assert!(!out.is_about(own, [192, 0, 2, 3].into(), 4789));
        let arriving = policy(&told(0, 0, true)).unwrap();
        assert!(arriving.is_about(other, own, 4789));
        assert!(!arriving.is_about(own, other, 4789));
    }

    #[test]
    fn what_lets_packets_pass_or_is_about_others_does_not_count() {
        assert_eq!(policy(&told(1, 0, false)), None);
        assert!(policy(&told(1, 1, false)).unwrap().blocks);
        assert_eq!(policy(&told(2, 0, true)), None);
        assert_eq!(policy(&told(1, 0, true)[..100]), None);
    }
}
