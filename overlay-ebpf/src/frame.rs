//! What a container or a node sent: an Ethernet frame with IPv4 in it.

use core::mem::offset_of;

use network_types::{
    eth::{EthHdr, EtherType},
    ip::Ipv4Hdr,
};
use overlay_common::reasons::PassReason;

use crate::{
    addresses::{Ip, Mac},
    checksum,
    headers::Headers,
};

/// The headers that are read: Ethernet and IPv4 without options.
pub(crate) const LEN: usize = EthHdr::LEN + Ipv4Hdr::LEN;

pub(crate) const DESTINATION_MAC: usize = offset_of!(EthHdr, dst_addr);
pub(crate) const SOURCE_MAC: usize = offset_of!(EthHdr, src_addr);
pub(crate) const ETHER_TYPE: usize = offset_of!(EthHdr, ether_type);
/// The second part of a MAC, see [`Mac::tail`].
pub(crate) const TAIL: usize = 4;
pub(crate) const VERSION_AND_LENGTH: usize = EthHdr::LEN + offset_of!(Ipv4Hdr, vihl);
pub(crate) const TOS: usize = EthHdr::LEN + offset_of!(Ipv4Hdr, tos);
pub(crate) const TOTAL_LENGTH: usize = EthHdr::LEN + offset_of!(Ipv4Hdr, tot_len);
pub(crate) const FRAGMENT: usize = EthHdr::LEN + offset_of!(Ipv4Hdr, frags);
pub(crate) const TTL: usize = EthHdr::LEN + offset_of!(Ipv4Hdr, ttl);
pub(crate) const PROTOCOL: usize = EthHdr::LEN + offset_of!(Ipv4Hdr, proto);
pub(crate) const CHECKSUM: usize = EthHdr::LEN + offset_of!(Ipv4Hdr, check);
pub(crate) const SOURCE: usize = EthHdr::LEN + offset_of!(Ipv4Hdr, src_addr);
pub(crate) const DESTINATION: usize = EthHdr::LEN + offset_of!(Ipv4Hdr, dst_addr);

/// Version 4, header of five words.
pub(crate) const PLAIN_IPV4: u8 = 0x45;
/// "More fragments" and the offset; "don't fragment" is no matter here.
pub(crate) const IS_FRAGMENT: u16 = 0x3fff;

/// Values, not places: they outlive a change of the packet's size.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) destination_mac: Mac,
    pub(crate) source_mac: Mac,
    version_and_length: u8,
    tos: u8,
    total_length: u16,
    fragment: u16,
    ttl: u8,
    pub(crate) protocol: u8,
    checksum: u16,
    pub(crate) source: Ip,
    pub(crate) destination: Ip,
}

impl Frame {
    /// Reads the headers; anything but IPv4 is the kernel's.
    pub(crate) fn read(headers: &Headers<'_, LEN>) -> Result<Self, PassReason> {
        if headers.read::<u16, ETHER_TYPE>() != EtherType::Ipv4 as u16 {
            return Err(PassReason::NotIp);
        }
        let version_and_length = headers.read::<u8, VERSION_AND_LENGTH>();
        if version_and_length < PLAIN_IPV4 || version_and_length >> 4 != 4 {
            return Err(PassReason::Malformed);
        }
        Ok(Self {
            destination_mac: headers.read_mac::<DESTINATION_MAC, { DESTINATION_MAC + TAIL }>(),
            source_mac: headers.read_mac::<SOURCE_MAC, { SOURCE_MAC + TAIL }>(),
            version_and_length,
            tos: headers.read::<u8, TOS>(),
            total_length: u16::from_be(headers.read::<u16, TOTAL_LENGTH>()),
            fragment: u16::from_be(headers.read::<u16, FRAGMENT>()),
            ttl: headers.read::<u8, TTL>(),
            protocol: headers.read::<u8, PROTOCOL>(),
            checksum: headers.read::<u16, CHECKSUM>(),
            source: Ip(headers.read::<u32, SOURCE>()),
            destination: Ip(headers.read::<u32, DESTINATION>()),
        })
    }

    /// One receiver, by MAC and by address.
    pub(crate) fn must_be_unicast(&self) -> Result<(), PassReason> {
        if self.destination_mac.is_for_many() || self.destination.is_for_many() {
            return Err(PassReason::NotUnicast);
        }
        Ok(())
    }

    /// Neither options nor fragments, and no longer than the `bytes` that arrived.
    pub(crate) fn must_be_plain(&self, bytes: usize) -> Result<(), PassReason> {
        if self.version_and_length != PLAIN_IPV4 {
            return Err(PassReason::IpOptions);
        }
        if self.fragment & IS_FRAGMENT != 0 {
            return Err(PassReason::Fragment);
        }
        let length = usize::from(self.total_length);
        if length < Ipv4Hdr::LEN || length + EthHdr::LEN > bytes {
            return Err(PassReason::Malformed);
        }
        Ok(())
    }

    /// The byte with DSCP and ECN.
    pub(crate) fn tos(&self) -> u8 {
        self.tos
    }

    /// What the next router must see: one less TTL, if any is left.
    pub(crate) fn forwarded(&self) -> Result<Forwarded, PassReason> {
        if self.ttl <= 1 {
            return Err(PassReason::TtlExpired);
        }
        let ttl = self.ttl - 1;
        let word = |ttl| u16::from_ne_bytes([ttl, self.protocol]);
        Ok(Forwarded {
            tos: self.tos,
            ttl,
            checksum: checksum::replace(self.checksum, word(self.ttl), word(ttl)),
        })
    }
}

/// The fields of an IPv4 header that change on its way.
#[derive(Debug)]
pub(crate) struct Forwarded {
    tos: u8,
    ttl: u8,
    checksum: u16,
}

