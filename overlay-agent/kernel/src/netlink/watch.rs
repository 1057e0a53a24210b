//! Learning that something changed.

use std::{
    collections::BTreeSet,
    io::{self, IoSliceMut},
    mem,
    os::fd::AsRawFd as _,
    path::Path,
};

use nix::{
    errno::Errno,
    sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt::RcvBufForce},
};
use rtnetlink::{
    MulticastGroup,
    sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE},
};
use tokio::io::unix::AsyncFd;

use super::{
    bulk::each_message,
    current_runtime,
    events::{Changes, Event, Touched, cuts_off, event},
    noise,
};
use crate::{KernelError, Result, netns};

/// The multicast groups of the socket.
const GROUPS: [MulticastGroup; 12] = [
    MulticastGroup::Link,
    MulticastGroup::Neigh,
    MulticastGroup::Tc,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv6Rule,
    MulticastGroup::Ipv4Netconf,
    MulticastGroup::Ipv6Netconf,
    MulticastGroup::Nexthop,
];

/// No datagram of the kernel is larger (`NLMSG_GOODSIZE` and dumps aside).
const BUFFER: usize = 32 * 1024;

/// Room for the events of a few thousand changes, which the agent's own make, too.
const ROOM: usize = 16 * 1024 * 1024;

/// Changes of links, addresses, routes, rules, filters, set neighbours and some settings of one
/// namespace, and of those that devices of it lead into: what containers do to themselves
/// is seen without a socket in each, which would keep it alive.
///
/// TCX links come and go without an event.
pub struct Watch {
    socket: AsyncFd<Socket>,
    buffer: Vec<u8>,
    events: Vec<Event>,
    touched: Touched,
    /// Others in which something has changed.
    namespaces: BTreeSet<i32>,
    /// The devices of which even learned neighbours matter.
    minded: BTreeSet<u32>,
    /// The devices by which packets leave,
    ways: BTreeSet<u32>,
    /// and whether one of them can carry none any more.
    cut: bool,
    /// Whether events are missing.
    lost: bool,
}

impl Watch {
    /// In the calling thread's namespace. Needs a tokio runtime.
    pub fn open() -> Result<Self> {
        let runtime = current_runtime()?;
        let _runtime = runtime.enter();
        let open = || -> io::Result<Self> {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            let groups = GROUPS
                .iter()
                .fold(0_u32, |mask, group| mask | 1 << (*group as u32 - 1));
            setsockopt(&socket, RcvBufForce, &ROOM)?;
            socket.set_listen_all_namespaces(true)?;
            socket.set_non_blocking(true)?;
            socket.bind(&SocketAddr::new(0, groups))?;
            // SAFETY: the socket has one descriptor, its own, until it is dropped.
            let socket = unsafe { AsyncFd::register(socket) }?;
            Ok(Self {
                socket,
                buffer: vec![0; BUFFER],
                events: Vec::new(),
                touched: Touched::default(),
                namespaces: BTreeSet::new(),
                minded: BTreeSet::new(),
                ways: BTreeSet::new(),
                cut: false,
                lost: false,
            })
        };
        open().map_err(|error| KernelError::io("listen to netlink", &error))
    }

    /// Has it tell of neighbours on these devices in any state: where all are set by us, one
    /// that the kernel may forget has been changed by somebody.
    pub fn mind(&mut self, devices: BTreeSet<u32>) {
        self.minded = devices;
    }

    /// Has it say when one of these devices goes, is down or has no carrier.
    pub fn hasten(&mut self, devices: BTreeSet<u32>) {
        self.ways = devices;
    }

    /// In the namespace that a file stands for. Needs a tokio runtime.
    pub fn open_in(path: &Path) -> Result<Self> {
        let runtime = current_runtime()?;
        netns::run_in(path, || {
            let _runtime = runtime.enter();
            Self::open()
        })?
    }

    /// Waits for the next change, and tells whether it is one that loses packets until it is
    /// answered. Nothing is lost when the future is dropped.
    ///
    /// Events that the kernel could not deliver count as a change. An error means
    /// that this watch is of no more use.
    pub async fn changed(&mut self) -> Result<bool> {
        loop {
            let mut ready = self
                .socket
                .readable()
                .await
                .map_err(|error| broken(&error))?;
            match receive(ready.get_inner(), &mut self.buffer) {
                Err(Errno::EAGAIN) => ready.clear_ready(),
                received => {
                    drop(ready);
                    if self.note(received)? {
                        return Ok(mem::take(&mut self.cut));
                    }
                }
            }
        }
    }

