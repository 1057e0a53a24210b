//! Events that nothing follows from. There are many, so they are told apart unparsed: what the
//! kernel learns of neighbours on a busy underlay, what it forgets of the multicast groups that
//! every veth has told of itself, and what it does by itself in every container when it has found
//! out that nobody else has its link-local address.

use std::collections::BTreeSet;

/// Of `linux/netlink.h` and `linux/rtnetlink.h`.
const NLMSG_HEADER: usize = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
/// Offsets behind the message's header.
const IFA_SCOPE: usize = 3;
const RTM_TABLE: usize = 4;
const NDM_IFINDEX: usize = 4;
const NDM_STATE: usize = 8;
/// `NUD_PERMANENT | NUD_NOARP`: somebody set this neighbour.
const SET: u16 = 0x80 | NOARP;
/// `NUD_NOARP`, of one that goes: a multicast group's, which was not used for a while. What
/// somebody deletes is `NUD_FAILED` by then (`neigh_delete`).
const NOARP: u16 = 0x40;
/// `RT_SCOPE_LINK`.
const LINK: u8 = 253;
/// `RT_TABLE_LOCAL`: the kernel's own routes to addresses of this machine.
const LOCAL: u8 = 255;

/// Whether a datagram of the node has anything but neighbours that the kernel learns or forgets by
/// itself; on devices that are `minded` these count, too. What cannot be read counts.
pub(super) fn concerns_node(datagram: &[u8], minded: &BTreeSet<u32>) -> bool {
    messages(datagram).any(|message| {
        message.is_none_or(|(kind, body)| {
            let device = word(body, NDM_IFINDEX);
            let by_itself = is_learned(kind, body) || is_forgotten(kind, body);
            !by_itself || device.is_none_or(|device| minded.contains(&device))
        })
    })
}

/// Whether a datagram of a container's namespace has anything but neighbours, of which we set none
/// there, link-local addresses and the kernel's own routes. What cannot be read counts.
pub(super) fn concerns_container(datagram: &[u8]) -> bool {
    messages(datagram).any(|message| {
        message.is_none_or(|(kind, body)| match kind {
            RTM_NEWADDR | RTM_DELADDR => body.get(IFA_SCOPE) != Some(&LINK),
            RTM_NEWROUTE | RTM_DELROUTE => body.get(RTM_TABLE) != Some(&LOCAL),
            _ => !matches!(kind, RTM_NEWNEIGH | RTM_DELNEIGH),
        })
    })
}

fn is_learned(kind: u16, body: &[u8]) -> bool {
    kind == RTM_NEWNEIGH && half(body, NDM_STATE).is_some_and(|state| state & SET == 0)
}

fn is_forgotten(kind: u16, body: &[u8]) -> bool {
    kind == RTM_DELNEIGH && half(body, NDM_STATE) == Some(NOARP)
}

/// Kind and body of each message; `None` for what cannot be read, which is the last then.
fn messages(datagram: &[u8]) -> impl Iterator<Item = Option<(u16, &[u8])>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let message = first(rest);
        rest = message.map_or(&[], |(_, _, rest)| rest);
        Some(message.map(|(kind, body, _)| (kind, body)))
    })
}

/// Kind and body of the first message, and what follows it.
fn first(datagram: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::try_from(word(datagram, 0)?).ok()?;
    let body = datagram.get(NLMSG_HEADER..length)?;
    let rest = datagram.get(length.next_multiple_of(4)..);
    Some((half(datagram, 4)?, body, rest.unwrap_or_default()))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u16::from_ne_bytes(*bytes))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Without devices that are minded.
    fn concerns_us(datagram: &[u8]) -> bool {
        concerns_node(datagram, &BTreeSet::new())
    }

    const RTM_NEWLINK: u16 = 16;
    const REACHABLE: u16 = 0x02;
    const FAILED: u16 = 0x20;
    const PERMANENT: u16 = 0x80;

    fn message(kind: u16, body: [u8; 12]) -> Vec<u8> {
        let mut bytes = vec![0; NLMSG_HEADER];
        bytes[..4].copy_from_slice(&28_u32.to_ne_bytes());
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        [bytes, body.to_vec()].concat()
    }

    fn neighbour(kind: u16, device: u32, state: u16) -> Vec<u8> {
        let mut body = [0; 12];
        body[NDM_IFINDEX..][..4].copy_from_slice(&device.to_ne_bytes());
        body[NDM_STATE..][..2].copy_from_slice(&state.to_ne_bytes());
        message(kind, body)
    }

    /// With one byte of its body set.
    fn with(kind: u16, at: usize, byte: u8) -> Vec<u8> {
        let mut body = [0; 12];
        body[at] = byte;
        message(kind, body)
    }

    #[test]
    fn learned_neighbours_are_passed_over() {
        let learned = neighbour(RTM_NEWNEIGH, 0, REACHABLE);
        let twice = [learned.clone(), learned.clone()].concat();
        let set = neighbour(RTM_NEWNEIGH, 0, PERMANENT);
        let and_set = [learned, set].concat();
        let deleted = neighbour(RTM_DELNEIGH, 0, FAILED);
        let aged = neighbour(RTM_DELNEIGH, 0, NOARP);
        assert!(concerns_us(&and_set) && concerns_us(&deleted));
        assert!(concerns_us(&neighbour(RTM_DELNEIGH, 0, REACHABLE)));
        assert!(!concerns_us(&twice) && !concerns_us(&aged));
        for neighbours in [&twice, &and_set, &deleted, &aged] {
            assert!(!concerns_container(neighbours));
        }
        for concerns in [concerns_us, concerns_container] {
            assert!(concerns(&neighbour(RTM_NEWLINK, 0, 0)));
        }
    }

    #[test]
    fn on_our_devices_every_neighbour_counts() {
        for (kind, state) in [(RTM_NEWNEIGH, REACHABLE), (RTM_DELNEIGH, NOARP)] {
            let by_itself = neighbour(kind, 7, state);
            assert!(concerns_node(&by_itself, &BTreeSet::from([7])));
            assert!(!concerns_node(&by_itself, &BTreeSet::from([8])));
        }
    }

    #[test]
    fn what_the_kernel_does_by_itself_in_a_container_is_passed_over() {
        for kind in [RTM_NEWADDR, RTM_DELADDR] {
            let of_link = with(kind, IFA_SCOPE, LINK);
            assert!(!concerns_container(&of_link));
            assert!(concerns_us(&of_link));
            assert!(concerns_container(&with(kind, IFA_SCOPE, 0)));
        }
        for kind in [RTM_NEWROUTE, RTM_DELROUTE] {
            let local = with(kind, RTM_TABLE, LOCAL);
            assert!(!concerns_container(&local));
            assert!(concerns_us(&local));
            assert!(concerns_container(&with(kind, RTM_TABLE, 254)));
        }
    }

    #[test]
    fn what_cannot_be_read_counts() {
        let learned = neighbour(RTM_NEWNEIGH, 0, REACHABLE);
        for concerns in [concerns_us, concerns_container] {
            assert!(concerns(&learned[..20]));
            assert!(concerns(&[0; 3]));
            assert!(concerns(&[&learned[..], &[0; 16]].concat()));
        }
    }
}
