//! Bytes of IPv4 headers, read and written.

use bytemuck::Zeroable as _;
use overlay_common::{
    maps::{Network, Peer, mapped},
    reasons::PassReason,
};
use proptest::prelude::*;

use super::{INNER, LEN, read, read_outer, write_forwarded, write_outer};
use crate::{
    addresses::{Ip4, Mac},
    checksum,
    frame::{Ethernet, Frame},
    headers::Headers,
    outer::Flow,
};

/// An ICMP echo from 10.244.1.11 to 10.244.2.11.
const PLAIN: [u8; LEN] = [
    0x02, 0, 0, 0, 1, 1, 0x02, 0, 0, 0, 17, 17, 0x08, 0x00, 0x45, 0xb9, 0, 84, 0, 1, 0x40, 0, 64,
    1, 0x22, 0xc6, 10, 244, 1, 11, 10, 244, 2, 11,
];

fn frame(mut bytes: [u8; LEN]) -> Option<Frame<Ip4>> {
    let ethernet = Ethernet {
        destination: Mac::from([0x02, 0, 0, 0, 1, 1]),
        source: Mac::from([0x02, 0, 0, 0, 17, 17]),
        kind: 0x0800_u16.to_be(),
    };
    read(&Headers::over(&mut bytes), ethernet)
}

fn changed(place: usize, value: u8) -> [u8; LEN] {
    let mut bytes = PLAIN;
    bytes[place] = value;
    bytes
}

fn sum(bytes: &[u8]) -> u16 {
    let words = bytes[14..34].chunks_exact(4);
    checksum::finish(
        words
            .map(|word| u64::from(u32::from_ne_bytes(word.try_into().unwrap())))
            .sum(),
    )
}

#[test]
fn the_fields_are_read_from_their_places() {
    let frame = frame(PLAIN).unwrap();
    assert_eq!(frame.source.octets(), [10, 244, 1, 11]);
    assert_eq!(frame.destination.octets(), [10, 244, 2, 11]);
    assert_eq!(frame.protocol, 1);
    assert_eq!(frame.tos, 0xb9);
    assert_eq!(frame.ttl, 64);
    assert_eq!(frame.length, 84);
    assert_eq!(frame.must_be_unicast(), Ok(()));
    assert_eq!(frame.must_be_plain(), Ok(()));
    assert!(frame.is_whole(0, 98));
    assert!(!frame.is_whole(0, 97));
}

#[test]
fn what_is_not_plain_ipv4_is_named() {
    for (place, value) in [(14, 0x65), (14, 0x44)] {
        assert!(frame(changed(place, value)).is_none());
    }
    for (place, value, reason) in [
        (14, 0x46, PassReason::IpOptions),
        (14, 0x4f, PassReason::IpOptions),
        (20, 0x20, PassReason::Fragment),
        (20, 0x10, PassReason::Fragment),
        (21, 0x01, PassReason::Fragment),
    ] {
        let frame = frame(changed(place, value)).unwrap();
        assert_eq!(frame.must_be_plain(), Err(reason), "byte {place}");
    }
    assert!(!frame(changed(17, 19)).unwrap().is_whole(0, 98));
    for (place, value) in [(30, 224), (30, 239)] {
        let frame = frame(changed(place, value)).unwrap();
        assert_eq!(frame.must_be_unicast(), Err(PassReason::NotUnicast));
    }
}

#[test]
fn the_last_hop_is_not_taken() {
    for (ttl, lives) in [(0, false), (1, false), (2, true), (255, true)] {
        let frame = frame(changed(22, ttl)).unwrap();
        let expected = (!lives).then_some(PassReason::TtlExpired);
        assert_eq!(frame.forwarded(frame.tos).err(), expected, "TTL {ttl}");
    }
}

fn network() -> Network {
    Network {
        vni: 0x0012_3456,
        vtep: [192, 168, 56, 11],
        port_be: 4789_u16.to_be_bytes(),
        ..Network::zeroed()
    }
}

fn peer() -> Peer {
    Peer {
        vtep: mapped([192, 168, 56, 12]),
        ..Peer::zeroed()
    }
}

