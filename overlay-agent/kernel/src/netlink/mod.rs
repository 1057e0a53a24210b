//! Links, addresses, routes, neighbours and forwarding entries of one namespace.
//!
//! Dumps are strict (`NETLINK_GET_STRICT_CHK`): the kernel filters by device, and
//! refuses what it does not understand instead of ignoring it. A dump that the
//! kernel reports as inconsistent is repeated.

mod addresses;
pub(crate) mod blocking;
mod bridge;
mod bulk;
mod create;
mod events;
mod hops;
mod links;
mod neighbours;
mod noise;
mod qdiscs;
mod reachability;
mod refusal;
mod routes;
mod rules;
mod sizes;
mod watch;
mod ways;

use std::{io, path::Path, time::Duration};

use futures::{Stream, StreamExt};
use nix::errno::Errno;
use overlay_core::{identity::NetnsId, model::Family};
use rtnetlink::{
    Handle, new_connection_with_strict_check,
    packet_core::{
        NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
    },
    packet_route::{AddressFamily, RouteNetlinkMessage},
    sys::AsyncSocket,
};
use tokio::runtime;

use self::refusal::Refusal;
use super::{KernelError, Result, netns};

pub use self::{
    addresses::{AddressInfo, Lifetime, Place},
    bulk::{Bulk, Request},
    create::VethPeerSpec,
    events::{Changes, Event, Touched},
    links::{LinkInfo, VxlanInfo},
    neighbours::{FdbInfo, NeighbourInfo},
    qdiscs::{Qdiscs, qdiscs},
    reachability::{Answers, Reachability},
    routes::{RouteInfo, RouteKind, RouteSpec},
    rules::RuleInfo,
    watch::Watch,
};

/// How often a dump is repeated when the table changes under it.
const DUMP_ATTEMPTS: usize = 20;
/// How often it is asked for, and how long is waited in between, while another dump of the same socket
/// is on its way: the kernel has one at a time (`netlink_dump_start()`), and says `EBUSY` to the next.
const BUSY_ATTEMPTS: usize = 500;
const BUSY_PAUSE: Duration = Duration::from_millis(10);

const fn address_family(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}

/// A netlink socket in one namespace.
///
/// Clones share it; requests of several tasks may be under way at once. It is
/// closed when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Netlink {
    handle: Handle,
}

impl Netlink {
    /// In the calling thread's namespace. Needs a tokio runtime.
    pub fn open() -> Result<Self> {
        Self::connect(&current_runtime()?)
    }

    /// In the namespace that a file stands for. Needs a tokio runtime.
    pub fn open_in(path: &Path) -> Result<Self> {
        let runtime = current_runtime()?;
        netns::run_in(path, || Self::connect(&runtime))?
    }

    /// The same, with the identity of that namespace; `None` where there is none.
    pub fn visit(path: &Path) -> Result<Option<(NetnsId, Self)>> {
        let runtime = current_runtime()?;
        let visited = netns::visit(path, || Self::connect(&runtime))?;
        visited.map(|(id, netlink)| Ok((id, netlink?))).transpose()
    }

    fn connect(runtime: &runtime::Handle) -> Result<Self> {
        let _runtime = runtime.enter();
        let connect = || -> io::Result<Self> {
            let (mut connection, handle, _) = new_connection_with_strict_check()?;
            let socket = connection.socket_mut().socket_mut();
            socket.set_cap_ack(true)?;
            socket.set_ext_ack(true)?;
            // Otherwise a refused dump, or a lost connection, looks like an empty answer.
            connection.set_forward_done(true);
            connection.set_forward_ack(true);
            // It ends by itself when the last handle is dropped.
            runtime.spawn(connection);
            Ok(Self { handle })
        };
        connect().map_err(|error| KernelError::io("open a netlink socket", &error))
    }

    /// Asks for a change; on refusal, `operation` makes the text of the error from
    /// the name of the device with this index.
    async fn change(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
        index: u32,
        operation: impl FnOnce(&str) -> String,
    ) -> Result<()> {
        match self.request(message, NLM_F_ACK | flags).await {
            Ok(_) => Ok(()),
            Err(refusal) => Err(refusal.during(operation(&self.device(index).await))),
        }
    }

    /// The one answer to a question.
    async fn get(&self, message: RouteNetlinkMessage) -> Result<RouteNetlinkMessage, Refusal> {
        let mut answers = self.request(message, NLM_F_ACK).await?;
        answers.pop().ok_or_else(Refusal::unanswered)
    }

    /// Sends a request; its answers.
    fn send(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<impl Stream<Item = NetlinkMessage<RouteNetlinkMessage>> + use<>, Refusal> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | flags;
        let sent = self.handle.clone().request(request);
        sent.map_err(|_| Refusal::unanswered())
    }

    /// One request to its end.
    async fn request(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Vec<RouteNetlinkMessage>, Refusal> {
        let mut stream = std::pin::pin!(self.send(message, flags)?);
        let mut answers = Vec::new();
        while let Some(message) = stream.next().await {
            if let Some(refusal) = Refusal::of(&message) {
                return Err(refusal);
            }
            match message.payload {
                NetlinkPayload::InnerMessage(answer) => answers.push(answer),
                NetlinkPayload::Error(_) => return Ok(answers),
                _ => {}
            }
        }
        Err(Refusal::unanswered())
    }

    /// Lists a table, translating each message as it comes: tables can be large.
    async fn dump<T>(
        &self,
        operation: &str,
        message: RouteNetlinkMessage,
        translate: impl Fn(RouteNetlinkMessage) -> Option<T>,
    ) -> Result<Vec<T>> {
        let (mut attempts, mut busy) = (0, 0);
        while attempts < DUMP_ATTEMPTS {
            match self.dump_once(message.clone(), &translate).await {
                Ok(Some(rows)) => return Ok(rows),
                Ok(None) => attempts += 1,
                Err(refusal) if refusal.errno == Errno::EBUSY && busy < BUSY_ATTEMPTS => {
                    busy += 1;
                    tokio::time::sleep(BUSY_PAUSE).await;
                }
                Err(refusal) => return Err(refusal.during(operation)),
            }
        }
        Err(KernelError::os(operation, Errno::EINTR)
            .because("the table kept changing while it was read"))
    }

    /// `None` when the table changed meanwhile.
    async fn dump_once<T>(
        &self,
        message: RouteNetlinkMessage,
        translate: impl Fn(RouteNetlinkMessage) -> Option<T>,
    ) -> Result<Option<Vec<T>>, Refusal> {
        let mut stream = std::pin::pin!(self.send(message, NLM_F_DUMP)?);
        let mut rows = Vec::new();
        let mut consistent = true;
        while let Some(message) = stream.next().await {
            if let Some(refusal) = Refusal::of(&message) {
                return Err(refusal);
            }
            consistent &= message.header.flags & NLM_F_DUMP_INTR == 0;
            match message.payload {
                NetlinkPayload::InnerMessage(row) => rows.extend(translate(row)),
                NetlinkPayload::Done(_) => return Ok(consistent.then_some(rows)),
                _ => {}
            }
        }
        Err(Refusal::unanswered())
    }

    /// A device for the text of an error.
    async fn device(&self, index: u32) -> String {
        match self.link_by_index(index).await {
            Ok(Some(link)) => link.name.to_string(),
            _ => format!("with ifindex {index}"),
        }
    }
}

fn current_runtime() -> Result<runtime::Handle> {
    runtime::Handle::try_current()
        .map_err(|error| KernelError::new("open a netlink socket", error.to_string()))
}
