//! The 50 bytes of the tunnel: IPv4, UDP, VXLAN, and the Ethernet header of the inner frame.

use core::mem::offset_of;

use network_types::{
    eth::{EthHdr, EtherType},
    ip::{IpProto, Ipv4Hdr},
    udp::UdpHdr,
    vxlan::VxlanHdr,
};
use overlay_common::{
    maps::{Network, Peer},
    reasons::PassReason,
    wire::{OUTER_TTL, OVERHEAD_V4, VXLAN_FLAGS},
};

use crate::{
    addresses::{Ip, Mac},
    checksum,
    frame::{
        self, CHECKSUM, DESTINATION, ETHER_TYPE, FRAGMENT, IS_FRAGMENT, PLAIN_IPV4, PROTOCOL,
        SOURCE, TOS, TOTAL_LENGTH, TTL, VERSION_AND_LENGTH,
    },
    headers::Headers,
};

/// Where the inner frame starts.
pub(crate) const INNER: usize = VXLAN + VxlanHdr::LEN;
/// An encapsulated packet as far as it is read: to the end of the inner IPv4 header.
pub(crate) const LEN: usize = INNER + frame::LEN;

const ID: usize = EthHdr::LEN + offset_of!(Ipv4Hdr, id);
const UDP: usize = EthHdr::LEN + Ipv4Hdr::LEN;
const SOURCE_PORT: usize = UDP + offset_of!(UdpHdr, src);
const PORT: usize = UDP + offset_of!(UdpHdr, dst);
const UDP_LENGTH: usize = UDP + offset_of!(UdpHdr, len);
const UDP_CHECKSUM: usize = UDP + offset_of!(UdpHdr, check);
const VXLAN: usize = UDP + UdpHdr::LEN;
/// The second word of the VXLAN header: the VNI, then a reserved byte.
const VNI: usize = VXLAN + offset_of!(VxlanHdr, vni);
const VNI_SHIFT: u32 = 8;

const _: () = assert!(INNER == OVERHEAD_V4 as usize);

/// What a UDP packet on the underlay says, read as if it were VXLAN.
pub(crate) struct Outer {
    pub(crate) source: Ip,
    pub(crate) destination: Ip,
    pub(crate) tos: u8,
    total_length: u16,
    port_be: [u8; 2],
    udp_length: u16,
    has_checksum: bool,
    flags: u32,
    vni_and_reserved: u32,
}

impl Outer {
    /// Reads the headers; anything but an unfragmented UDP packet is the kernel's.
    pub(crate) fn read(headers: &Headers<'_, INNER>) -> Result<Self, PassReason> {
        if headers.read::<u16, ETHER_TYPE>() != EtherType::Ipv4 as u16
            || headers.read::<u8, PROTOCOL>() != IpProto::Udp as u8
        {
            return Err(PassReason::NotOurs);
        }
        if headers.read::<u8, VERSION_AND_LENGTH>() != PLAIN_IPV4 {
            return Err(PassReason::IpOptions);
        }
        if u16::from_be(headers.read::<u16, FRAGMENT>()) & IS_FRAGMENT != 0 {
            return Err(PassReason::Fragment);
        }
        Ok(Self {
            source: Ip(headers.read::<u32, SOURCE>()),
            destination: Ip(headers.read::<u32, DESTINATION>()),
            tos: headers.read::<u8, TOS>(),
            total_length: u16::from_be(headers.read::<u16, TOTAL_LENGTH>()),
            port_be: headers.read::<u16, PORT>().to_ne_bytes(),
            udp_length: u16::from_be(headers.read::<u16, UDP_LENGTH>()),
            has_checksum: headers.read::<u16, UDP_CHECKSUM>() != 0,
            flags: u32::from_be(headers.read::<u32, VXLAN>()),
            vni_and_reserved: u32::from_be(headers.read::<u32, VNI>()),
        })
    }

