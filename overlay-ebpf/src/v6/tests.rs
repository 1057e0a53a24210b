//! Bytes of IPv6 headers, read and written.

use bytemuck::Zeroable as _;
use overlay_common::{
    maps::{Network, Peer},
    reasons::PassReason,
};
use proptest::prelude::*;

use super::{INNER, LEN, read, read_outer, write_forwarded, write_outer};
use crate::{
    addresses::{Ip6, Mac},
    frame::{Ethernet, Frame},
    headers::Headers,
    outer::Flow,
};

const NODE: [u8; 16] = [0xfd, 0, 0, 0x56, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 11];
const PEER: [u8; 16] = [0xfd, 0, 0, 0x56, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 12];

/// An ICMP echo from the one to the other, traffic class b9, flow label 12345.
fn plain() -> [u8; LEN] {
    let mut bytes = [0; LEN];
    bytes[12..22].copy_from_slice(&[0x86, 0xdd, 0x6b, 0x91, 0x23, 0x45, 0, 64, 58, 64]);
    bytes[22..38].copy_from_slice(&NODE);
    bytes[38..].copy_from_slice(&PEER);
    bytes
}

fn frame(mut bytes: [u8; LEN]) -> Option<Frame<Ip6>> {
    let ethernet = Ethernet {
        destination: Mac::from([0x02, 0, 0, 0, 1, 1]),
        source: Mac::from([0x02, 0, 0, 0, 17, 17]),
        kind: 0x86dd_u16.to_be(),
    };
    read(&Headers::over(&mut bytes), ethernet)
}

fn changed(place: usize, value: u8) -> [u8; LEN] {
    let mut bytes = plain();
    bytes[place] = value;
    bytes
}

#[test]
fn the_fields_are_read_from_their_places() {
    let frame = frame(plain()).unwrap();
    assert_eq!(frame.source.octets(), NODE);
    assert_eq!(frame.destination.octets(), PEER);
    assert_eq!(frame.protocol, 58);
    assert_eq!(frame.tos, 0xb9);
    assert_eq!(frame.ttl, 64);
    assert_eq!(frame.length, 104);
    assert_eq!(frame.must_be_unicast(), Ok(()));
    assert_eq!(frame.must_be_plain(), Ok(()));
    assert!(frame.is_whole(0, 118));
    assert!(!frame.is_whole(0, 117));
}

#[test]
fn what_is_not_plain_ipv6_is_named() {
    assert!(frame(changed(14, 0x45)).is_none());
    for next_header in 0..=255 {
        let expected = match next_header {
            44 => Err(PassReason::Fragment),
            0 | 43 | 51 | 60 | 135 | 139 | 140 => Err(PassReason::IpOptions),
            _ => Ok(()),
        };
        let frame = frame(changed(20, next_header)).unwrap();
        assert_eq!(frame.must_be_plain(), expected, "next header {next_header}");
    }
    let frame = frame(changed(38, 0xff)).unwrap();
    assert_eq!(frame.must_be_unicast(), Err(PassReason::NotUnicast));
}

#[test]
fn the_last_hop_is_not_taken() {
    for (limit, lives) in [(0, false), (1, false), (2, true), (255, true)] {
        let frame = frame(changed(21, limit)).unwrap();
        let expected = (!lives).then_some(PassReason::TtlExpired);
        assert_eq!(frame.forwarded(frame.tos).err(), expected, "limit {limit}");
    }
}

fn network() -> Network {
    Network {
        vni: 0x0012_3456,
        vtep6: NODE,
        port_be: 4789_u16.to_be_bytes(),
        ..Network::zeroed()
    }
}

fn written(flow: &Flow) -> [u8; INNER] {
    let peer = Peer {
        vtep: PEER,
        ..Peer::zeroed()
    };
    let mut bytes = [0xaa; INNER];
    write_outer(&mut Headers::over(&mut bytes), &network(), &peer, flow);
    bytes
}

#[test]
fn every_byte_of_the_tunnel_stands_where_the_rfc_wants_it() {
    let flow = Flow {
        length: Flow::length_around::<Ip6>(98).unwrap(),
        tos: 0xba,
        source_port: 50_000,
    };
    let bytes = written(&flow);
    assert_eq!(
        bytes[..12],
        [0xaa; 12],
        "outer MACs are the kernel's to fill"
    );
    let expected = [
        &[0x86, 0xdd, 0x6b, 0xa0, 0, 0, 0, 114, 17, 64][..],
        &NODE,
        &PEER,
        &[0xc3, 0x50, 0x12, 0xb5, 0, 114, 0, 0],
        &[0x08, 0, 0, 0, 0x12, 0x34, 0x56, 0],
    ]
    .concat();
    assert_eq!(bytes[12..], expected);
}

proptest! {
    #[test]
    fn a_forwarded_header_changes_only_hop_limit_and_class(
        header: [u8; 40],
        limit in 2_u8..,
        tos: u8,
    ) {
        let mut bytes = plain();
        bytes[14..].copy_from_slice(&header);
        bytes[14] = 0x60 | header[0] & 0x0f;
        bytes[21] = limit;

        let mut forwarded = bytes;
        let hop = frame(bytes).unwrap().forwarded(tos).unwrap();
        write_forwarded(&mut Headers::over(&mut forwarded), &hop);

        prop_assert_eq!(forwarded[21], limit - 1);
        prop_assert_eq!(frame(forwarded).unwrap().tos, tos);
        prop_assert_eq!(forwarded[14] >> 4, 6);
        prop_assert_eq!(forwarded[15] & 0x0f, bytes[15] & 0x0f);
        forwarded[14..16].copy_from_slice(&bytes[14..16]);
        forwarded[21] = limit;
        prop_assert_eq!(forwarded, bytes);
    }

    #[test]
    fn what_one_end_writes_the_other_reads(frame in 0_usize..65_400, tos: u8) {
        let length = Flow::length_around::<Ip6>(frame).unwrap();
        let mut bytes = written(&Flow { length, tos, source_port: 50_000 });
        let outer = read_outer(&mut Headers::over(&mut bytes)).unwrap();
        let receiver = Network { vtep6: PEER, ..network() };
        prop_assert_eq!(outer.vni(), receiver.vni);
        prop_assert_eq!(outer.source, Ip6::from(NODE));
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
            prop_assert_eq!(bytes[14] >> 4, 6);
            prop_assert_eq!(outer.vni() >> 24, 0);
            prop_assert!(!outer.is_whole(0));
        }
    }
}