impl Forwarded {
    /// The same with another TOS byte.
    pub(crate) fn marked(self, tos: u8) -> Self {
        if tos == self.tos {
            return self;
        }
        let word = |tos| u16::from_ne_bytes([PLAIN_IPV4, tos]);
        Self {
            tos,
            checksum: checksum::replace(self.checksum, word(self.tos), word(tos)),
            ..self
        }
    }

    /// Puts them into the header that they were computed for.
    pub(crate) fn write(&self, headers: &mut Headers<'_, LEN>) {
        headers.write::<u8, TOS>(self.tos);
        headers.write::<u8, TTL>(self.ttl);
        headers.write::<u16, CHECKSUM>(self.checksum);
    }
}

/// Addresses a frame to a neighbour.
#[inline(always)]
pub(crate) fn write_macs(headers: &mut Headers<'_, LEN>, destination: Mac, source: Mac) {
    headers.write::<u32, DESTINATION_MAC>(destination.head);
    headers.write::<u16, { DESTINATION_MAC + TAIL }>(destination.tail);
    headers.write::<u32, SOURCE_MAC>(source.head);
    headers.write::<u16, { SOURCE_MAC + TAIL }>(source.tail);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Frame, LEN, write_macs};
    use crate::{addresses::Mac, checksum, headers::Headers};
    use overlay_common::reasons::PassReason;

    /// An ICMP echo from 10.244.1.11 to 10.244.2.11.
    const PLAIN: [u8; LEN] = [
        0x02, 0, 0, 0, 1, 1, 0x02, 0, 0, 0, 17, 17, 0x08, 0x00, 0x45, 0xb9, 0, 84, 0, 1, 0x40, 0,
        64, 1, 0x22, 0xc6, 10, 244, 1, 11, 10, 244, 2, 11,
    ];

    fn read(mut bytes: [u8; LEN]) -> Result<Frame, PassReason> {
        Frame::read(&Headers::over(&mut bytes))
    }

    fn changed(place: usize, value: u8) -> [u8; LEN] {
        let mut bytes = PLAIN;
        bytes[place] = value;
        bytes
    }

    fn sum(bytes: &[u8; LEN]) -> u16 {
        let words = bytes[14..].chunks_exact(4);
        checksum::finish(
            words
                .map(|word| u64::from(u32::from_ne_bytes(word.try_into().unwrap())))
                .sum(),
        )
    }

    #[test]
    fn the_fields_are_read_from_their_places() {
        let frame = read(PLAIN).unwrap();
        assert_eq!(frame.destination_mac, Mac::from([0x02, 0, 0, 0, 1, 1]));
        assert_eq!(frame.source_mac, Mac::from([0x02, 0, 0, 0, 17, 17]));
        assert_eq!(frame.source.octets(), [10, 244, 1, 11]);
        assert_eq!(frame.destination.octets(), [10, 244, 2, 11]);
        assert_eq!(frame.protocol, 1);
        assert_eq!(frame.tos(), 0xb9);
        assert_eq!(frame.must_be_unicast(), Ok(()));
        assert_eq!(frame.must_be_plain(98), Ok(()));
        assert_eq!(frame.must_be_plain(97), Err(PassReason::Malformed));
    }

    #[test]
    fn what_is_not_plain_ipv4_is_named() {
        for (place, value, reason) in [
            (12, 0x86, PassReason::NotIp),
            (14, 0x65, PassReason::Malformed),
            (14, 0x44, PassReason::Malformed),
        ] {
            assert_eq!(read(changed(place, value)).err(), Some(reason));
        }
        for (place, value, reason) in [
            (14, 0x46, PassReason::IpOptions),
            (14, 0x4f, PassReason::IpOptions),
            (20, 0x20, PassReason::Fragment),
            (20, 0x10, PassReason::Fragment),
            (21, 0x01, PassReason::Fragment),
            (17, 19, PassReason::Malformed),
        ] {
            let frame = read(changed(place, value)).unwrap();
            assert_eq!(frame.must_be_plain(98), Err(reason), "byte {place}");
        }
        for (place, value) in [(0, 0x03), (0, 0xff), (30, 224), (30, 239)] {
            let frame = read(changed(place, value)).unwrap();
            assert_eq!(frame.must_be_unicast(), Err(PassReason::NotUnicast));
        }
    }

    #[test]
    fn the_last_hop_is_not_taken() {
        for (ttl, lives) in [(0, false), (1, false), (2, true), (255, true)] {
            let frame = read(changed(22, ttl)).unwrap();
            let expected = (!lives).then_some(PassReason::TtlExpired);
            assert_eq!(frame.forwarded().err(), expected, "TTL {ttl}");
        }
    }

    #[test]
    fn macs_are_written_in_order() {
        let mut bytes = PLAIN;
        write_macs(
            &mut Headers::over(&mut bytes),
            Mac::from([1, 2, 3, 4, 5, 6]),
            Mac::from([7, 8, 9, 10, 11, 12]),
        );
        assert_eq!(bytes[..12], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
        assert_eq!(bytes[12..], PLAIN[12..]);
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
            let frame = read(bytes).unwrap();
            frame
                .forwarded()
                .unwrap()
                .marked(tos)
                .write(&mut Headers::over(&mut forwarded));

            prop_assert_eq!(sum(&forwarded), 0);
            prop_assert_eq!(forwarded[22], ttl - 1);
            prop_assert_eq!(forwarded[15], tos);
            for place in [15, 22, 24, 25] {
                forwarded[place] = bytes[place];
            }
            prop_assert_eq!(forwarded, bytes);
        }
    }
}
