//! Netlink of subsystems that no library here speaks with: nftables, XFRM and connection tracking.

use std::io;

use nix::errno::Errno;
use rtnetlink::sys::{Socket, SocketAddr};

/// `NLM_F_REQUEST`, and `NLM_F_ROOT | NLM_F_MATCH`.
pub(super) const REQUEST: u16 = 1;
const ALL: u16 = 0x300;
/// `NLM_F_ACK`.
pub(super) const ACK: u16 = 4;
/// `NLM_F_DUMP_INTR`: something changed meanwhile.
const INTERRUPTED: u16 = 0x10;
/// `NLMSG_ERROR` and `NLMSG_DONE`.
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// `sizeof(struct nlmsghdr)`.
const HEADER: usize = 16;
/// How often a dump that was interrupted is begun anew.
const TRIES: u32 = 10;
/// More than the kernel writes at a time.
pub(super) const BUFFER: usize = 64 * 1024;

/// An attribute of a message, without `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER`.
pub(super) type Attribute<'a> = (u16, &'a [u8]);

/// What the kernel lists for a request of this kind, as what is behind each message's header. All
/// of it is of one generation.
pub(super) fn dump(protocol: isize, kind: u16, request: &[u8]) -> io::Result<Vec<Vec<u8>>> {
    for _ in 0..TRIES {
        let mut found = Vec::new();
        if each(protocol, kind, request, |body| found.push(body.to_vec()))? {
            return Ok(found);
        }
    }
    Err(io::Error::from_raw_os_error(Errno::EINTR as i32))
}

/// Tells one after the other what the kernel lists, and in the end whether all of it is of one
/// generation.
pub(super) fn each(
    protocol: isize,
    kind: u16,
    request: &[u8],
    mut tell: impl FnMut(&[u8]),
) -> io::Result<bool> {
    let socket = ask(protocol, kind, REQUEST | ALL, request)?;
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
                        error if error.raw_os_error() == Some(0) => Ok(!interrupted),
                        error if error.raw_os_error() == Some(Errno::EINTR as i32) => Ok(false),
                        error => Err(error),
                    };
                }
                _ => tell(message.payload),
            }
        }
    }
}

/// The one answer to a question that has one.
pub(super) fn single(protocol: isize, kind: u16, request: &[u8]) -> io::Result<Vec<u8>> {
    let socket = ask(protocol, kind, REQUEST, request)?;
    let mut buffer = Vec::with_capacity(BUFFER);
    socket.recv(&mut buffer, 0)?;
    let (first, _) = message(&buffer).ok_or_else(broken)?;
    match first.kind {
        ERROR => Err(failure(first.payload)),
        _ => Ok(first.payload.to_vec()),
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

/// As part of a request.
pub(super) fn encode(out: &mut Vec<u8>, (kind, value): Attribute<'_>) -> io::Result<()> {
    let length = u16::try_from(value.len() + 4).map_err(io::Error::other)?;
    out.extend(length.to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend(value);
    out.resize(out.len().next_multiple_of(4), 0);
    Ok(())
}

fn ask(protocol: isize, kind: u16, flags: u16, request: &[u8]) -> io::Result<Socket> {
    let socket = Socket::new(protocol)?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut bytes = Vec::new();
    write(&mut bytes, kind, flags, request)?;
    socket.send(&bytes, 0)?;
    Ok(socket)
}

/// Adds a message to those that are sent together.
pub(super) fn write(out: &mut Vec<u8>, kind: u16, flags: u16, payload: &[u8]) -> io::Result<()> {
    let length = u32::try_from(HEADER + payload.len()).map_err(io::Error::other)?;
    out.extend(length.to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend(flags.to_ne_bytes());
    // Sequence number and port.
    out.extend([0; 8]);
    out.extend(payload);
    out.resize(out.len().next_multiple_of(4), 0);
    Ok(())
}

/// The answers in a datagram to messages that were sent together: errors with number 0 are none.
pub(super) fn outcomes(mut bytes: &[u8]) -> impl Iterator<Item = io::Error> {
    std::iter::from_fn(move || {
        let (message, behind) = message(bytes)?;
        bytes = behind;
        Some(match message.kind {
            ERROR => failure(message.payload),
            _ => broken(),
        })
    })
}

/// Kind and body of the first message of these bytes, and where the next one begins.
pub(super) fn next(bytes: &[u8]) -> Option<(u16, &[u8], usize)> {
    let (message, behind) = message(bytes)?;
    Some((message.kind, message.payload, bytes.len() - behind.len()))
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
    use super::{attribute, attributes, encode};

    fn bytes(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(&mut bytes, (kind, value)).unwrap();
        bytes
    }

    #[test]
    fn attributes_are_found_by_number_whatever_their_flags() {
        let all = [bytes(1, b"inet\0"), bytes(0x8000 | 2, &[7])].concat();
        assert_eq!(attributes(&all).count(), 2);
        assert_eq!(attribute(&all, 1), Some(&b"inet\0"[..]));
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