fn written(flow: &Flow, id: u16) -> [u8; INNER] {
    let mut bytes = [0xaa; INNER];
    write_outer(
        &mut Headers::over(&mut bytes),
        &network(),
        &peer(),
        flow,
        id,
    );
    bytes
}

#[test]
fn every_byte_of_the_tunnel_stands_where_the_rfc_wants_it() {
    let flow = Flow {
        length: Flow::length_around::<Ip4>(98).unwrap(),
        tos: 0b10,
        source_port: 50_000,
    };
    let bytes = written(&flow, 0xbeef);
    assert_eq!(
        bytes[..12],
        [0xaa; 12],
        "outer MACs are the kernel's to fill"
    );
    #[rustfmt::skip]
    let expected = [
        0x08, 0x00,
        0x45, 0x02, 0, 134, 0xbe, 0xef, 0, 0, 64, 17, 0xca, 0x0d,
        192, 168, 56, 11, 192, 168, 56, 12,
        0xc3, 0x50, 0x12, 0xb5, 0, 114, 0, 0,
        0x08, 0, 0, 0, 0x12, 0x34, 0x56, 0,
    ];
    assert_eq!(bytes[12..], expected);
}

proptest! {
    #[test]
    fn a_forwarded_header_changes_only_ttl_tos_and_checksum_which_stays_right(
        header: [u8; 20],
        ttl in 2_u8..,
        tos: u8,
    ) {
        let mut bytes = PLAIN;
        bytes[14..].copy_from_slice(&header);
        bytes[14] = 0x45;
        bytes[22] = ttl;
        bytes[24..26].fill(0);
        let checksum = sum(&bytes);
        bytes[24..26].copy_from_slice(&checksum.to_ne_bytes());

        let mut forwarded = bytes;
        let hop = frame(bytes).unwrap().forwarded(tos).unwrap();
        write_forwarded(&mut Headers::over(&mut forwarded), &hop);

        prop_assert_eq!(sum(&forwarded), 0);
        prop_assert_eq!(forwarded[22], ttl - 1);
        prop_assert_eq!(forwarded[15], tos);
        for place in [15, 22, 24, 25] {
            forwarded[place] = bytes[place];
        }
        prop_assert_eq!(forwarded, bytes);
    }

    #[test]
    fn what_one_end_writes_the_other_reads(frame in 0_usize..65_400, tos: u8, id: u16) {
        let length = Flow::length_around::<Ip4>(frame).unwrap();
        let mut bytes = written(&Flow { length, tos, source_port: 50_000 }, id);
        prop_assert_eq!(sum(&bytes), 0);
        let outer = read_outer(&mut Headers::over(&mut bytes)).unwrap();
        let receiver = Network { vtep: [192, 168, 56, 12], ..network() };
        prop_assert_eq!(outer.vni(), receiver.vni);
        prop_assert_eq!(outer.source, Ip4::from([192, 168, 56, 11]));
        prop_assert_eq!(outer.tos, tos);
        prop_assert!(outer.is_for(&receiver));
        prop_assert!(!outer.is_for(&network()), "the sender is not the receiver");
        prop_assert!(outer.is_valid_vxlan());
        prop_assert!(!outer.has_checksum());
        prop_assert!(outer.is_whole(INNER + frame));
        prop_assert!(!outer.is_whole(INNER + frame - 1));
        prop_assert_eq!(outer.must_fill_its_packet(), Ok(()));
    }

    #[test]
    fn any_bytes_are_read_or_refused(mut bytes: [u8; INNER]) {
        if let Ok(outer) = read_outer(&mut Headers::over(&mut bytes)) {
            prop_assert_eq!(bytes[14], 0x45);
            prop_assert_eq!(outer.vni() >> 24, 0);
            prop_assert!(!outer.is_whole(0));
        }
    }
}

#[test]
fn a_frame_that_overflows_the_length_field_has_no_length() {
    assert!(Flow::length_around::<Ip4>(65_535 - 36).is_some());
    assert!(Flow::length_around::<Ip4>(65_535 - 35).is_none());
}
