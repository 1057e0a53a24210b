//! What is in the tunnel.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use overlay_tests::{
    families::Family,
    frames::{Ip, ethertype, protocol, udp},
};

use super::{Burst, Case, Shows, case, many, one, outer::with_options};
use crate::shot::{LISTENING, Shot, TAG};

/// What does not depend on the inner family, and ECN for IPv4.
pub(super) fn both() -> Vec<Case> {
    let mut cases = vec![
        case("inner destination MAC of nobody", |shot| {
            shot.inner_macs.0 = [0x02, 0, 0, 0, 0, 0x77];
        }),
        case("inner destination MAC broadcast", |shot| {
            shot.inner_macs.0 = [0xff; 6];
        }),
        case("inner source MAC of nobody", |shot| {
            shot.inner_macs.1 = [0x02, 0, 0, 0, 0, 0x77];
        }),
        case("inner source MAC the receiver's own", |shot| {
            shot.inner_macs.1 = shot.inner_macs.0;
        }),
        case("inner source MAC multicast", |shot| {
            shot.inner_macs.1 = [0x01, 0, 0x5e, 0, 0, 1];
        }),
        one("inner VLAN tag", Family::V4, |shot| tagged(shot, 5)),
        one("inner priority tag", Family::V4, |shot| tagged(shot, 0)),
        one("inner frame of an unknown type", Family::V4, |shot| {
            let frame = shot.inner_frame_of(ethertype::EXPERIMENT, &shot.payload);
            shot.carrying(&frame)
        }),
        one("inner ARP", Family::V4, |shot| {
            let frame = shot.inner_frame_of(ethertype::ARP, &[TAG, &[0; 20]].concat());
            shot.carrying(&frame)
        }),
        one("padding behind the inner packet", Family::V4, |shot| {
            shot.carrying(&[&shot.inner_frame()[..], &[0; 18]].concat())
        }),
        one(
            "an inner packet that ends behind the outer one",
            Family::V4,
            |shot| {
                let frame = shot.inner_frame();
                let (promised, rest) = frame.split_at(frame.len() - 18);
                [&shot.carrying(promised), rest].concat()
            },
        ),
        one("inner type IPv6 before IPv4", Family::V4, |shot| {
            let frame = shot.inner_frame_of(ethertype::IPV6, &shot.inner_packet());
            shot.carrying(&frame)
        }),
    ];
    cases.extend(ecn(Family::V4));
    cases
}

fn tagged(shot: &Shot, id: u16) -> Vec<u8> {
    let kind = shot.inner.ethertype().to_be_bytes();
    let packet = [&id.to_be_bytes()[..], &kind, &shot.inner_packet()].concat();
    shot.carrying(&shot.inner_frame_of(ethertype::VLAN, &packet))
}

/// Each pair of RFC 6040, figure 4.
fn ecn(family: Family) -> impl Iterator<Item = Case> {
    let marks = || 0b00_u8..=0b11;
    let pairs = marks().flat_map(move |inner| marks().map(move |outer| (outer, inner)));
    pairs.map(move |(outer, inner)| {
        let version = match family {
            Family::V4 => 4,
            Family::V6 => 6,
        };
        let name = format!("ECN {outer:02b} over IPv{version} {inner:02b}");
        Case {
            shows: Shows::Ecn,
            ..one(name, family, move |shot| {
                let mut shot = shot.clone();
                (shot.outer.tos, shot.inner.tos) = (outer, inner);
                shot.frame()
            })
        }
    })
}

/// A packet of this family from another source.
fn from(name: &'static str, inner: Family, source: fn(&Shot) -> IpAddr) -> Case {
    one(name, inner, move |shot| {
        let mut shot = shot.clone();
        shot.inner.source = source(&shot);
        shot.frame()
    })
}

/// A packet of this family that is damaged after its checksums were right.
fn damaged(name: &'static str, inner: Family, damage: fn(&mut Vec<u8>)) -> Case {
    one(name, inner, move |shot| {
        let mut packet = shot.inner_packet();
        damage(&mut packet);
        let frame = shot.inner_frame_of(shot.inner.ethertype(), &packet);
        shot.carrying(&frame)
    })
}

/// A packet of this family that ends here or nearly.
fn aged(name: &'static str, inner: Family, ttl: u8) -> Case {
    one(name, inner, move |shot| {
        let mut shot = shot.clone();
        shot.inner.ttl = ttl;
        shot.frame()
    })
}

