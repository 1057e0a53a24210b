//! What the kernel holds of nftables, asked by netlink: exact, however `nft` would print it, and
//! far quicker than that where a set has very many elements.

use std::io;

use rtnetlink::sys::protocols::NETLINK_NETFILTER;

use crate::dump;

pub(super) use crate::dump::{Attribute, attribute, attributes};

/// `NFNL_SUBSYS_NFTABLES` of the kernel's headers.
pub(super) const SUBSYSTEM: u16 = 10 << 8;
/// `NFPROTO_INET`
pub(super) const INET: u8 = 1;
/// `NFPROTO_BRIDGE`
pub(super) const BRIDGE: u8 = 7;
/// `NFPROTO_NETDEV`
pub(super) const NETDEV: u8 = 5;
/// `sizeof(struct nfgenmsg)`.
pub(super) const FAMILY: usize = 4;
/// `NFT_MSG_NEWGEN`
pub(super) const NEW_GENERATION: u16 = 15;

// Attributes of `linux/netfilter/nf_tables.h`. Of every object but the table the first is its
// table's name.
pub(super) const OF_TABLE: u16 = 1;
pub(super) const CHAIN_NAME: u16 = 3;
pub(super) const SET_NAME: u16 = 2;
/// Of what lists a set's elements, or changes them.
pub(super) const ELEMENTS: u16 = 3;

/// The kinds of objects: `NFT_MSG_GET…`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Tables = 1,
    Chains = 4,
    Rules = 7,
    Sets = 10,
    Elements = 13,
    Generation = 16,
    Objects = 19,
}

/// Every object of a kind and family, as attributes; those asked for with the request narrow it
/// down. All of them are of one generation.
pub(super) fn dump_of(family: u8, kind: Kind, asked: &[Attribute<'_>]) -> io::Result<Vec<Vec<u8>>> {
    let mut request = vec![family, 0, 0, 0];
    for attribute in asked {
        dump::encode(&mut request, *attribute)?;
    }
    let found = dump::dump(NETLINK_NETFILTER, SUBSYSTEM | kind as u16, &request)?;
    Ok(found.into_iter().map(attributes_of).collect())
}

/// The one answer to a question that has one.
pub(super) fn single(kind: Kind) -> io::Result<Vec<u8>> {
    let answer = dump::single(NETLINK_NETFILTER, SUBSYSTEM | kind as u16, &[INET, 0, 0, 0])?;
    Ok(attributes_of(answer))
}

/// A name, which ends with a zero.
pub(super) fn name(bytes: &[u8], wanted: u16) -> Option<&str> {
    let value = attribute(bytes, wanted)?;
    std::str::from_utf8(value.strip_suffix(&[0]).unwrap_or(value)).ok()
}

/// Bytes that name something in a request.
pub(super) fn terminated(name: &str) -> Vec<u8> {
    name.bytes().chain([0]).collect()
}

fn attributes_of(mut payload: Vec<u8>) -> Vec<u8> {
    payload.drain(..FAMILY.min(payload.len()));
    payload
}

#[cfg(test)]
pub(super) mod tests {
    use crate::dump::encode;

    /// Attributes of a message, as the kernel writes them.
    pub(in super::super) fn all(attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for attribute in attributes {
            encode(&mut bytes, *attribute).unwrap();
        }
        bytes
    }
}
