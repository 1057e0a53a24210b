//! The generation of a namespace's tables: a number that each change makes another.

use std::io;

use super::dump::{Kind, attribute, single};
use crate::{KernelError, Result};

/// `NFTA_GEN_ID`, a number of 4 bytes in network order.
const ID: u16 = 1;

/// The generation now.
pub fn generation() -> Result<u32> {
    let ask = || -> io::Result<u32> {
        let answer = single(Kind::Generation)?;
        read(&answer).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no generation"))
    };
    ask().map_err(|error| KernelError::io("ask nftables for its generation", &error))
}

/// The generation that a message tells of.
pub(super) fn read(attributes: &[u8]) -> Option<u32> {
    let id = attribute(attributes, ID)?.try_into().ok()?;
    Some(u32::from_be_bytes(id))
}
