//! The tunnel's headers: those of IP belong to their family, UDP and VXLAN stand here.

use core::mem::offset_of;

use network_types::{eth::EthHdr, udp::UdpHdr, vxlan::VxlanHdr};
use overlay_common::{maps::Network, reasons::PassReason, wire::VXLAN_FLAGS};

use crate::{family::Family, headers::Headers};

/// Bytes of UDP and VXLAN.
pub(crate) const LEN: usize = UdpHdr::LEN + VxlanHdr::LEN;

const SOURCE_PORT: usize = offset_of!(UdpHdr, src);
const PORT: usize = offset_of!(UdpHdr, dst);
const LENGTH: usize = offset_of!(UdpHdr, len);
const CHECKSUM: usize = offset_of!(UdpHdr, check);
const FLAGS: usize = UdpHdr::LEN;
/// The second word of the VXLAN header: the VNI, then a reserved byte.
const VNI: usize = UdpHdr::LEN + offset_of!(VxlanHdr, vni);
const VNI_SHIFT: u32 = 8;

/// What a UDP packet on the underlay says, read as if it were VXLAN.
#[derive(Debug)]
pub(crate) struct Outer<F> {
    pub(crate) source: F,
    pub(crate) destination: F,
    /// DSCP and ECN.
    pub(crate) tos: u8,
    /// Bytes of the IP packet, as its header tells them.
    pub(crate) length: usize,
    /// The words of its header but the addresses, added up, unless a checksum makes up for them.
    pub(crate) unsummed: u64,
    /// What is in it.
    pub(crate) tunnel: Tunnel,
}

/// The headers of UDP and VXLAN.
#[derive(Debug)]
pub(crate) struct Tunnel {
    pub(crate) port_be: [u8; 2],
    length: u16,
    checksum: u16,
    flags: u32,
    vni_and_reserved: u32,
}

impl Tunnel {
    #[inline(always)]
    pub(crate) fn read(headers: &Headers<'_, LEN>) -> Self {
        Self {
            port_be: headers.read::<u16, PORT>().to_ne_bytes(),
            length: u16::from_be(headers.read::<u16, LENGTH>()),
            checksum: headers.read::<u16, CHECKSUM>(),
            flags: u32::from_be(headers.read::<u32, FLAGS>()),
            vni_and_reserved: u32::from_be(headers.read::<u32, VNI>()),
        }
    }

    /// The network that it claims to belong to.
    pub(crate) fn vni(&self) -> u32 {
        self.vni_and_reserved >> VNI_SHIFT
    }
}

impl<F: Family> Outer<F> {
    /// The network that it claims to belong to.
    pub(crate) fn vni(&self) -> u32 {
        self.tunnel.vni()
    }

    /// It is addressed to our tunnel end in this network.
    pub(crate) fn is_for(&self, network: &Network) -> bool {
        self.tunnel.port_be == network.port_be && self.destination == F::vtep(network)
    }

    /// RFC 7348 §5: the I flag is set, and nothing else; Linux drops other headers, too.
    pub(crate) fn is_valid_vxlan(&self) -> bool {
        self.tunnel.flags == VXLAN_FLAGS && self.tunnel.vni_and_reserved << (32 - VNI_SHIFT) == 0
    }

    /// A checksum of 0 says that there is none (RFC 768, RFC 6935).
    pub(crate) fn has_checksum(&self) -> bool {
        self.tunnel.checksum != 0
    }

    /// As it stands in the packet.
    pub(crate) fn checksum(&self) -> u16 {
        self.tunnel.checksum
    }

    /// Its length as its header and its pseudo header say it: a word as it stands in memory.
    pub(crate) fn datagram(&self) -> u64 {
        self.tunnel.length.to_be().into()
    }

    /// The lengths do not contradict each other, nor the `bytes` that arrived.
    pub(crate) fn is_whole(&self, bytes: usize) -> bool {
        let datagram = usize::from(self.tunnel.length);
        self.end() <= bytes
            && datagram + F::HEADER <= self.length
            && (datagram >= LEN || datagram == JUMBO)
    }

    /// Where the packet ends in its frame.
    pub(crate) fn end(&self) -> usize {
        EthHdr::LEN + self.length
    }

    /// The datagram is the whole packet; Linux would cut off what follows it.
    pub(crate) fn must_fill_its_packet(&self) -> Result<(), PassReason> {
        if usize::from(self.tunnel.length) + F::HEADER != self.length {
            return Err(PassReason::Malformed);
        }
        Ok(())
    }
}

/// RFC 2675 §4: what a UDP header says of a datagram that is longer than it can say.
const JUMBO: usize = 0;

/// Where the UDP checksum of a tunnel over `F` stands.
#[expect(clippy::cast_possible_truncation, reason = "three headers are short")]
pub(crate) const fn checksum_place<F: Family>() -> u32 {
    (EthHdr::LEN + F::HEADER + CHECKSUM) as u32
}

/// What differs from packet to packet between the same two nodes.
pub(crate) struct Flow {
    /// Length of the UDP datagram.
    pub(crate) length: u16,
    /// DSCP and ECN of the outer header.
    pub(crate) tos: u8,
    /// UDP source port.
    pub(crate) source_port: u16,
}

impl Flow {
    /// Length of the datagram around an inner frame of so many bytes, if there can be one
    /// over this family.
    pub(crate) fn length_around<F: Family>(frame: usize) -> Option<u16> {
        let length = LEN + frame;
        // IPv4's length field counts its header; IPv6's does not, but nothing is lost by that.
        u16::try_from(F::HEADER + length).ok()?;
        u16::try_from(length).ok()
    }
}

/// Writes the headers of UDP and VXLAN.
#[inline(always)]
pub(crate) fn write(headers: &mut Headers<'_, LEN>, network: &Network, flow: &Flow) {
    headers.write::<u16, SOURCE_PORT>(flow.source_port.to_be());
    headers.write::<u16, PORT>(u16::from_ne_bytes(network.port_be));
    // Behind the length comes a checksum of 0, none: what it would protect has its own.
    headers.write::<u32, LENGTH>((u32::from(flow.length) << 16).to_be());
    headers.write::<u32, FLAGS>(VXLAN_FLAGS.to_be());
    headers.write::<u32, VNI>((network.vni << VNI_SHIFT).to_be());
}
