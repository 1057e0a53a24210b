//! Learning that something changed.

use std::{io, path::Path};

use nix::errno::Errno;
use rtnetlink::{
    MulticastGroup,
    sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE},
};

use super::current_runtime;
use crate::kernel::{KernelError, Result, netns};

/// What is listened to.
const GROUPS: [MulticastGroup; 9] = [
    MulticastGroup::Link,
    MulticastGroup::Neigh,
    MulticastGroup::Tc,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Netconf,
    MulticastGroup::Ipv6Netconf,
];

/// No datagram of the kernel is larger (`NLMSG_GOODSIZE` and dumps aside).
const BUFFER: usize = 32 * 1024;

/// Changes of links, addresses, routes, filters, set neighbours and some settings of one
/// namespace, and of those that devices of it lead into: what containers do to themselves
/// is seen without a socket in each, which would keep it alive.
///
/// TCX links come and go without an event.
///
/// It says that something changed, not what: who wants to know looks at everything,
/// and so needs no special case for events that were lost.
pub struct Watch {
    socket: TokioSocket,
    buffer: Vec<u8>,
}

impl Watch {
    /// In the calling thread's namespace. Needs a tokio runtime.
    pub fn open() -> Result<Self> {
        let runtime = current_runtime()?;
        let _runtime = runtime.enter();
        let open = || -> io::Result<Self> {
            let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
            let groups = GROUPS
                .iter()
                .fold(0, |mask, group| mask | 1 << (*group as u32 - 1));
            socket.socket_mut().set_listen_all_namespaces(true)?;
            socket.socket_mut().bind(&SocketAddr::new(0, groups))?;
            Ok(Self {
                socket,
                buffer: Vec::with_capacity(BUFFER),
            })
        };
        open().map_err(|error| KernelError::io("listen to netlink", &error))
    }

    /// In the namespace that a file stands for. Needs a tokio runtime.
    pub fn open_in(path: &Path) -> Result<Self> {
        let runtime = current_runtime()?;
        netns::run_in(path, || {
            let _runtime = runtime.enter();
            Self::open()
        })?
    }

    /// Waits for the next change. Nothing is lost when the future is dropped.
    ///
    /// Events that the kernel could not deliver count as a change. An error means
    /// that this watch is of no more use.
    pub async fn changed(&mut self) -> Result<()> {
        loop {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer).await {
                Ok(()) if concerns_us(&self.buffer) => return Ok(()),
                Ok(()) => {}
                Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => return Ok(()),
                Err(error) => return Err(KernelError::io("listen to netlink", &error)),
            }
        }
    }
}

const NLMSG_HEADER: usize = 16;
const RTM_NEWNEIGH: u16 = 28;
/// Offset of `ndm_state` behind the message's header.
const NDM_STATE: usize = 8;
/// `NUD_PERMANENT | NUD_NOARP`: somebody set this neighbour.
const SET: u16 = 0x80 | 0x40;

/// Whether a datagram has anything but the kernel's own learning of neighbours,
/// which is frequent on a busy underlay. What cannot be read concerns us.
fn concerns_us(datagram: &[u8]) -> bool {
    let mut rest = datagram;
    while !rest.is_empty() {
        let half = |at: usize| rest.get(at..at + 2).and_then(|b| b.try_into().ok());
        let word = |at: usize| rest.get(at..at + 4).and_then(|b| b.try_into().ok());
        let state = half(NLMSG_HEADER + NDM_STATE).map(u16::from_ne_bytes);
        match (
            word(0).map(u32::from_ne_bytes),
            half(4).map(u16::from_ne_bytes),
            state,
        ) {
            (Some(length), Some(RTM_NEWNEIGH), Some(state)) if state & SET == 0 => {
                let length = (length as usize).next_multiple_of(4).max(NLMSG_HEADER);
                rest = rest.get(length..).unwrap_or_default();
            }
            _ => return true,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::{NDM_STATE, NLMSG_HEADER, RTM_NEWNEIGH, concerns_us};

    const RTM_DELNEIGH: u16 = RTM_NEWNEIGH + 1;
    const REACHABLE: u16 = 0x02;
    const PERMANENT: u16 = 0x80;

    fn message(kind: u16, state: u16) -> Vec<u8> {
        let mut bytes = vec![0; NLMSG_HEADER + 12];
        bytes[..4].copy_from_slice(&28_u32.to_ne_bytes());
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[NLMSG_HEADER + NDM_STATE..][..2].copy_from_slice(&state.to_ne_bytes());
        bytes
    }

    #[test]
    fn learned_neighbours_are_passed_over() {
        let learned = message(RTM_NEWNEIGH, REACHABLE);
        assert!(!concerns_us(&learned));
        assert!(!concerns_us(&[learned.clone(), learned.clone()].concat()));
        assert!(concerns_us(
            &[learned, message(RTM_NEWNEIGH, PERMANENT)].concat()
        ));
        assert!(concerns_us(&message(RTM_DELNEIGH, REACHABLE)));
        assert!(concerns_us(&message(16, 0)));
    }

    #[test]
    fn what_cannot_be_read_counts() {
        assert!(concerns_us(&message(RTM_NEWNEIGH, REACHABLE)[..20]));
        assert!(concerns_us(&[0; 3]));
    }
}
