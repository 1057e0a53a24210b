//! One transaction of nftables by netlink: what comes and goes of chains and of sets' elements.
//!
//! `nft` asks for all that there is before it writes, and takes milliseconds to start. The kernel
//! refuses a transaction that names another generation than that of the tables now
//! (`nf_tables_valid_genid`), so nobody's change can come between what was seen and what is written.

use std::io;

use nix::sys::socket::{setsockopt, sockopt::SndBufForce};
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

use super::dump::{CHAIN_NAME, ELEMENTS, OF_TABLE, SET_NAME, SUBSYSTEM, terminated};
use crate::dump::{ACK, BUFFER, REQUEST, encode, outcomes, write};

/// `NFNL_MSG_BATCH_BEGIN` and `NFNL_MSG_BATCH_END`.
const BEGIN: u16 = 0x10;
const END: u16 = 0x11;
/// `NFNL_BATCH_GENID`
const GENERATION: u16 = 1;
/// Of no family, and `NFNL_SUBSYS_NFTABLES` in network order.
const OF_NFTABLES: [u8; 4] = [0, 0, 0, 10];

// `NFT_MSG_NEWCHAIN` and so on.
const ADD_CHAIN: u16 = 3;
const DELETE_CHAIN: u16 = 5;
const ADD_ELEMENTS: u16 = 12;
const DELETE_ELEMENTS: u16 = 14;

/// `NLM_F_CREATE`.
const CREATE: u16 = 0x400;

/// `ERESTART` of the kernel: the tables are of another generation.
const OTHER_GENERATION: i32 = 85;

/// `NFTA_LIST_ELEM`, `NFTA_SET_ELEM_KEY` in that, and `NFTA_DATA_VALUE` in that.
const ELEMENT: u16 = 1;
const KEY: u16 = 1;
const VALUE: u16 = 1;

/// An attribute is shorter than 64 KiB.
const MOST_BYTES: usize = 60_000;

/// What becomes of a chain, or of elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Add,
    Delete,
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Committed {
    Done,
    /// Somebody has changed a table before; nothing was done.
    Raced,
}

/// A transaction that is being written.
#[derive(Debug)]
pub(super) struct Batch {
    generation: u32,
    messages: Vec<Message>,
}

#[derive(Debug)]
struct Message {
    kind: u16,
    flags: u16,
    payload: Vec<u8>,
}

impl Batch {
    /// One for tables of this generation.
    pub(super) const fn at(generation: u32) -> Self {
        Self {
            generation,
            messages: Vec::new(),
        }
    }

    /// A chain without hook and rules comes or goes.
    pub(super) fn chain(
        &mut self,
        verb: Verb,
        family: u8,
        table: &str,
        name: &str,
    ) -> io::Result<()> {
        let mut payload = vec![family, 0, 0, 0];
        encode(&mut payload, (OF_TABLE, &terminated(table)))?;
        encode(&mut payload, (CHAIN_NAME, &terminated(name)))?;
        self.push(verb, [ADD_CHAIN, DELETE_CHAIN], payload);
        Ok(())
    }

    /// Elements of a set, by their keys.
    pub(super) fn elements(
        &mut self,
        verb: Verb,
        (family, table, set): (u8, &str, &str),
        keys: &[Vec<u8>],
    ) -> io::Result<()> {
        let mut list = Vec::new();
        for (place, key) in keys.iter().enumerate() {
            encode(&mut list, (ELEMENT, &element(key)?))?;
            if list.len() < MOST_BYTES && place + 1 < keys.len() {
                continue;
            }
            let mut payload = vec![family, 0, 0, 0];
            encode(&mut payload, (OF_TABLE, &terminated(table)))?;
            encode(&mut payload, (SET_NAME, &terminated(set)))?;
            encode(&mut payload, (ELEMENTS, &list))?;
            self.push(verb, [ADD_ELEMENTS, DELETE_ELEMENTS], payload);
            list.clear();
        }
        Ok(())
    }

    fn push(&mut self, verb: Verb, [add, delete]: [u16; 2], payload: Vec<u8>) {
        let (kind, flags) = match verb {
            Verb::Add => (add, REQUEST | CREATE),
            Verb::Delete => (delete, REQUEST),
        };
        self.messages.push(Message {
            kind: SUBSYSTEM | kind,
            flags,
            payload,
        });
    }

    /// Has the kernel do all of it, or nothing. One without a message is an error.
    pub(super) fn commit(mut self) -> io::Result<Committed> {
        if let Some(last) = self.messages.last_mut() {
            // An answer to it tells that the kernel came so far.
            last.flags |= ACK;
        }
        let mut begin = OF_NFTABLES.to_vec();
        encode(&mut begin, (GENERATION, &self.generation.to_be_bytes()))?;
        let mut bytes = Vec::new();
        write(&mut bytes, BEGIN, REQUEST, &begin)?;
        for message in &self.messages {
            write(&mut bytes, message.kind, message.flags, &message.payload)?;
        }
        write(&mut bytes, END, REQUEST, &OF_NFTABLES)?;
        let socket = Socket::new(NETLINK_NETFILTER)?;
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_cap_ack(true)?;
        setsockopt(&socket, SndBufForce, &(2 * bytes.len()).max(1 << 20))?;
        socket.send(&bytes, 0)?;
        answers(&socket)
    }
}

/// An element as the kernel lists it, too (`nf_tables_fill_setelem`).
pub(super) fn element(key: &[u8]) -> io::Result<Vec<u8>> {
    let (mut value, mut element) = (Vec::new(), Vec::new());
    encode(&mut value, (VALUE, key))?;
    encode(&mut element, (KEY, &value))?;
    Ok(element)
}

/// What the kernel says of a transaction: all of it before `send` returns.
fn answers(socket: &Socket) -> io::Result<Committed> {
    let mut buffer = Vec::with_capacity(BUFFER);
    let mut is_answered = false;
    loop {
        buffer.clear();
        match socket.recv(&mut buffer, nix::libc::MSG_DONTWAIT) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && is_answered => {
                return Ok(Committed::Done);
            }
            received => received?,
        };
        for failure in outcomes(&buffer) {
            match failure.raw_os_error() {
                Some(0) => is_answered = true,
                Some(OTHER_GENERATION) => return Ok(Committed::Raced),
                _ => return Err(failure),
            }
        }
    }
}
