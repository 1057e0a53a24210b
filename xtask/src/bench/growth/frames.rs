//! Frames as containers and other nodes send them.

use std::net::Ipv4Addr;

use overlay_common::wire;

use crate::bench::load::datagrams::SIZE;

type Mac = [u8; 6];

/// The ends of a frame.
#[derive(Clone, Copy)]
pub(super) struct Ends {
    pub(super) source_mac: Mac,
    pub(super) destination_mac: Mac,
    pub(super) source: Ipv4Addr,
    pub(super) destination: Ipv4Addr,
}

/// A datagram of the usual size.
pub(super) fn datagram(ends: Ends, source_port: u16) -> Vec<u8> {
    ethernet(ends, &udp(source_port, 7007, &[0x5a; SIZE]))
}

/// A frame in VXLAN.
pub(super) fn tunnelled(outer: Ends, source_port: u16, vni: u32, inner: &[u8]) -> Vec<u8> {
    let header = [wire::VXLAN_FLAGS.to_be_bytes(), (vni << 8).to_be_bytes()];
    let payload = [header.as_flattened(), inner].concat();
    ethernet(outer, &udp(source_port, wire::IANA_PORT, &payload))
}

fn ethernet(ends: Ends, payload: &[u8]) -> Vec<u8> {
    let ipv4 = ipv4(ends, payload);
    [
        &ends.destination_mac[..],
        &ends.source_mac,
        &[0x08, 0x00],
        &ipv4,
        payload,
    ]
    .concat()
}

/// A header with TTL 64 and the checksum that belongs to it (RFC 791 §3.1).
fn ipv4(ends: Ends, payload: &[u8]) -> [u8; 20] {
    let mut header = [0; 20];
    header[0] = 0x45;
    header[2..4].copy_from_slice(&length(20 + payload.len()));
    header[8] = 64;
    header[9] = 17;
    header[12..16].copy_from_slice(&ends.source.octets());
    header[16..].copy_from_slice(&ends.destination.octets());
    let words = header.as_chunks::<2>().0;
    let sum: u32 = words
        .iter()
        .map(|&word| u32::from(u16::from_be_bytes(word)))
        .sum();
    // Ten words carry less than 16 bits over, so that two folds are enough.
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    let [_, _, high, low] = (!folded).to_be_bytes();
    header[10..12].copy_from_slice(&[high, low]);
    header
}

/// Without a checksum, which IPv4 allows.
fn udp(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    [
        &source.to_be_bytes()[..],
        &destination.to_be_bytes(),
        &length(8 + payload.len()),
        &[0, 0],
        payload,
    ]
    .concat()
}

/// A length in network order; all frames here are small.
fn length(bytes: usize) -> [u8; 2] {
    let [.., high, low] = bytes.to_be_bytes();
    [high, low]
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDS: Ends = Ends {
        source_mac: [2, 0, 0, 0, 0, 1],
        destination_mac: [2, 0, 0, 0, 0, 2],
        source: Ipv4Addr::new(192, 168, 0, 1),
        destination: Ipv4Addr::new(192, 168, 0, 199),
    };

    #[test]
    fn a_header_with_its_checksum_sums_to_all_ones() {
        let frame = datagram(ENDS, 40_000);
        let mut sum: u32 = frame[14..34]
            .chunks(2)
            .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
            .sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        assert_eq!(sum, 0xffff);
    }

    #[test]
    fn lengths_count_everything_below() {
        let inner = datagram(ENDS, 40_000);
        assert_eq!(inner.len(), 14 + 20 + 8 + SIZE);
        let outer = tunnelled(ENDS, 50_000, 1, &inner);
        assert_eq!(outer.len(), inner.len() + usize::from(wire::OVERHEAD_V4));
        let total = usize::from(u16::from_be_bytes([outer[16], outer[17]]));
        assert_eq!(total, outer.len() - 14);
        assert_eq!(outer[42..50], [8, 0, 0, 0, 0, 0, 1, 0], "flags and VNI");
    }
}
