//! What a container or a node sent: an Ethernet frame with IP in it.

use core::mem::offset_of;

use network_types::eth::EthHdr;
use overlay_common::reasons::PassReason;

use crate::{
    addresses::Mac, checksum, family::Family, headers::Headers, packet::Packet, received::Received,
};

pub(crate) const DESTINATION_MAC: usize = offset_of!(EthHdr, dst_addr);
pub(crate) const SOURCE_MAC: usize = offset_of!(EthHdr, src_addr);
pub(crate) const ETHER_TYPE: usize = offset_of!(EthHdr, ether_type);
/// The second part of a MAC, see [`Mac::tail`].
const TAIL: usize = 4;

/// An Ethernet header. Values, not places: they outlive a change of the packet's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ethernet {
    pub(crate) destination: Mac,
    pub(crate) source: Mac,
    /// The type, as it stands in a packet.
    pub(crate) kind: u16,
}

impl Ethernet {
    /// The header of the frame at `offset`.
    #[inline(always)]
    pub(crate) fn of(packet: &mut impl Received, offset: usize) -> Option<Self> {
        packet
            .headers::<{ EthHdr::LEN }>(offset)
            .map(|headers| Self::read(&headers))
    }

    #[inline(always)]
    fn read(headers: &Headers<'_, { EthHdr::LEN }>) -> Self {
        Self {
            destination: Mac {
                head: headers.read::<u32, DESTINATION_MAC>(),
                tail: headers.read::<u16, { DESTINATION_MAC + TAIL }>(),
            },
            source: Mac {
                head: headers.read::<u32, SOURCE_MAC>(),
                tail: headers.read::<u16, { SOURCE_MAC + TAIL }>(),
            },
            kind: headers.read::<u16, ETHER_TYPE>(),
        }
    }

    /// Puts it before a packet.
    #[inline(always)]
    pub(crate) fn write(&self, headers: &mut Headers<'_, { EthHdr::LEN }>) {
        Self::readdress(headers, self.destination, self.source);
        headers.write::<u16, ETHER_TYPE>(self.kind);
    }

    /// Changes the addresses alone.
    #[inline(always)]
    pub(crate) fn readdress(
        headers: &mut Headers<'_, { EthHdr::LEN }>,
        destination: Mac,
        source: Mac,
    ) {
        headers.write::<u32, DESTINATION_MAC>(destination.head);
        headers.write::<u16, { DESTINATION_MAC + TAIL }>(destination.tail);
        headers.write::<u32, SOURCE_MAC>(source.head);
        headers.write::<u16, { SOURCE_MAC + TAIL }>(source.tail);
    }
}

/// An Ethernet frame with a packet of one family of IP.
#[derive(Debug)]
pub(crate) struct Frame<F> {
    pub(crate) ethernet: Ethernet,
    pub(crate) source: F,
    pub(crate) destination: F,
    /// DSCP and ECN: IPv4's TOS, IPv6's traffic class.
    pub(crate) tos: u8,
    /// TTL or hop limit.
    pub(crate) ttl: u8,
    /// What follows the header.
    pub(crate) protocol: u8,
    /// Bytes of the IP packet, as its header tells them; fewer than a header has, and it lies.
    pub(crate) length: usize,
    /// Checksum of the header; 0 where there is none.
    pub(crate) checksum: u16,
    /// Fields of the family's own that tell whether it is plain, see [`Family::oddity`]. As
    /// they stand there: from a judgement made here, the verifier would go each way twice.
    pub(crate) shape: u32,
}

impl<F: Family> Frame<F> {
    /// One receiver, by MAC and by address.
    pub(crate) fn must_be_unicast(&self) -> Result<(), PassReason> {
        if self.ethernet.destination.is_for_many() || self.destination.is_for_many() {
            return Err(PassReason::NotUnicast);
        }
        Ok(())
    }

    /// Neither options nor fragments.
    pub(crate) fn must_be_plain(&self) -> Result<(), PassReason> {
        F::oddity(self.shape).map_or(Ok(()), Err)
    }

    /// It ends within so many bytes, of which the frame that arrived begins at `offset`.
    pub(crate) fn is_whole(&self, offset: usize, bytes: usize) -> bool {
        self.length >= F::HEADER && offset + self.end() <= bytes
    }

    /// Where the packet ends in the frame: what is behind is padding.
    pub(crate) fn end(&self) -> usize {
        EthHdr::LEN + self.length
    }

    /// What the next router must see: one less TTL, if any is left, and another TOS.
    pub(crate) fn forwarded(&self, tos: u8) -> Result<Forwarded, PassReason> {
        if self.ttl <= 1 {
            return Err(PassReason::TtlExpired);
        }
        let ttl = self.ttl - 1;
        Ok(Forwarded {
            tos,
            ttl,
            checksum: F::checksum(self, tos, ttl),
        })
    }
}

/// The fields of an IP header that change on its way.
#[derive(Debug)]
pub(crate) struct Forwarded {
    pub(crate) tos: u8,
    pub(crate) ttl: u8,
    /// Checksum of the header with the other fields; 0 where there is none.
    pub(crate) checksum: u16,
}

impl Forwarded {
    /// Writes the packet for its next receiver on this machine: where a device has added up all words
    /// (`CHECKSUM_COMPLETE`), the kernel compares them with that sum at the end.
    #[inline(always)]
    pub(crate) fn write<F: Family>(&self, packet: &mut Packet, ethernet: &Ethernet) -> Option<()> {
        let before = F::routed_words(packet);
        F::write(packet, 0, ethernet, Some(self))?;
        if let Some(before) = before {
            let after = F::routed_words(packet)?;
            packet.add_to_sum(checksum::difference(before, after));
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::Ethernet;
    use crate::{addresses::Mac, headers::Headers};

    #[test]
    fn a_header_is_written_as_it_is_read() {
        let mut bytes = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0x86, 0xdd];
        let ethernet = Ethernet::read(&Headers::over(&mut bytes));
        assert_eq!(ethernet.destination, Mac::from([1, 2, 3, 4, 5, 6]));
        assert_eq!(ethernet.source, Mac::from([7, 8, 9, 10, 11, 12]));
        assert_eq!(ethernet.kind.to_ne_bytes(), [0x86, 0xdd]);

        let mut copy = [0; 14];
        ethernet.write(&mut Headers::over(&mut copy));
        assert_eq!(copy, bytes);
    }
}
