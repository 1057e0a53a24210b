//! Frames byte by byte, put together without the code under test.

use std::net::IpAddr;

/// An Ethernet address.
pub(crate) type Mac = [u8; 6];

pub(crate) const IPV4: u16 = 0x0800;
pub(crate) const IPV6: u16 = 0x86dd;
pub(crate) const ARP: u16 = 0x0806;
pub(crate) const VLAN: u16 = 0x8100;
pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMPV6: u8 = 58;
pub(crate) const BROADCAST: Mac = [0xff; 6];
pub(crate) const MORE_FRAGMENTS: u16 = 0x2000;

/// An Ethernet frame of some type.
pub(crate) fn ethernet(destination: Mac, source: Mac, kind: u16, payload: &[u8]) -> Vec<u8> {
    [&destination[..], &source, &kind.to_be_bytes(), payload].concat()
}

/// The parts of an IP header that tests vary; the addresses tell its family.
#[derive(Clone, Copy)]
pub(crate) struct Ip {
    /// TOS or traffic class.
    pub(crate) tos: u8,
    /// Identification, or flow label.
    pub(crate) id: u16,
    /// Of IPv4 alone.
    pub(crate) flags_and_offset: u16,
    /// TTL or hop limit.
    pub(crate) ttl: u8,
    pub(crate) protocol: u8,
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
}

impl Ip {
    /// Its Ethernet type.
    pub(crate) fn kind(&self) -> u16 {
        match self.source {
            IpAddr::V4(_) => IPV4,
            IpAddr::V6(_) => IPV6,
        }
    }

    /// Bytes of the header.
    pub(crate) fn header(&self) -> usize {
        header_of(self.source)
    }

    /// A packet with this header, its length and checksum right.
    pub(crate) fn around(self, payload: &[u8]) -> Vec<u8> {
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let length = u16::try_from(20 + payload.len()).unwrap();
                let mut header = [0; 20];
                header[0] = 0x45;
                header[1] = self.tos;
                header[2..4].copy_from_slice(&length.to_be_bytes());
                header[4..6].copy_from_slice(&self.id.to_be_bytes());
                header[6..8].copy_from_slice(&self.flags_and_offset.to_be_bytes());
                header[8] = self.ttl;
                header[9] = self.protocol;
                header[12..16].copy_from_slice(&source.octets());
                header[16..].copy_from_slice(&destination.octets());
                let checksum = checksum(&header);
                header[10..12].copy_from_slice(&checksum.to_be_bytes());
                [&header[..], payload].concat()
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let length = u16::try_from(payload.len()).unwrap();
                let first = 6 << 28 | u32::from(self.tos) << 20 | u32::from(self.id);
                let mut header = [0; 40];
                header[..4].copy_from_slice(&first.to_be_bytes());
                header[4..6].copy_from_slice(&length.to_be_bytes());
                header[6] = self.protocol;
                header[7] = self.ttl;
                header[8..24].copy_from_slice(&source.octets());
                header[24..].copy_from_slice(&destination.octets());
                [&header[..], payload].concat()
            }
            _ => panic!("two families in one header"),
        }
    }

    /// A UDP datagram in this packet, with the checksum that it should have.
    pub(crate) fn right_checksum(&self, datagram: &[u8]) -> u16 {
        let octets = |address| match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        let length = u32::try_from(datagram.len()).unwrap();
        let mut bytes = [octets(self.source), octets(self.destination)].concat();
        bytes.extend(length.to_be_bytes());
        bytes.extend([0, 0, 0, self.protocol]);
        bytes.extend(&datagram[..6]);
        bytes.extend([0, 0]);
        bytes.extend(&datagram[8..]);
        if bytes.len() % 2 == 1 {
            bytes.push(0);
        }
        match checksum(&bytes) {
            0 => 0xffff,
            sum => sum,
        }
    }
}

/// Bytes of an IP header with an address of this family.
pub(crate) fn header_of(address: IpAddr) -> usize {
    if address.is_ipv4() { 20 } else { 40 }
}

/// The Internet checksum, as the definition has it (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks_exact(2)
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
        .sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !u16::try_from(sum).unwrap()
}

/// A UDP datagram with a given checksum field.
pub(crate) fn udp(source: u16, destination: u16, checksum: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap();
    [source, destination, length, checksum]
        .iter()
        .flat_map(|field| field.to_be_bytes())
        .chain(payload.iter().copied())
        .collect()
}

/// A VXLAN header with any flags and VNI, reserved byte 0.
pub(crate) fn vxlan(flags: u32, vni: u32, frame: &[u8]) -> Vec<u8> {
    [&flags.to_be_bytes()[..], &(vni << 8).to_be_bytes(), frame].concat()
}
