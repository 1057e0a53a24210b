//! Windows of TCP connections that connection tracking remembers.
//!
//! It takes for invalid what is outside of the window that it has last seen (`tcp_in_window` of the
//! kernel). Of a connection that has passed it by since, that is anything. The kernel has such
//! connections itself: those that it picks up in their middle (`tcp_new`), and those that a flowtable
//! carries (`flow_offload_ct_tcp`). It notes of both directions that it is to be liberal, and the
//! same is done here. All else stays: direction, state, marks, labels, helper, and what rules have
//! decided by these.

use std::{io, net::IpAddr};

use nix::errno::Errno;
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

use super::{DESTINATION_NAT, FAMILY, ORIGINAL, SET, SOURCE_NAT, list, tuple};
use crate::{
    KernelError, Result,
    dump::{ACK, BUFFER, REQUEST, attribute, encode, outcomes, write},
};

/// IP protocol number.
const TCP: u8 = 6;

// Attributes of `linux/netfilter/nfnetlink_conntrack.h`: `CTA_…`,
const PROTOCOL_INFO: u16 = 4;
const ZONE: u16 = 18;
/// `CTA_PROTOINFO_TCP`,
const OF_TCP: u16 = 1;
/// and `CTA_PROTOINFO_TCP_…` in that.
const STATE: u16 = 1;
const FLAGS: [u16; 2] = [4, 5];
/// `NLA_F_NESTED`.
const NESTED: u16 = 1 << 15;

/// `TCP_CONNTRACK_ESTABLISHED`.
const ESTABLISHED: u8 = 3;
/// `TCP_CONNTRACK_SYN_SENT` and `TCP_CONNTRACK_SYN_SENT2`: a handshake of which connection tracking
/// has not seen the answer. Whatever follows it would take for invalid.
const OPENING: [u8; 2] = [1, 9];
/// `IP_CT_TCP_FLAG_BE_LIBERAL`: sequence numbers can be any.
const LIBERAL: u8 = 0x08;
/// `IP_CT_TCP_FLAG_MAXACK_SET`: a RST must not be older than what was acknowledged last.
const ACKNOWLEDGED: u8 = 0x20;

/// So many messages are sent together: their answers find room.
const TOGETHER: usize = 64;

/// Has connection tracking accept whatever sequence numbers come next on TCP connections of the
/// calling thread's namespace that it does not translate, and for which `is_one` says so of their
/// two ends; how many are changed by that. What goes meanwhile is none.
///
/// It takes a second for some hundred thousand connections.
///
/// # Errors
///
/// Where they cannot be listed, and where the kernel refuses to change one; others are changed.
pub fn loosen(is_one: impl Fn(IpAddr, IpAddr) -> bool) -> Result<usize> {
    let mut found = Vec::new();
    list((0, SOURCE_NAT | DESTINATION_NAT), |family, body| {
        let ends = attribute(body, ORIGINAL).and_then(tuple);
        let ends = ends.filter(|ends| ends.protocol == TCP);
        if ends.is_some_and(|ends| is_one(ends.source, ends.destination)) {
            found.push((family, body.to_vec()));
        }
    })?;
    let changes = found
        .iter()
        .filter_map(|(family, body)| change(*family, body));
    let changes = changes.collect::<io::Result<Vec<_>>>();
    changes.and_then(|changes| tell(&changes)).map_err(|error| {
        KernelError::io(
            "have connection tracking go on with TCP connections",
            &error,
        )
    })
}

/// What changes a connection; `None` where nothing is to be changed.
fn change(family: u8, body: &[u8]) -> Option<io::Result<Vec<u8>>> {
    let info = attribute(attribute(body, PROTOCOL_INFO)?, OF_TCP)?;
    let &state = attribute(info, STATE)?.first()?;
    let flags = |kind| attribute(info, kind)?.first().copied();
    let flags = [flags(FLAGS[0])?, flags(FLAGS[1])?];
    let is_opening = OPENING.contains(&state);
    let is_liberal = |flags: u8| flags & (LIBERAL | ACKNOWLEDGED) == LIBERAL;
    if !is_opening && flags.into_iter().all(is_liberal) {
        return None;
    }
    let original = attribute(body, ORIGINAL)?;
    Some(request(family, original, attribute(body, ZONE), is_opening))
}

