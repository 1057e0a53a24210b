//! What the kernel holds of nftables, asked by netlink: exact, however `nft` would print it, and
//! far quicker than that where a set has very many elements.

use std::io;

use nix::errno::Errno;
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

/// `NFNL_SUBSYS_NFTABLES` of the kernel's headers.
const SUBSYSTEM: u16 = 10 << 8;
/// `NLM_F_REQUEST`, and `NLM_F_ROOT | NLM_F_MATCH`.
const REQUEST: u16 = 1;
const ALL: u16 = 0x300;
/// `NLM_F_DUMP_INTR`: something changed meanwhile.
const INTERRUPTED: u16 = 0x10;
/// `NLMSG_ERROR` and `NLMSG_DONE`.
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// `NFPROTO_INET`
pub(super) const INET: u8 = 1;
/// `NFPROTO_NETDEV`
pub(super) const NETDEV: u8 = 5;
/// `struct nlmsghdr`, and with `struct nfgenmsg`.
const HEADER: usize = 16;
const HEADERS: usize = 20;
/// How often a dump that was interrupted is begun anew.
const TRIES: u32 = 10;
/// More than the kernel writes at a time.
const BUFFER: usize = 64 * 1024;

/// What can be asked for: `NFT_MSG_GET…`.
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

/// An attribute of a message, without `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER`.
pub(super) type Attribute<'a> = (u16, &'a [u8]);

/// Every object of a kind of the family `inet`, as attributes; those asked for with the request
/// narrow it down. All of them are of one generation.
pub(super) fn dump(kind: Kind, asked: &[Attribute<'_>]) -> io::Result<Vec<Vec<u8>>> {
    dump_of(INET, kind, asked)
}

/// The same of another family.
pub(super) fn dump_of(family: u8, kind: Kind, asked: &[Attribute<'_>]) -> io::Result<Vec<Vec<u8>>> {
    for _ in 0..TRIES {
        if let Some(found) = tried(family, kind, asked)? {
            return Ok(found);
        }
    }
    Err(io::Error::from_raw_os_error(Errno::EINTR as i32))
}

/// The one answer to a question that has one.
pub(super) fn single(kind: Kind) -> io::Result<Vec<u8>> {
    let socket = ask(INET, kind, REQUEST, &[])?;
    let mut buffer = Vec::with_capacity(BUFFER);
    socket.recv(&mut buffer, 0)?;
    let (first, _) = message(&buffer).ok_or_else(broken)?;
    match first.kind {
        ERROR => Err(failure(first.payload)),
        _ => Ok(attributes_of(first.payload).to_vec()),
    }
}

/// The attributes in these bytes; what follows one that is cut off is left out.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = Attribute<'_>> {
    const KIND: u16 = 0x3fff;
    std::iter::from_fn(move || {
        let &[a, b, c, d] = bytes.first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([c, d]) & KIND, value))
    })
}

/// The attribute of this number.
pub(super) fn attribute(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find_map(|(kind, value)| (kind == wanted).then_some(value))
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

fn tried(family: u8, kind: Kind, asked: &[Attribute<'_>]) -> io::Result<Option<Vec<Vec<u8>>>> {
    let socket = ask(family, kind, REQUEST | ALL, asked)?;
    let mut found = Vec::new();
    let mut interrupted = false;
    let mut buffer = Vec::with_capacity(BUFFER);
    loop {
        buffer.clear();
        socket.recv(&mut buffer, 0)?;
        let mut rest = buffer.as_slice();
        if rest.is_empty() {
            return Err(broken());
        }
        while let Some((message, behind)) = message(rest) {
            rest = behind;
            interrupted |= message.flags & INTERRUPTED != 0;
            match message.kind {
                ERROR => return Err(failure(message.payload)),
                DONE => {
                    return match failure(message.payload) {
                        error if error.raw_os_error() == Some(0) => {
                            Ok((!interrupted).then_some(found))
                        }
                        error if error.raw_os_error() == Some(Errno::EINTR as i32) => Ok(None),
                        error => Err(error),
                    };
                }
                _ => found.push(attributes_of(message.payload).to_vec()),
            }
        }
    }
}

fn ask(family: u8, kind: Kind, flags: u16, asked: &[Attribute<'_>]) -> io::Result<Socket> {
    let socket = Socket::new(NETLINK_NETFILTER)?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut attributes = Vec::new();
    for (kind, value) in asked {
        let length = u16::try_from(value.len() + 4).map_err(io::Error::other)?;
        attributes.extend(length.to_ne_bytes());
        attributes.extend(kind.to_ne_bytes());
        attributes.extend(*value);
        attributes.resize(attributes.len().next_multiple_of(4), 0);
    }
    let length = u32::try_from(HEADERS + attributes.len()).map_err(io::Error::other)?;
    let mut request = Vec::with_capacity(HEADERS + attributes.len());
    request.extend(length.to_ne_bytes());
    request.extend((SUBSYSTEM | kind as u16).to_ne_bytes());
    request.extend(flags.to_ne_bytes());
    // Sequence number and port.
    request.extend([0; 8]);
    request.extend([family, 0, 0, 0]);
    request.extend(attributes);
    socket.send(&request, 0)?;
    Ok(socket)
}

struct Message<'a> {
    kind: u16,
    flags: u16,
    payload: &'a [u8],
}

fn message(bytes: &[u8]) -> Option<(Message<'_>, &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (kind, rest) = rest.split_first_chunk()?;
    let length = usize::try_from(u32::from_ne_bytes(*length)).ok()?;
    let message = Message {
        kind: u16::from_ne_bytes(*kind),
        flags: u16::from_ne_bytes(*rest.first_chunk()?),
        payload: bytes.get(HEADER..length)?,
    };
    let behind = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((message, behind))
}

/// What is behind `struct nfgenmsg`.
fn attributes_of(payload: &[u8]) -> &[u8] {
    payload.get(HEADERS - HEADER..).unwrap_or_default()
}

/// The error that a message ends with; its number is negative, or 0 where there is none.
fn failure(payload: &[u8]) -> io::Error {
    match payload.first_chunk::<4>() {
        Some(number) => io::Error::from_raw_os_error(i32::from_ne_bytes(*number).saturating_neg()),
        None => broken(),
    }
}

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "an answer that is cut off")
}

#[cfg(test)]
mod tests {
    use super::{attribute, attributes, name, terminated};

    fn bytes(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(value.len() + 4).unwrap();
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn attributes_are_found_by_number_whatever_their_flags() {
        let all = [bytes(1, &terminated("inet")), bytes(0x8000 | 2, &[7])].concat();
        assert_eq!(attributes(&all).count(), 2);
        assert_eq!(name(&all, 1), Some("inet"));
        assert_eq!(attribute(&all, 2), Some(&[7][..]));
        assert_eq!(attribute(&all, 3), None);
    }

    #[test]
    fn what_is_cut_off_ends_the_list() {
        let whole = bytes(1, &[1, 2, 3, 4]);
        for length in 0..whole.len() {
            assert_eq!(attributes(&whole[..length]).count(), 0, "{length}");
        }
        assert_eq!(attributes(&[0; 8]).count(), 0);
    }
}