pub(super) fn ipv4() -> Vec<Case> {
    vec![
        aged("inner TTL 0", Family::V4, 0),
        aged("inner TTL 1", Family::V4, 1),
        aged("inner TTL 2", Family::V4, 2),
        many("each inner IPv4 fragment", Family::V4, inner_fragments4),
        damaged("inner IPv4 options", Family::V4, |packet| {
            with_options(packet, &[1; 4]);
        }),
        damaged("inner header checksum wrong", Family::V4, |packet| {
            packet[10] ^= 0x40;
        }),
        damaged("inner header length 16", Family::V4, |packet| {
            packet[0] = 0x44;
        }),
        damaged("inner version 5", Family::V4, |packet| packet[0] = 0x55),
        from("source of the receiver's own subnet", Family::V4, |shot| {
            let IpAddr::V4(to) = shot.inner.destination else {
                return shot.inner.source;
            };
            let [a, b, c, _] = to.octets();
            Ipv4Addr::new(a, b, c, 200).into()
        }),
        from("source of another peer's subnet", Family::V4, |shot| {
            // The nodes' subnets are 10.244.1.0 to 10.244.3.0; 3 sends.
            let IpAddr::V4(to) = shot.inner.destination else {
                return shot.inner.source;
            };
            let [a, b, c, _] = to.octets();
            Ipv4Addr::new(a, b, 3 - c, 10).into()
        }),
        from("source of the peer's gateway", Family::V4, |shot| {
            let IpAddr::V4(from) = shot.inner.source else {
                return shot.inner.source;
            };
            let [a, b, c, _] = from.octets();
            Ipv4Addr::new(a, b, c, 1).into()
        }),
        from("source outside of the network", Family::V4, |_| {
            Ipv4Addr::new(198, 51, 100, 7).into()
        }),
        from("source 0.0.0.0", Family::V4, |_| {
            Ipv4Addr::UNSPECIFIED.into()
        }),
        from("source 127.0.0.1", Family::V4, |_| {
            Ipv4Addr::LOCALHOST.into()
        }),
        from("source 224.0.0.1", Family::V4, |_| {
            Ipv4Addr::new(224, 0, 0, 1).into()
        }),
        from("source 255.255.255.255", Family::V4, |_| {
            Ipv4Addr::BROADCAST.into()
        }),
        from("source 240.0.0.1", Family::V4, |_| {
            Ipv4Addr::new(240, 0, 0, 1).into()
        }),
    ]
}

/// The packet's two fragments, which a router sends on as they are.
fn inner_fragments4(shot: &Shot) -> Vec<Burst> {
    const MORE_FRAGMENTS: u16 = 0x2000;
    let datagram = udp(1000, LISTENING, 0, &shot.payload);
    // Both carry the tag by which an arrival is known.
    let fragment = |flags_and_offset| {
        let header = Ip {
            flags_and_offset,
            ..shot.inner
        };
        let packet = header.around(&datagram[..48]);
        vec![shot.carrying(&shot.inner_frame_of(ethertype::IPV4, &packet))]
    };
    vec![fragment(MORE_FRAGMENTS), fragment(6)]
}

pub(super) fn ipv6() -> Vec<Case> {
    let mut cases = vec![
        one("inner IPv6", Family::V6, Shot::frame),
        aged("inner hop limit 0", Family::V6, 0),
        aged("inner hop limit 1", Family::V6, 1),
        aged("inner hop limit 2", Family::V6, 2),
        one("inner extension header", Family::V6, |shot| {
            let options = [protocol::UDP, 0, 1, 4, 0, 0, 0, 0];
            extended(shot, protocol::HOP_BY_HOP, &options)
        }),
        one("eight inner extension headers", Family::V6, |shot| {
            let header = |next| [next, 0, 1, 4, 0, 0, 0, 0];
            let mut headers = [header(protocol::DESTINATION); 8];
            headers[7] = header(protocol::UDP);
            extended(shot, protocol::DESTINATION, headers.as_flattened())
        }),
        one("inner IPv6 fragment", Family::V6, |shot| {
            let header = [protocol::UDP, 0, 0, 1, 0, 0, 0x12, 0x34];
            extended(shot, protocol::FRAGMENT, &header)
        }),
        damaged("inner version 4 behind type IPv6", Family::V6, |packet| {
            packet[0] = 0x45;
        }),
        from(
            "IPv6 source of the receiver's own subnet",
            Family::V6,
            |shot| nearby(shot.inner.destination, 200),
        ),
        from("IPv6 source of another peer's subnet", Family::V6, |shot| {
            let IpAddr::V6(to) = shot.inner.destination else {
                return shot.inner.source;
            };
            let [a, b, c, d, ..] = to.segments();
            Ipv6Addr::new(a, b, c, 3 - d, 0, 0, 0, 10).into()
        }),
        from("IPv6 source of the peer's gateway", Family::V6, |shot| {
            nearby(shot.inner.source, 1)
        }),
        from("IPv6 source outside of the network", Family::V6, |_| {
            Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7).into()
        }),
        from("source ::", Family::V6, |_| Ipv6Addr::UNSPECIFIED.into()),
        from("source ::1", Family::V6, |_| Ipv6Addr::LOCALHOST.into()),
        from("source ff02::1", Family::V6, |_| {
            Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).into()
        }),
        from("source fe80::7", Family::V6, |_| {
            Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 7).into()
        }),
    ];
    cases.extend(ecn(Family::V6));
    cases
}

fn nearby(address: IpAddr, last: u16) -> IpAddr {
    let IpAddr::V6(address) = address else {
        return address;
    };
    let [a, b, c, d, ..] = address.segments();
    Ipv6Addr::new(a, b, c, d, 0, 0, 0, last).into()
}

/// A packet with an extension header before its datagram.
fn extended(shot: &Shot, kind: u8, header: &[u8]) -> Vec<u8> {
    let datagram = shot.inner_packet().split_off(40);
    let ip = Ip {
        protocol: kind,
        ..shot.inner
    };
    let packet = ip.around(&[header, &datagram].concat());
    shot.carrying(&shot.inner_frame_of(ethertype::IPV6, &packet))
}
