//! Very many requests, and very large tables.
//!
//! Requests are sent many at a time and carried out in their order; the kernel answers those
//! that it refuses, and the last of each batch. Nothing else runs meanwhile: it does not take
//! longer than the kernel does.

use std::io;

use nix::errno::Errno;
use rtnetlink::{
    packet_core::{
        NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
    },
    packet_route::RouteNetlinkMessage,
    sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE},
};

use super::{DUMP_ATTEMPTS, refusal::Refusal};
use crate::{KernelError, Result};

/// Requests on their way at once: if the kernel refuses all, the refusals still have room.
const BATCH: usize = 128;
/// The requested room for answers; `NLMSG_GOODSIZE` of a dump is half of it at most.
const BUFFER: usize = 64 * 1024;

/// A change that can be one of very many.
#[derive(Debug)]
pub struct Request {
    pub(super) message: RouteNetlinkMessage,
    pub(super) flags: u16,
}

/// A netlink socket in the namespace of the thread that opened it.
pub struct Bulk {
    socket: Socket,
    buffer: Vec<u8>,
}

type Answer = Result<Option<RouteNetlinkMessage>, Refusal>;

impl Bulk {
    /// In the calling thread's namespace.
    pub fn open() -> Result<Self> {
        let open = || -> io::Result<Self> {
            let socket = Socket::new(NETLINK_ROUTE)?;
            socket.set_cap_ack(true)?;
            socket.set_ext_ack(true)?;
            socket.set_netlink_get_strict_chk(true)?;
            socket.connect(&SocketAddr::new(0, 0))?;
            Ok(Self {
                socket,
                buffer: Vec::with_capacity(BUFFER),
            })
        };
        open().map_err(|error| KernelError::io("open a netlink socket", &error))
    }

    /// Makes the changes, each in its turn; `operation` is the text for the error of one.
    pub fn change(
        &mut self,
        requests: Vec<Request>,
        operation: impl Fn(usize) -> String,
    ) -> Vec<Result<()>> {
        let answers = self.ask(requests).into_iter().enumerate();
        let outcome = |(number, answer): (usize, Answer)| {
            answer
                .map(|_| ())
                .map_err(|refusal| refusal.during(operation(number)))
        };
        answers.map(outcome).collect()
    }

    /// The answer to each request: at most one message.
    pub(super) fn ask(&mut self, requests: Vec<Request>) -> Vec<Answer> {
        let mut answers = Vec::with_capacity(requests.len());
        let mut requests = requests.into_iter().peekable();
        while requests.peek().is_some() {
            let batch: Vec<Request> = requests.by_ref().take(BATCH).collect();
            let first = answers.len();
            answers.extend(batch.iter().map(|_| Ok(None)));
            let (Some(answers), count) = (answers.get_mut(first..), batch.len()) else {
                break;
            };
            if let Err(error) = self.ask_batch(batch, answers) {
                // Whatever became of them, they are looked at again.
                for answer in answers.iter_mut().take(count) {
                    *answer = Err(Refusal::from(io::Error::from(error.kind())));
                }
            }
        }
        answers
    }

    fn ask_batch(&mut self, batch: Vec<Request>, answers: &mut [Answer]) -> io::Result<()> {
        let mut bytes = Vec::new();
        let mut last = 0;
        let count = batch.len();
        for (request, number) in batch.into_iter().zip(1..) {
            let mut message = NetlinkMessage::from(request.message);
            let ack = if number as usize == count {
                NLM_F_ACK
            } else {
                0
            };
            message.header.flags = NLM_F_REQUEST | request.flags | ack;
            message.header.sequence_number = number;
            message.finalize();
            let start = bytes.len();
            bytes.resize(start + message.buffer_len(), 0);
            message.serialize(&mut bytes[start..]);
            last = number;
        }
        self.socket.send(&bytes, 0)?;
        let mut done = false;
        while !done {
            self.receive(|message| {
                let number = message.header.sequence_number;
                let slot = (number as usize)
                    .checked_sub(1)
                    .and_then(|at| answers.get_mut(at));
                let refusal = Refusal::of(&message);
                done |= number == last && matches!(message.payload, NetlinkPayload::Error(_));
                match (slot, refusal, message.payload) {
                    (Some(slot), Some(refusal), _) => *slot = Err(refusal),
                    (Some(slot), None, NetlinkPayload::InnerMessage(answer)) => {
                        *slot = Ok(Some(answer));
                    }
                    _ => {}
                }
            })?;
        }
        Ok(())
    }

    /// Lists a table, translating each message as it comes.
    pub(super) fn dump<T>(
        &mut self,
        operation: &str,
        message: &RouteNetlinkMessage,
        translate: impl Fn(RouteNetlinkMessage) -> Option<T>,
    ) -> Result<Vec<T>> {
        for _ in 0..DUMP_ATTEMPTS {
            let found = self.dump_once(message.clone(), &translate);
            if let Some(rows) = found.map_err(|refusal| refusal.during(operation))? {
                return Ok(rows);
            }
        }
        Err(KernelError::os(operation, Errno::EINTR)
            .because("the table kept changing while it was read"))
    }

    /// `None` when the table changed meanwhile.
    fn dump_once<T>(
        &mut self,
        message: RouteNetlinkMessage,
        translate: impl Fn(RouteNetlinkMessage) -> Option<T>,
    ) -> Result<Option<Vec<T>>, Refusal> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        let mut rows = Vec::new();
        let mut consistent = true;
        let mut end = None;
        while end.is_none() {
            self.receive(|message| {
                consistent &= message.header.flags & NLM_F_DUMP_INTR == 0;
                if let Some(refusal) = Refusal::of(&message) {
                    end = Some(Err(refusal));
                }
                match message.payload {
                    NetlinkPayload::InnerMessage(row) => rows.extend(translate(row)),
                    NetlinkPayload::Done(_) => end = end.take().or(Some(Ok(()))),
                    _ => {}
                }
            })?;
        }
        match end {
            Some(Err(refusal)) => Err(refusal),
            _ => Ok(consistent.then_some(rows)),
        }
    }

    fn receive(&mut self, each: impl FnMut(NetlinkMessage<RouteNetlinkMessage>)) -> io::Result<()> {
        self.buffer.clear();
        self.socket.recv(&mut self.buffer, 0)?;
        each_message(&self.buffer, each)
    }
}

/// The messages of a datagram.
pub(super) fn each_message(
    datagram: &[u8],
    mut each: impl FnMut(NetlinkMessage<RouteNetlinkMessage>),
) -> io::Result<()> {
    let mut rest = datagram;
    while !rest.is_empty() {
        let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
        // Messages are aligned to 4 bytes (`NLMSG_ALIGN`).
        let length = (message.header.length as usize).next_multiple_of(4);
        rest = rest.get(length..).unwrap_or_default();
        each(message);
    }
    Ok(())
}
