//! Outer Ethernet, IP, UDP and VXLAN headers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use overlay_common::wire::VXLAN_FLAGS;
use overlay_tests::{
    families::Family,
    frames::{Ip, ethertype, protocol, udp},
    topology::VNI,
};

use super::{Burst, Case, case, many, one};
use crate::shot::{Checksum, Shot};

pub(super) fn all(over: Family) -> Vec<Case> {
    let mut cases = of_udp();
    cases.extend(of_vxlan());
    cases.extend(of_ip());
    match over {
        Family::V4 => cases.extend(of_ipv4()),
        Family::V6 => cases.extend(of_ipv6()),
    }
    cases
}

fn of_udp() -> Vec<Case> {
    let checksum = |name, checksum| case(name, move |shot: &mut Shot| shot.checksum = checksum);
    vec![
        checksum("no UDP checksum", Checksum::Absent),
        checksum("UDP checksum right", Checksum::Right),
        checksum("UDP checksum wrong", Checksum::Wrong),
        case("source port 0", |shot| shot.source_port = 0),
        case("another destination port", |shot| shot.port = 4790),
        one("UDP length less than the packet's", Family::V4, |shot| {
            let datagram = shot.datagram(&shot.inner_frame());
            shot.around(&[&datagram[..], &[0; 12]].concat())
        }),
        one("UDP length more than the packet's", Family::V4, |shot| {
            let mut datagram = shot.datagram(&shot.inner_frame());
            let length = u16::from_be_bytes([datagram[4], datagram[5]]) + 4;
            datagram[4..6].copy_from_slice(&length.to_be_bytes());
            shot.around(&datagram)
        }),
        one("UDP length less than its header's", Family::V4, |shot| {
            let mut datagram = shot.datagram(&shot.inner_frame());
            datagram[4..6].copy_from_slice(&7_u16.to_be_bytes());
            shot.around(&datagram)
        }),
        one("a datagram without anything in it", Family::V4, |shot| {
            shot.around(&udp(shot.source_port, shot.port, 0, &[]))
        }),
    ]
}

fn of_vxlan() -> Vec<Case> {
    let bits = |name, count: u32, set: fn(&mut Shot, u32)| {
        many(name, Family::V4, move |shot| {
            let with = |bit: u32| -> Option<Burst> {
                let mut changed = shot.clone();
                set(&mut changed, 1 << bit);
                let same = (changed.flags, changed.last) == (shot.flags, shot.last);
                (!same).then(|| vec![changed.frame()])
            };
            (0..count).filter_map(with).collect()
        })
    };
    vec![
        case("I flag clear", |shot| shot.flags = 0),
        bits("each reserved bit beside the I flag", 32, |shot, bit| {
            shot.flags = VXLAN_FLAGS | bit;
        }),
        bits("each reserved bit behind the VNI", 8, |shot, bit| {
            shot.last |= bit;
        }),
        case("another VNI", |shot| shot.last = (VNI + 1) << 8),
    ]
}

fn of_ip() -> Vec<Case> {
    vec![
        case("outer TTL 0", |shot| shot.outer.ttl = 0),
        case("outer TTL 1", |shot| shot.outer.ttl = 1),
        case("outer DSCP 46", |shot| shot.outer.tos = 46 << 2),
        case("an outer source that is no VTEP", |shot| {
            shot.outer.source = neighbour(shot.outer.source);
        }),
        case("an outer destination that is not ours", |shot| {
            shot.outer.destination = neighbour(shot.outer.destination);
        }),
        one("padding behind the outer packet", Family::V4, |shot| {
            [&shot.frame()[..], &[0; 22]].concat()
        }),
        // A switch that does not know the MAC hands the frame to everybody.
        case("another's MAC on the underlay", |shot| {
            shot.macs.0 = [0x02, 0, 0, 0, 0, 0x77];
        }),
        one("a VLAN tag on the underlay", Family::V4, |shot| {
            let mut frame = shot.frame();
            let tag = [&ethertype::VLAN.to_be_bytes()[..], &5_u16.to_be_bytes()].concat();
            frame.splice(12..12, tag);
            frame
        }),
    ]
}

