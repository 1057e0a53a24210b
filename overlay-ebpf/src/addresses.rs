//! Addresses as integers, in the byte order of the packet: compared in few instructions.

use bytemuck::cast;

/// What the addresses of both IP families can be asked.
pub(crate) trait Address: Copy + Eq {
    /// The netmask of a prefix of `length` bits, at least 1 and no more than the address has.
    fn mask(length: u8) -> Self;

    /// The address with the host bits of `mask` cleared.
    fn masked(self, mask: Self) -> Self;

    /// The first one after the base address of a prefix, which this is.
    fn first_host(self) -> Self;

    /// Multicast or broadcast.
    fn is_for_many(self) -> bool;

    /// All zeros: "no address".
    fn is_unspecified(self) -> bool;

    /// Nobody can send from it (RFC 1122 §3.2.1.3, RFC 4291 §2); Linux does not route it.
    fn is_martian(self) -> bool;

    /// It means something on its own link only, and every interface makes one for itself.
    fn is_link_local(self) -> bool;

    /// In the one form that both families have.
    fn mapped(self) -> Ip6;

    /// The address of this family that is in that form.
    fn unmapped(address: [u8; 16]) -> Self;

    /// In the form of `struct bpf_redir_neigh`: as many words as the address has.
    fn words(self) -> [u32; 4];

    /// Its words added up.
    #[inline(always)]
    fn added_up(self) -> u64 {
        let [a, b, c, d] = self.words();
        u64::from(a) + u64::from(b) + u64::from(c) + u64::from(d)
    }
}

/// An IPv4 address or mask; its bytes stand in memory as they do in a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ip4(pub(crate) u32);

impl Ip4 {
    /// The four bytes, as map keys hold them.
    pub(crate) fn octets(self) -> [u8; 4] {
        self.0.to_ne_bytes()
    }
}

impl Address for Ip4 {
    fn mask(length: u8) -> Self {
        Self((u32::MAX << ((32 - u32::from(length)) & 31)).to_be())
    }

    fn masked(self, mask: Self) -> Self {
        Self(self.0 & mask.0)
    }

    fn first_host(self) -> Self {
        Self(self.0 | 1_u32.to_be())
    }

    fn is_for_many(self) -> bool {
        let address = u32::from_be(self.0);
        address >> 28 == 0b1110 || address == u32::MAX
    }

    fn is_unspecified(self) -> bool {
        self.0 == 0
    }

    fn is_martian(self) -> bool {
        const THIS_NETWORK: u32 = 0;
        const LOOPBACK: u32 = 127;
        matches!(u32::from_be(self.0) >> 24, THIS_NETWORK | LOOPBACK) || self.is_for_many()
    }

    // 169.254.0.0/16 is, too; but no stack needs it, as IPv6's do.
    fn is_link_local(self) -> bool {
        false
    }

    fn mapped(self) -> Ip6 {
        Ip6::from(overlay_common::maps::mapped(self.octets()))
    }

    fn unmapped(address: [u8; 16]) -> Self {
        let [.., a, b, c, d] = address;
        Self::from([a, b, c, d])
    }

    fn words(self) -> [u32; 4] {
        [self.0, 0, 0, 0]
    }
}

impl From<[u8; 4]> for Ip4 {
    fn from(octets: [u8; 4]) -> Self {
        Self(u32::from_ne_bytes(octets))
    }
}

/// An IPv6 address or mask; its bytes stand in memory as they do in a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ip6 {
    /// Bytes 0 to 7: of most networks, all that tells them apart.
    pub(crate) head: u64,
    /// Bytes 8 to 15.
    pub(crate) tail: u64,
}

impl Ip6 {
    /// The sixteen bytes, as map keys hold them.
    pub(crate) fn octets(self) -> [u8; 16] {
        cast([self.head, self.tail])
    }
}

impl Address for Ip6 {
    fn mask(length: u8) -> Self {
        let bits = |length: u32| (u64::MAX << ((64 - length) & 63)).to_be();
        match u32::from(length) {
            length @ ..=64 => Self {
                head: bits(length),
                tail: 0,
            },
            length => Self {
                head: u64::MAX,
                tail: bits(length - 64),
            },
        }
    }

    fn masked(self, mask: Self) -> Self {
        Self {
            head: self.head & mask.head,
            tail: self.tail & mask.tail,
        }
    }

    fn first_host(self) -> Self {
        Self {
            tail: self.tail | 1_u64.to_be(),
            ..self
        }
    }

