//! Addresses as integers, in the byte order of the packet: compared in one instruction.

/// An IPv4 address or mask; its bytes stand in memory as they do in a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ip(pub(crate) u32);

impl Ip {
    /// The netmask of a prefix of `length` bits, 1 to 32.
    pub(crate) fn mask(length: u8) -> Self {
        Self((u32::MAX << (32 - u32::from(length) & 31)).to_be())
    }

    /// The address with the host bits of `mask` cleared.
    pub(crate) fn masked(self, mask: Self) -> Self {
        Self(self.0 & mask.0)
    }

    /// Multicast (224.0.0.0/4) or the limited broadcast address.
    pub(crate) fn is_for_many(self) -> bool {
        let address = u32::from_be(self.0);
        address >> 28 == 0b1110 || address == u32::MAX
    }

    /// The last four bytes of an IPv4 address in IPv6's form.
    pub(crate) fn unmapped(mapped: [u8; 16]) -> Self {
        let [.., a, b, c, d] = mapped;
        Self::from([a, b, c, d])
    }

    /// The four bytes, as map keys hold them.
    pub(crate) fn octets(self) -> [u8; 4] {
        self.0.to_ne_bytes()
    }
}

impl From<[u8; 4]> for Ip {
    fn from(octets: [u8; 4]) -> Self {
        Self(u32::from_ne_bytes(octets))
    }
}

/// An Ethernet address, split where a 32-bit load ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mac {
    /// Bytes 0 to 3.
    pub(crate) head: u32,
    /// Bytes 4 and 5.
    pub(crate) tail: u16,
}

impl Mac {
    /// The group bit: multicast or broadcast (IEEE 802.3 §3.2.3).
    pub(crate) fn is_for_many(self) -> bool {
        self.head.to_ne_bytes()[0] & 1 != 0
    }
}

impl From<[u8; 6]> for Mac {
    fn from(bytes: [u8; 6]) -> Self {
        let [head @ .., fifth, sixth] = bytes;
        Self {
            head: u32::from_ne_bytes(head),
            tail: u16::from_ne_bytes([fifth, sixth]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Ip, Mac};

    #[test]
    fn addresses_for_many_are_multicast_and_broadcast() {
        for (octets, many) in [
            ([10, 244, 1, 10], false),
            ([223, 255, 255, 255], false),
            ([224, 0, 0, 1], true),
            ([239, 255, 255, 255], true),
            ([240, 0, 0, 1], false),
            ([255, 255, 255, 254], false),
            ([255, 255, 255, 255], true),
        ] {
            assert_eq!(Ip::from(octets).is_for_many(), many, "{octets:?}");
        }
        assert!(Mac::from([0xff; 6]).is_for_many());
        assert!(Mac::from([0x01, 0, 0x5e, 0, 0, 1]).is_for_many());
        assert!(!Mac::from([0x02, 0xff, 0xff, 0xff, 0xff, 0xff]).is_for_many());
    }

    #[test]
    fn a_mask_clears_host_bits() {
        let address = Ip::from([10, 244, 1, 77]);
        assert_eq!(
            address.masked([255, 255, 255, 0].into()).octets(),
            [10, 244, 1, 0]
        );
        assert_eq!(
            address.masked([255, 255, 255, 192].into()).octets(),
            [10, 244, 1, 64]
        );
        for (length, mask) in [
            (1, [128, 0, 0, 0]),
            (24, [255, 255, 255, 0]),
            (26, [255, 255, 255, 192]),
            (32, [255; 4]),
        ] {
            assert_eq!(Ip::mask(length).octets(), mask);
        }
    }
}