fn request(
    family: u8,
    original: &[u8],
    zone: Option<&[u8]>,
    is_opening: bool,
) -> io::Result<Vec<u8>> {
    let mut info = Vec::new();
    if is_opening {
        encode(&mut info, (STATE, &[ESTABLISHED]))?;
    }
    for kind in FLAGS {
        // The bits, and which of them count.
        encode(&mut info, (kind, &[LIBERAL, LIBERAL | ACKNOWLEDGED]))?;
    }
    let mut of_tcp = Vec::new();
    encode(&mut of_tcp, (OF_TCP | NESTED, &info))?;
    let mut request = vec![0; FAMILY];
    request[0] = family;
    encode(&mut request, (ORIGINAL | NESTED, original))?;
    if let Some(zone) = zone {
        encode(&mut request, (ZONE, zone))?;
    }
    encode(&mut request, (PROTOCOL_INFO | NESTED, &of_tcp))?;
    Ok(request)
}

/// How many were carried out; those whose connection has gone were not.
fn tell(requests: &[Vec<u8>]) -> io::Result<usize> {
    let mut done = 0;
    if requests.is_empty() {
        return Ok(done);
    }
    let socket = Socket::new(NETLINK_NETFILTER)?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut failure = None;
    let mut buffer = Vec::with_capacity(BUFFER);
    for some in requests.chunks(TOGETHER) {
        let mut messages = Vec::new();
        for request in some {
            write(&mut messages, SET, REQUEST | ACK, request)?;
        }
        socket.send(&messages, 0)?;
        let mut answered = 0;
        while answered < some.len() {
            buffer.clear();
            socket.recv(&mut buffer, 0)?;
            let before = answered;
            for outcome in outcomes(&buffer) {
                answered += 1;
                match outcome.raw_os_error() {
                    Some(0) => done += 1,
                    Some(gone) if gone == Errno::ENOENT as i32 => {}
                    _ => failure = Some(outcome),
                }
            }
            if answered == before {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
    failure.map_or(Ok(done), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(kind: u16, inner: &[u8]) -> Vec<u8> {
        let mut outer = Vec::new();
        encode(&mut outer, (kind | NESTED, inner)).unwrap();
        outer
    }

    /// A connection as Linux 6.18 lists it, without what is of no matter here.
    fn listed(state: u8, flags: [u8; 2], zone: &[u8]) -> Vec<u8> {
        let mut info = Vec::new();
        encode(&mut info, (STATE, &[state])).unwrap();
        for (kind, flags) in FLAGS.into_iter().zip(flags) {
            encode(&mut info, (kind, &[flags, 0])).unwrap();
        }
        let mut body = nested(ORIGINAL, b"from, to");
        body.extend(nested(PROTOCOL_INFO, &nested(OF_TCP, &info)));
        if !zone.is_empty() {
            encode(&mut body, (ZONE, zone)).unwrap();
        }
        body
    }

    fn changed(state: u8, flags: [u8; 2], zone: &[u8]) -> Option<Vec<u8>> {
        change(2, &listed(state, flags, zone)).map(Result::unwrap)
    }

    #[test]
    fn a_connection_is_named_as_it_was_listed() {
        let request = changed(ESTABLISHED, [0; 2], &[0, 7]).unwrap();
        assert_eq!(request[..FAMILY], [2, 0, 0, 0]);
        let body = &request[FAMILY..];
        assert_eq!(attribute(body, ORIGINAL), Some(&b"from, to"[..]));
        assert_eq!(attribute(body, ZONE), Some(&[0, 7][..]));
        let info = attribute(body, PROTOCOL_INFO).unwrap();
        let info = attribute(info, OF_TCP).unwrap();
        assert_eq!(attribute(info, STATE), None);
        for kind in FLAGS {
            assert_eq!(attribute(info, kind), Some(&[0x08, 0x28][..]));
        }
    }

    #[test]
    fn what_is_liberal_stays_as_it_is() {
        assert_eq!(changed(ESTABLISHED, [0x0b, 0x0a], &[]), None);
        assert!(changed(ESTABLISHED, [0x0b, 0x03], &[]).is_some());
        assert!(changed(ESTABLISHED, [0x2b, 0x0a], &[]).is_some());
        let whole = listed(ESTABLISHED, [0; 2], &[]);
        for length in 0..whole.len() {
            assert!(change(2, &whole[..length]).is_none(), "{length}");
        }
    }

    #[test]
    fn a_handshake_that_passes_by_is_over() {
        for opening in OPENING {
            let request = changed(opening, [0x08; 2], &[]).unwrap();
            let info = attribute(&request[FAMILY..], PROTOCOL_INFO).unwrap();
            let info = attribute(info, OF_TCP).unwrap();
            assert_eq!(attribute(info, STATE), Some(&[ESTABLISHED][..]));
        }
    }
}