    /// The network that it claims to belong to.
    pub(crate) fn vni(&self) -> u32 {
        self.vni_and_reserved >> VNI_SHIFT
    }

    /// It is addressed to our tunnel end in this network.
    pub(crate) fn is_for(&self, network: &Network) -> bool {
        self.port_be == network.port_be && self.destination == Ip::from(network.vtep)
    }

    /// RFC 7348 §5: the I flag is set, and nothing else; Linux drops other headers, too.
    pub(crate) fn is_valid_vxlan(&self) -> bool {
        self.flags == VXLAN_FLAGS && self.vni_and_reserved << (32 - VNI_SHIFT) == 0
    }

    /// A checksum of 0 says that there is none (RFC 768).
    pub(crate) fn has_checksum(&self) -> bool {
        self.has_checksum
    }

    /// The lengths agree with each other and with the `bytes` that arrived.
    pub(crate) fn must_be_whole(&self, bytes: usize) -> Result<(), PassReason> {
        let total = usize::from(self.total_length);
        if EthHdr::LEN + total > bytes || usize::from(self.udp_length) + Ipv4Hdr::LEN != total {
            return Err(PassReason::Malformed);
        }
        Ok(())
    }
}

/// What differs from packet to packet between the same two nodes.
pub(crate) struct Flow {
    /// Lengths in the outer headers.
    pub(crate) lengths: Lengths,
    /// TOS byte of the outer header.
    pub(crate) tos: u8,
    /// UDP source port.
    pub(crate) source_port: u16,
    /// Identification field: DF is not set, so a router may fragment.
    pub(crate) id: u16,
}

/// Length of the outer IP packet and of the UDP datagram in it.
pub(crate) struct Lengths {
    ip: u16,
    udp: u16,
}

impl Lengths {
    /// Those around an inner frame of so many bytes, if their fields can hold them.
    pub(crate) fn around(frame: usize) -> Option<Self> {
        let udp = UdpHdr::LEN + VxlanHdr::LEN + frame;
        Some(Self {
            ip: u16::try_from(Ipv4Hdr::LEN + udp).ok()?,
            udp: u16::try_from(udp).ok()?,
        })
    }
}

/// Writes the tunnel's headers after the outer Ethernet header, whose type is IPv4 already.
#[inline(always)]
pub(crate) fn write(headers: &mut Headers<'_, LEN>, network: &Network, peer: &Peer, flow: &Flow) {
    let source = Ip::from(network.vtep);
    let destination = Ip::unmapped(peer.vtep);
    let version_to_length = u32::from_be_bytes([PLAIN_IPV4, flow.tos, 0, 0]);
    let version_to_length = (version_to_length | u32::from(flow.lengths.ip)).to_be();
    let id_unfragmented = (u32::from(flow.id) << 16).to_be();
    let ttl_and_protocol = u16::from_ne_bytes([OUTER_TTL, IpProto::Udp as u8]);
    let checksum = checksum::finish(
        [
            version_to_length,
            id_unfragmented,
            u32::from(ttl_and_protocol),
            source.0,
            destination.0,
        ]
        .into_iter()
        .map(u64::from)
        .sum(),
    );
    headers.write::<u32, VERSION_AND_LENGTH>(version_to_length);
    headers.write::<u32, ID>(id_unfragmented);
    headers.write::<u16, TTL>(ttl_and_protocol);
    headers.write::<u16, CHECKSUM>(checksum);
    headers.write::<u32, SOURCE>(source.0);
    headers.write::<u32, DESTINATION>(destination.0);

    headers.write::<u16, SOURCE_PORT>(flow.source_port.to_be());
    headers.write::<u16, PORT>(u16::from_ne_bytes(network.port_be));
    // Behind the length comes a checksum of 0, none: what it would protect has its own.
    headers.write::<u32, UDP_LENGTH>((u32::from(flow.lengths.udp) << 16).to_be());

    headers.write::<u32, VXLAN>(VXLAN_FLAGS.to_be());
    headers.write::<u32, VNI>((network.vni << VNI_SHIFT).to_be());

    let mut inner = headers.part::<INNER, { frame::LEN }>();
    frame::write_macs(&mut inner, Mac::from(peer.mac), Mac::from(network.vtep_mac));
    inner.write::<u16, ETHER_TYPE>(EtherType::Ipv4 as u16);
}