    /// What has changed since the last time; `None` when the kernel could not keep all of it,
    /// and at an end of the socket.
    pub fn take(&mut self) -> Option<Changes> {
        loop {
            match receive(self.socket.get_ref(), &mut self.buffer) {
                Err(Errno::EAGAIN) => break,
                received => {
                    if self.note(received).is_err() {
                        self.lost = true;
                        break;
                    }
                }
            }
        }
        let changes = Changes {
            events: mem::take(&mut self.events),
            touched: mem::take(&mut self.touched),
            namespaces: mem::take(&mut self.namespaces),
        };
        self.cut = false;
        (!mem::take(&mut self.lost)).then_some(changes)
    }

    /// Has the next look at the changes find that some are missing.
    pub fn miss(&mut self) {
        self.lost = true;
    }

    /// Takes back what was [taken](Self::take), for the next time.
    pub fn give_back(&mut self, mut changes: Changes) {
        changes.events.append(&mut self.events);
        self.events = changes.events;
        self.touched.links.append(&mut changes.touched.links);
        self.touched.addresses |= changes.touched.addresses;
        self.namespaces.append(&mut changes.namespaces);
    }

    /// Whether what was received concerns us.
    fn note(&mut self, received: nix::Result<Datagram>) -> Result<bool> {
        match received {
            Ok(Datagram { length, origin }) => {
                let datagram = self.buffer.get(..length).unwrap_or_default();
                if let Some(namespace) = origin {
                    let concerns = noise::concerns_container(datagram);
                    if concerns {
                        self.namespaces.insert(namespace);
                    }
                    return Ok(concerns);
                }
                if !noise::concerns_node(datagram, &self.minded) {
                    return Ok(false);
                }
                if is_setting(datagram) {
                    // Some choose among routes, such as `ignore_routes_with_linkdown`.
                    self.events.push(Event::Ways);
                    return Ok(true);
                }
                if is_next_hop(datagram) {
                    self.events.push(Event::Ways);
                    return Ok(true);
                }
                let (events, touched) = (&mut self.events, &mut self.touched);
                let (ways, cut) = (&self.ways, &mut self.cut);
                let parsed = each_message(datagram, |message| {
                    touched.note(&message);
                    *cut |= cuts_off(&message).is_some_and(|device| ways.contains(&device));
                    events.extend(event(message));
                });
                // What cannot be read is looked at.
                self.lost |= parsed.is_err();
            }
            Err(Errno::ENOBUFS) => self.lost = true,
            Err(errno) => return Err(broken(&errno.into())),
        }
        Ok(true)
    }
}

/// Whether it tells of a setting: which one, nobody here can read, and all are looked at.
fn is_setting(datagram: &[u8]) -> bool {
    /// `RTM_NEWNETCONF` and `RTM_DELNETCONF`.
    const NETCONF: [u16; 2] = [80, 81];
    kind(datagram).is_some_and(|kind| NETCONF.contains(&kind))
}

/// Whether it tells of an object that routes share. IPv4 routes go with it unannounced; what it
/// looks like, nobody here has to know.
fn is_next_hop(datagram: &[u8]) -> bool {
    /// `RTM_NEWNEXTHOP` and `RTM_DELNEXTHOP`, and the same of a group's buckets.
    const NEXT_HOPS: [u16; 4] = [104, 105, 116, 117];
    kind(datagram).is_some_and(|kind| NEXT_HOPS.contains(&kind))
}

/// The type of a datagram's first message.
fn kind(datagram: &[u8]) -> Option<u16> {
    let bytes = datagram.get(4..6)?.try_into().ok()?;
    Some(u16::from_ne_bytes(bytes))
}

fn broken(error: &io::Error) -> KernelError {
    KernelError::io("listen to netlink", error)
}

/// A datagram in the buffer.
#[derive(Clone, Copy)]
struct Datagram {
    length: usize,
    /// The number of the namespace it is about, if that is another one.
    origin: Option<i32>,
}

fn receive(socket: &Socket, buffer: &mut [u8]) -> nix::Result<Datagram> {
    /// `SOL_NETLINK` and `NETLINK_LISTEN_ALL_NSID` of `linux/netlink.h`.
    const ORIGIN: (i32, i32) = (270, 8);
    let mut control = nix::cmsg_space!(i32);
    let mut into = [IoSliceMut::new(buffer)];
    let fd = socket.as_raw_fd();
    let message = recvmsg::<()>(fd, &mut into, Some(&mut control), MsgFlags::MSG_DONTWAIT)?;
    let mut origin = None;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::Unknown(found) = control
            && (found.cmsg_header.cmsg_level, found.cmsg_header.cmsg_type) == ORIGIN
        {
            let number = found.data_bytes.first_chunk().copied();
            origin = number.map(i32::from_ne_bytes);
        }
    }
    Ok(Datagram {
        length: message.bytes,
        origin,
    })
}
