//! Packets that come in unusual ways.

use std::net::IpAddr;

use anyhow::Result;
use overlay_tests::frames::{self, Ip, Mac, ethernet, ethertype, protocol};

const MORE_FRAGMENTS: u16 = 0x2000;
const MORE_FRAGMENTS6: u16 = 1;

/// A frame with an 802.1Q tag of no VLAN.
pub(crate) fn tagged(to: Mac, from: Mac, kind: u16, packet: &[u8]) -> Vec<u8> {
    let tag = [&[0, 0][..], &kind.to_be_bytes(), packet].concat();
    ethernet(to, from, ethertype::VLAN, &tag)
}

/// A datagram in two fragments, the first with so many bytes of it (RFC 791; RFC 8200 §4.5).
pub(crate) fn fragments(outer: Ip, datagram: &[u8], first: usize) -> Result<[Vec<u8>; 2]> {
    let (head, tail) = datagram.split_at(first);
    let place = u16::try_from(first)?;
    Ok(match outer.source {
        IpAddr::V4(_) => {
            [(MORE_FRAGMENTS, head), (place / 8, tail)].map(|(flags_and_offset, part)| {
                let header = Ip {
                    flags_and_offset,
                    ..outer
                };
                header.around(part)
            })
        }
        IpAddr::V6(_) => [(MORE_FRAGMENTS6, head), (place, tail)].map(|(place_and_flag, part)| {
            let mut header = vec![protocol::UDP, 0];
            header.extend(place_and_flag.to_be_bytes());
            header.extend(u32::from(outer.id).to_be_bytes());
            let ip = Ip {
                protocol: protocol::FRAGMENT,
                ..outer
            };
            ip.around(&[&header, part].concat())
        }),
    })
}

/// The datagram behind four bytes of IPv4 options, or a hop-by-hop header, that say nothing.
pub(crate) fn with_options(outer: Ip, datagram: &[u8]) -> Vec<u8> {
    const NO_OPERATION: u8 = 1;
    if outer.source.is_ipv6() {
        let options = [protocol::UDP, 0, 1, 4, 0, 0, 0, 0];
        let ip = Ip {
            protocol: protocol::HOP_BY_HOP,
            ..outer
        };
        return ip.around(&[&options, datagram].concat());
    }
    let packet = outer.around(datagram);
    let mut header = [&packet[..20], &[NO_OPERATION; 4]].concat();
    header[0] = 0x46;
    let length = u16::from_be_bytes([header[2], header[3]]) + 4;
    header[2..4].copy_from_slice(&length.to_be_bytes());
    header[10..12].fill(0);
    let sum = frames::checksum(&header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    [&header[..], &packet[20..]].concat()
}
