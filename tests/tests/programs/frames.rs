//! Frames byte by byte, put together without the code under test.

/// An Ethernet address.
pub(crate) type Mac = [u8; 6];
/// An IPv4 address.
pub(crate) type Address = [u8; 4];

pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;

/// An Ethernet frame of some type.
pub(crate) fn ethernet(destination: Mac, source: Mac, kind: u16, payload: &[u8]) -> Vec<u8> {
    [&destination[..], &source, &kind.to_be_bytes(), payload].concat()
}

/// The parts of an IPv4 header that tests vary.
#[derive(Clone, Copy)]
pub(crate) struct Ipv4 {
    pub(crate) tos: u8,
    pub(crate) id: u16,
    pub(crate) flags_and_offset: u16,
    pub(crate) ttl: u8,
    pub(crate) protocol: u8,
    pub(crate) source: Address,
    pub(crate) destination: Address,
}

impl Ipv4 {
    /// A packet with this header, its length and checksum right.
    pub(crate) fn around(self, payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(20 + payload.len()).unwrap();
        let mut header = [0; 20];
        header[0] = 0x45;
        header[1] = self.tos;
        header[2..4].copy_from_slice(&length.to_be_bytes());
        header[4..6].copy_from_slice(&self.id.to_be_bytes());
        header[6..8].copy_from_slice(&self.flags_and_offset.to_be_bytes());
        header[8] = self.ttl;
        header[9] = self.protocol;
        header[12..16].copy_from_slice(&self.source);
        header[16..].copy_from_slice(&self.destination);
        let checksum = checksum(&header);
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
        [&header[..], payload].concat()
    }
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