#[cfg(test)]
mod tests {
    use super::{Flow, INNER, LEN, Lengths, Outer, write};
    use crate::{addresses::Ip, headers::Headers};
    use overlay_common::{
        maps::{Network, Peer, mapped},
        reasons::PassReason,
    };

    use bytemuck::Zeroable as _;

    fn network() -> Network {
        Network {
            vni: 0x0012_3456,
            vtep: [192, 168, 56, 11],
            subnet: [10, 244, 1, 0],
            subnet_mask: [255, 255, 255, 0],
            mtu: 1450,
            port_be: 4789_u16.to_be_bytes(),
            vtep_mac: [0x02, 0x4f, 192, 168, 56, 11],
            gateway_mac: [0x02, 0, 0, 0, 1, 1],
            ..Network::zeroed()
        }
    }

    fn written() -> [u8; LEN] {
        let peer = Peer {
            vtep: mapped([192, 168, 56, 12]),
            next_hop: mapped([192, 168, 56, 1]),
            underlay_ifindex: 2,
            index: 1,
            mac: [0x02, 0x4f, 192, 168, 56, 12],
            flags: 0,
        };
        let flow = Flow {
            lengths: Lengths::around(98).unwrap(),
            tos: 0b10,
            source_port: 50_000,
            id: 0xbeef,
        };
        let mut bytes = [0xaa; LEN];
        bytes[12..14].copy_from_slice(&[0x08, 0x00]);
        write(&mut Headers::over(&mut bytes), &network(), &peer, &flow);
        bytes
    }

    #[test]
    fn every_byte_of_the_tunnel_stands_where_the_rfc_wants_it() {
        let bytes = written();
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
            0x02, 0x4f, 192, 168, 56, 12, 0x02, 0x4f, 192, 168, 56, 11, 0x08, 0x00,
        ];
        assert_eq!(bytes[12..INNER + 14], expected);
        assert_eq!(
            bytes[INNER + 14..],
            [0xaa; 20],
            "the inner packet is not touched"
        );
    }

    #[test]
    fn what_is_written_is_read_as_ours_by_the_other_end() {
        let mut bytes = written();
        let mut headers = Headers::over(&mut bytes);
        let outer = Outer::read(&headers.part::<0, INNER>()).unwrap();
        let receiver = Network {
            vtep: [192, 168, 56, 12],
            ..network()
        };
        assert_eq!(outer.vni(), receiver.vni);
        assert_eq!(outer.source, Ip::from([192, 168, 56, 11]));
        assert!(outer.is_for(&receiver));
        assert!(!outer.is_for(&network()), "the sender is not the receiver");
        assert!(outer.is_valid_vxlan());
        assert!(!outer.has_checksum());
        assert_eq!(outer.must_be_whole(14 + 134), Ok(()));
        assert_eq!(outer.must_be_whole(14 + 133), Err(PassReason::Malformed));
    }

    #[test]
    fn every_reserved_bit_makes_the_header_invalid() {
        for bit in (0..32).chain(56..64) {
            let mut bytes = written();
            bytes[42 + bit / 8] ^= 0x80 >> (bit % 8);
            let mut headers = Headers::over(&mut bytes);
            let outer = Outer::read(&headers.part::<0, INNER>()).unwrap();
            assert!(!outer.is_valid_vxlan(), "bit {bit}");
        }
    }

    #[test]
    fn a_frame_that_overflows_the_length_field_has_no_lengths() {
        assert!(Lengths::around(65_535 - 36).is_some());
        assert!(Lengths::around(65_535 - 35).is_none());
    }
}
