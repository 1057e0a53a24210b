//! Frames put together byte by byte, without the code under test.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An Ethernet address.
pub type Mac = [u8; 6];

/// Ethernet types.
pub mod ethertype {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// ARP.
    pub const ARP: u16 = 0x0806;
    /// A VLAN tag (IEEE 802.1Q).
    pub const VLAN: u16 = 0x8100;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
    /// For experiments on a local network (IEEE 802, §9.2.3).
    pub const EXPERIMENT: u16 = 0x88b5;
}

/// Protocols above IP.
pub mod protocol {
    /// Hop-by-hop options of IPv6.
    pub const HOP_BY_HOP: u8 = 0;
    /// ICMP of IPv4.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// The fragment header of IPv6.
    pub const FRAGMENT: u8 = 44;
    /// Options of IPv6 for the destination.
    pub const DESTINATION: u8 = 60;
    /// ICMP of IPv6.
    pub const ICMPV6: u8 = 58;
}

/// An Ethernet frame of some type.
pub fn ethernet(destination: Mac, source: Mac, kind: u16, payload: &[u8]) -> Vec<u8> {
    [&destination[..], &source, &kind.to_be_bytes(), payload].concat()
}

/// The fields of an IP header that tests vary, for both families.
#[derive(Clone, Copy, Debug)]
pub struct Ip {
    /// Source.
    pub source: IpAddr,
    /// Destination, of the source's family.
    pub destination: IpAddr,
    /// DSCP and ECN: TOS, or traffic class.
    pub tos: u8,
    /// TTL, or hop limit.
    pub ttl: u8,
    /// The next header.
    pub protocol: u8,
    /// Identification; of IPv4 alone.
    pub id: u16,
    /// Of IPv4 alone.
    pub flags_and_offset: u16,
    /// The lower bits of the flow label; of IPv6 alone.
    pub label: u16,
}

impl Ip {
    /// A header as hosts send it, before UDP.
    pub const fn new(source: IpAddr, destination: IpAddr) -> Self {
        Self {
            source,
            destination,
            tos: 0,
            ttl: 64,
            protocol: protocol::UDP,
            id: 0x1234,
            flags_and_offset: 0,
            label: 0,
        }
    }

    /// Bytes of the header.
    pub const fn header(&self) -> usize {
        header_of(self.source)
    }

    /// The Ethernet type of its family.
    pub const fn ethertype(&self) -> u16 {
        match self.destination {
            IpAddr::V4(_) => ethertype::IPV4,
            IpAddr::V6(_) => ethertype::IPV6,
        }
    }

    /// A packet with this header, its length and checksum right.
    ///
    /// # Panics
    /// When the payload does not fit a packet.
    pub fn around(&self, payload: &[u8]) -> Vec<u8> {
        match (self.source, self.destination) {
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                self.version6(source, destination, payload)
            }
            (source, destination) => self.version4(octets4(source), octets4(destination), payload),
        }
    }

    fn version4(&self, source: [u8; 4], destination: [u8; 4], payload: &[u8]) -> Vec<u8> {
        let mut header = [0; 20];
        header[0] = 0x45;
        header[1] = self.tos;
        header[2..4].copy_from_slice(&length(20 + payload.len()));
        header[4..6].copy_from_slice(&self.id.to_be_bytes());
        header[6..8].copy_from_slice(&self.flags_and_offset.to_be_bytes());
        header[8] = self.ttl;
        header[9] = self.protocol;
        header[12..16].copy_from_slice(&source);
        header[16..].copy_from_slice(&destination);
        let sum = checksum(&header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        [&header[..], payload].concat()
    }

    fn version6(&self, source: Ipv6Addr, destination: Ipv6Addr, payload: &[u8]) -> Vec<u8> {
        let mut header = [0; 40];
        header[0] = 0x60 | self.tos >> 4;
        header[1] = self.tos << 4;
        header[2..4].copy_from_slice(&self.label.to_be_bytes());
        header[4..6].copy_from_slice(&length(payload.len()));
        header[6] = self.protocol;
        header[7] = self.ttl;
        header[8..24].copy_from_slice(&source.octets());
        header[24..].copy_from_slice(&destination.octets());
        [&header[..], payload].concat()
    }

    /// The UDP checksum of a datagram behind this header; never 0, which means none.
    pub fn udp_checksum(&self, datagram: &[u8]) -> u16 {
        let mut pseudo = Vec::new();
        match (self.source, self.destination) {
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                pseudo.extend(source.octets());
                pseudo.extend(destination.octets());
            }
            (source, destination) => {
                pseudo.extend(octets4(source));
                pseudo.extend(octets4(destination));
            }
        }
        pseudo.extend([0, protocol::UDP]);
        pseudo.extend(length(datagram.len()));
        pseudo.extend(&datagram[..6]);
        pseudo.extend(&datagram[8..]);
        match checksum(&pseudo) {
            0 => 0xffff,
            sum => sum,
        }
    }

    /// A packet with a datagram in it whose checksum is right.
    pub fn around_udp(&self, source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
        let sum = self.udp_checksum(&udp(source, destination, 0, payload));
        self.around(&udp(source, destination, sum, payload))
    }
}

/// Bytes of an IP header with an address of this family.
pub const fn header_of(address: IpAddr) -> usize {
    if address.is_ipv4() { 20 } else { 40 }
}

/// An IPv4 address; an IPv6 address has none.
fn octets4(address: IpAddr) -> [u8; 4] {
    match address {
        IpAddr::V4(address) => address.octets(),
        IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED.octets(),
    }
}

fn length(bytes: usize) -> [u8; 2] {
    u16::try_from(bytes).map_or([0xff; 2], u16::to_be_bytes)
}

/// The Internet checksum, as the definition has it (RFC 1071).
pub fn checksum(bytes: &[u8]) -> u16 {
    let word = |pair: &[u8]| {
        let low = pair.get(1).copied().unwrap_or(0);
        u32::from(u16::from_be_bytes([pair[0], low]))
    };
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    let [_, _, high, low] = sum.to_be_bytes();
    !u16::from_be_bytes([high, low])
}

/// A UDP datagram with a given checksum field.
pub fn udp(source: u16, destination: u16, checksum: u16, payload: &[u8]) -> Vec<u8> {
    [
        &source.to_be_bytes()[..],
        &destination.to_be_bytes(),
        &length(8 + payload.len()),
        &checksum.to_be_bytes(),
        payload,
    ]
    .concat()
}

/// A VXLAN header with any flags and last word (VNI and reserved byte).
pub fn vxlan(flags: u32, last: u32, frame: &[u8]) -> Vec<u8> {
    [&flags.to_be_bytes()[..], &last.to_be_bytes(), frame].concat()
}

#[cfg(test)]
mod tests {
    use super::{Ip, checksum};

    #[test]
    fn a_packet_with_its_checksum_adds_up() {
        let ip = Ip::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let packet = ip.around_udp(1, 2, b"odd");
        assert_eq!(checksum(&packet[..20]), 0);
        let mut pseudo = packet[12..20].to_vec();
        pseudo.extend([0, 17, 0, 11]);
        pseudo.extend(&packet[20..]);
        assert_eq!(checksum(&pseudo), 0);
    }
}