    fn is_for_many(self) -> bool {
        self.head.to_ne_bytes()[0] == 0xff
    }

    fn is_unspecified(self) -> bool {
        self.head | self.tail == 0
    }

    fn is_martian(self) -> bool {
        const LOOPBACK: u64 = 1;
        const MAPPED: u64 = 0xffff;
        let tail = u64::from_be(self.tail);
        let is_special = matches!(tail, 0 | LOOPBACK) || tail >> 32 == MAPPED;
        self.is_for_many() || self.head == 0 && is_special
    }

    fn is_link_local(self) -> bool {
        u64::from_be(self.head) >> 54 == 0xfe80 >> 6
    }

    fn mapped(self) -> Ip6 {
        self
    }

    fn unmapped(address: [u8; 16]) -> Self {
        address.into()
    }

    fn words(self) -> [u32; 4] {
        cast([self.head, self.tail])
    }
}

impl From<[u8; 16]> for Ip6 {
    fn from(octets: [u8; 16]) -> Self {
        let [head, tail] = cast(octets);
        Self { head, tail }
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
    use std::net::Ipv6Addr;

    use super::{Address as _, Ip4, Ip6, Mac};

    fn ip6(text: &str) -> Ip6 {
        text.parse::<Ipv6Addr>().unwrap().octets().into()
    }

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
            assert_eq!(Ip4::from(octets).is_for_many(), many, "{octets:?}");
        }
        assert!(ip6("ff02::1").is_for_many());
        assert!(!ip6("fe80::ff").is_for_many());
        assert!(Mac::from([0xff; 6]).is_for_many());
        assert!(Mac::from([0x01, 0, 0x5e, 0, 0, 1]).is_for_many());
        assert!(!Mac::from([0x02, 0xff, 0xff, 0xff, 0xff, 0xff]).is_for_many());
    }

    #[test]
    fn martians_are_those_that_nobody_can_send_from() {
        for (octets, martian) in [
            ([0, 0, 0, 0], true),
            ([0, 1, 2, 3], true),
            ([1, 0, 0, 0], false),
            ([126, 255, 255, 255], false),
            ([127, 0, 0, 1], true),
            ([128, 0, 0, 1], false),
            ([224, 0, 0, 1], true),
            ([255, 255, 255, 255], true),
        ] {
            assert_eq!(Ip4::from(octets).is_martian(), martian, "{octets:?}");
        }
        for (text, martian) in [
            ("::", true),
            ("::1", true),
            ("::2", false),
            ("::ffff:10.0.0.1", true),
            ("::fffe:10.0.0.1", false),
            ("1::", false),
            ("1::ffff:10.0.0.1", false),
            ("fe80::1", false),
            ("ff02::1", true),
        ] {
            assert_eq!(ip6(text).is_martian(), martian, "{text}");
        }
    }

    #[test]
    fn link_local_is_a_prefix_of_ten_bits() {
        for (text, link_local) in [
            ("fe80::1", true),
            ("febf:ffff::1", true),
            ("fe7f::1", false),
            ("fec0::1", false),
        ] {
            assert_eq!(ip6(text).is_link_local(), link_local, "{text}");
        }
    }

    #[test]
    fn the_first_host_follows_the_base_address() {
        let base = Ip4::from([10, 244, 1, 64]);
        assert_eq!(base.first_host().octets(), [10, 244, 1, 65]);
        assert!(ip6("fd00:1:2:3::").first_host() == ip6("fd00:1:2:3::1"));
    }

    #[test]
    fn a_mask_clears_host_bits() {
        let address = Ip4::from([10, 244, 1, 77]);
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
            assert_eq!(Ip4::mask(length).octets(), mask);
        }
        for length in 1..=128 {
            let mask = (u128::MAX << (128 - length)).to_be_bytes();
            assert_eq!(Ip6::mask(length).octets(), mask, "/{length}");
        }
        assert_eq!(
            ip6("fd00:1:2:3:4::5").masked(Ip6::mask(64)),
            ip6("fd00:1:2:3::")
        );
    }

    #[test]
    fn an_ipv4_address_is_the_same_after_it_was_mapped() {
        let address = Ip4::from([10, 244, 1, 77]);
        assert_eq!(address.mapped(), ip6("::ffff:10.244.1.77"));
        assert_eq!(Ip4::unmapped(address.mapped().octets()), address);
        assert_eq!(Ip6::unmapped(ip6("fd00::1").octets()), ip6("fd00::1"));
    }
}