/// An address on the underlay that nobody has.
fn neighbour(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            Ipv4Addr::new(a, b, c, 99).into()
        }
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) & !0xffff | 0x99).into(),
    }
}

/// The outer datagram in two IPv4 fragments, cut at a multiple of eight bytes.
fn fragments4(shot: &Shot) -> Burst {
    const MORE_FRAGMENTS: u16 = 0x2000;
    const CUT: usize = 64;
    let datagram = shot.datagram(&shot.inner_frame());
    let fragment = |flags_and_offset, part: &[u8]| {
        let header = Ip {
            flags_and_offset,
            ..shot.outer
        };
        shot.on_the_wire(&header.around(part))
    };
    let (head, tail) = datagram.split_at(CUT);
    vec![
        fragment(MORE_FRAGMENTS, head),
        fragment(u16::try_from(CUT / 8).unwrap(), tail),
    ]
}

fn of_ipv4() -> Vec<Case> {
    vec![
        case("outer DF", |shot| shot.outer.flags_and_offset = 0x4000),
        many("two outer fragments", Family::V4, |shot| {
            vec![fragments4(shot)]
        }),
        one("outer options", Family::V4, |shot| {
            // Four times "no operation" (RFC 791).
            let mut packet = shot.outer.around(&shot.datagram(&shot.inner_frame()));
            with_options(&mut packet, &[1; 4]);
            shot.on_the_wire(&packet)
        }),
        one("outer header checksum wrong", Family::V4, |shot| {
            let mut frame = shot.frame();
            frame[24] ^= 0x40;
            frame
        }),
        one("outer version 6 behind type IPv4", Family::V4, |shot| {
            let mut frame = shot.frame();
            frame[14] = 0x65;
            frame
        }),
        one("outer length more than the frame's", Family::V4, |shot| {
            let mut packet = shot.outer.around(&shot.datagram(&shot.inner_frame()));
            packet.truncate(packet.len() - 1);
            shot.on_the_wire(&packet)
        }),
    ]
}

/// Puts options into an IPv4 packet without any.
pub(super) fn with_options(packet: &mut Vec<u8>, options: &[u8]) {
    packet.splice(20..20, options.iter().copied());
    let words = u8::try_from(options.len() / 4).unwrap();
    packet[0] += words;
    let length = u16::try_from(packet.len()).unwrap();
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    packet[10..12].fill(0);
    let header = 20 + options.len();
    let sum = overlay_tests::frames::checksum(&packet[..header]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// The outer datagram in two IPv6 fragments (RFC 8200 §4.5).
fn fragments6(shot: &Shot) -> Burst {
    const MORE_FRAGMENTS: u16 = 1;
    const CUT: u16 = 64;
    let datagram = shot.datagram(&shot.inner_frame());
    let fragment = |offset_and_more: u16, part: &[u8]| {
        let mut header = vec![protocol::UDP, 0];
        header.extend(offset_and_more.to_be_bytes());
        header.extend([0, 0, 0x12, 0x34]);
        let ip = Ip {
            protocol: protocol::FRAGMENT,
            ..shot.outer
        };
        shot.on_the_wire(&ip.around(&[&header, part].concat()))
    };
    let (head, tail) = datagram.split_at(CUT.into());
    vec![fragment(MORE_FRAGMENTS, head), fragment(CUT, tail)]
}

fn of_ipv6() -> Vec<Case> {
    vec![
        many("two outer fragments", Family::V4, |shot| {
            vec![fragments6(shot)]
        }),
        one("outer extension header", Family::V4, |shot| {
            // Hop-by-hop with six bytes of padding (RFC 8200 §4.2, §4.3).
            let options = [protocol::UDP, 0, 1, 4, 0, 0, 0, 0];
            let ip = Ip {
                protocol: protocol::HOP_BY_HOP,
                ..shot.outer
            };
            let datagram = shot.datagram(&shot.inner_frame());
            shot.on_the_wire(&ip.around(&[&options[..], &datagram].concat()))
        }),
        one("outer length more than the frame's", Family::V4, |shot| {
            let mut packet = shot.outer.around(&shot.datagram(&shot.inner_frame()));
            packet.truncate(packet.len() - 1);
            shot.on_the_wire(&packet)
        }),
    ]
}
