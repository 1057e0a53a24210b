//! Learning what has changed in the tables of nftables.

use std::io;

use nix::{
    errno::Errno,
    sys::socket::{setsockopt, sockopt::RcvBufForce},
};
use rtnetlink::sys::{
    AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, protocols::NETLINK_NETFILTER,
};

use super::{
    does::{self, Does},
    dump::{CHAIN_NAME, FAMILY, NEW_GENERATION, OF_TABLE, SET_NAME, SUBSYSTEM, attribute, name},
    generation,
    limits::{self, Limits},
};
use crate::{KernelError, Result, dump};

/// `NFNLGRP_NFTABLES` of `linux/netfilter/nfnetlink.h`.
const GROUP: u32 = 7;
/// No datagram of the kernel is larger.
const BUFFER: usize = 32 * 1024;
/// So much may wait while a long list of rules is read.
const ROOM: usize = 8 << 20;
/// Elements of a map without a name are told right before the rule that has it.
const SHORTLY: usize = 16;
/// `NFTA_CHAIN_HOOK`
const HOOK: u16 = 4;

/// `NFT_MSG_…` of what comes and goes, as `linux/netfilter/nf_tables.h` has them.
const NEW_TABLE: u16 = 0;
const DELETED_TABLE: u16 = 2;
const CHAINS: [u16; 2] = [3, 5];
const RULES: [u16; 2] = [6, 8];
const SETS: [u16; 2] = [9, 11];
const ELEMENTS: [u16; 2] = [12, 14];

/// An event of nftables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// One transaction, whoever's.
    Commit(Commit),
    /// That it could not tell all.
    Lost,
}

/// The changes of one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The generation that began with it.
    pub generation: u32,
    /// The changed objects.
    pub touched: Vec<Touched>,
}

/// Something that came, went or changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Touched {
    /// Of its table, as `nft` calls it.
    pub family: &'static str,
    /// The name of its table.
    pub table: String,
    /// The part of the table.
    pub part: Part,
}

/// A part of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// A chain.
    Chain {
        /// Its name.
        chain: String,
        /// Whether packets come to it by themselves.
        is_base: bool,
    },
    /// A rule.
    Rule {
        /// Its chain.
        chain: String,
        /// The addresses that it is about alone.
        limits: Limits,
        /// What it does with whom it is about.
        does: Does,
    },
    /// The set or map of this name.
    Set(String),
    /// Some of its elements.
    Elements {
        /// Its name.
        set: String,
        /// What they have done with those who are among them.
        does: Does,
    },
    /// The table itself, or what no rule of a packet filter looks at.
    Table,
}

/// Changes of the tables of the calling thread's namespace.
pub struct Watch {
    socket: TokioSocket,
    buffer: Vec<u8>,
    /// How much of it has been read.
    read: usize,
    /// The changes of a transaction that were announced so far.
    touched: Vec<Touched>,
}

impl Watch {
    /// Needs a tokio runtime.
    pub fn open() -> Result<Self> {
        let open = || -> io::Result<TokioSocket> {
            let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
            setsockopt(socket.socket_mut(), RcvBufForce, &ROOM)?;
            socket
                .socket_mut()
                .bind(&SocketAddr::new(0, 1 << (GROUP - 1)))?;
            Ok(socket)
        };
        let socket = open().map_err(|error| KernelError::io("listen to nftables", &error))?;
        Ok(Self {
            socket,
            buffer: Vec::with_capacity(BUFFER),
            read: 0,
            touched: Vec::new(),
        })
    }

    /// Waits for the next change. Nothing is lost when the future is dropped.
    ///
    /// An error means that this watch is of no more use.
    pub async fn changed(&mut self) -> Result<Told> {
        loop {
            if let Some(commit) = self.next() {
                return Ok(Told::Commit(commit));
            }
            self.buffer.clear();
            self.read = 0;
            match self.socket.recv(&mut self.buffer).await {
                Ok(()) => {}
                Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => {
                    self.touched.clear();
                    return Ok(Told::Lost);
                }
                Err(error) => return Err(KernelError::io("listen to nftables", &error)),
            }
        }
    }

    /// Reads on to the end of a transaction.
    fn next(&mut self) -> Option<Commit> {
        while let Some((kind, body, length)) = dump::next(self.buffer.get(self.read..)?) {
            self.read += length;
            let kind = kind.checked_sub(SUBSYSTEM);
            let (Some(kind), Some(attributes)) = (kind, body.get(FAMILY..)) else {
                continue;
            };
            if kind == NEW_GENERATION {
                let touched = std::mem::take(&mut self.touched);
                let generation = generation::read(attributes)?;
                return Some(Commit {
                    generation,
                    touched,
                });
            }
            let family = body.first().copied().and_then(limits::family);
            let touched = family.and_then(|family| touched(kind, family, attributes));
            self.touched
                .extend(touched.map(|one| complete(one, &self.touched)));
        }
        None
    }
}

/// A rule does what its map does.
fn complete(mut touched: Touched, before: &[Touched]) -> Touched {
    if let Part::Rule { does, .. } = &mut touched.part
        && let Some(map) = does.asks.take()
    {
        for one in before.iter().rev().take(SHORTLY) {
            if let Part::Elements { set, does: theirs } = &one.part
                && *set == map
            {
                does.and(theirs);
            }
        }
    }
    touched
}

fn touched(kind: u16, family: &'static str, attributes: &[u8]) -> Option<Touched> {
    // Of every object the first attribute is its table's name, and that of a table its own.
    let table = name(attributes, OF_TABLE)?.to_owned();
    let named = |attribute| name(attributes, attribute).map(str::to_owned);
    let part = match kind {
        NEW_TABLE | DELETED_TABLE => Part::Table,
        _ if CHAINS.contains(&kind) => Part::Chain {
            chain: named(CHAIN_NAME)?,
            is_base: attribute(attributes, HOOK).is_some(),
        },
        _ if RULES.contains(&kind) => Part::Rule {
            chain: named(limits::CHAIN)?,
            limits: attribute(attributes, limits::EXPRESSIONS)
                .map(|expressions| limits::of(family, expressions))
                .unwrap_or_default(),
            does: attribute(attributes, limits::EXPRESSIONS)
                .map_or_else(Does::anything, does::of_rule),
        },
        _ if SETS.contains(&kind) => Part::Set(named(SET_NAME)?),
        _ if ELEMENTS.contains(&kind) => Part::Elements {
            set: named(SET_NAME)?,
            does: does::of_elements(attributes),
        },
        _ => Part::Table,
    };
    Some(Touched {
        family,
        table,
        part,
    })
}
