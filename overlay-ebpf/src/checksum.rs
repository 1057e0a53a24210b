//! The Internet checksum of IPv4 headers.
//!
//! One's complement arithmetic does not care about byte order (RFC 1071 §2 B), so
//! everything here works on words as they stand in memory.

/// What a header with the right checksum adds up to, but for multiples of itself: one
/// more of it changes no other sum's checksum.
pub(crate) const RIGHT: u64 = 0xffff;

/// Folds a sum of 16- or 32-bit words into the checksum over them.
pub(crate) fn finish(sum: u64) -> u16 {
    // Each step keeps the value modulo 2^16 - 1; after the last it has 16 bits:
    // 64 bits fold to 33, those to 17, those to 16 and a carry that no longer overflows.
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    !((sum & 0xffff) as u16)
}

/// What is to be added to a sum of which words that add up to `old` become others that add up to
/// `new`.
pub(crate) fn difference(old: u64, new: u64) -> u32 {
    u32::from(!finish(new)) + u32::from(finish(old))
}

/// The checksum of a header in which one 16-bit word changes from `old` to `new`
/// (RFC 1624, equation 3).
pub(crate) fn replace(checksum: u16, old: u16, new: u16) -> u16 {
    let sum = u32::from(!checksum) + u32::from(!old) + u32::from(new);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    !((sum & 0xffff) as u16)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{finish, replace};

    fn over(header: &[u8; 20]) -> u16 {
        finish(
            header
                .chunks_exact(4)
                .map(|word| u64::from(u32::from_ne_bytes(word.try_into().unwrap())))
                .sum(),
        )
    }

    /// The example of RFC 1071's successor texts: a header whose checksum is b861.
    #[test]
    fn a_known_header() {
        let header = [
            0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0, 0, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8, 0,
            0xc7,
        ];
        assert_eq!(over(&header).to_ne_bytes(), [0xb8, 0x61]);
    }

    proptest! {
        #[test]
        fn a_replaced_word_leaves_a_header_that_still_adds_up(
            mut header: [u8; 20],
            word in 0_usize..9,
            new: u16,
        ) {
            // A version nibble keeps the header from being all zero, where the two
            // representations of zero differ.
            header[0] = 0x45;
            prop_assume!(word != 0);
            let place = if word >= 5 { 2 * word + 2 } else { 2 * word };
            header[10..12].fill(0);
            let checksum = over(&header);
            let old = u16::from_ne_bytes([header[place], header[place + 1]]);
            header[place..place + 2].copy_from_slice(&new.to_ne_bytes());
            header[10..12].copy_from_slice(&replace(checksum, old, new).to_ne_bytes());
            prop_assert_eq!(over(&header), 0);
        }

        #[test]
        fn sums_of_any_size_fold_like_long_division(sum: u64) {
            let folded = !finish(sum);
            prop_assert_eq!(u64::from(folded) % 0xffff, sum % 0xffff);
        }
    }
}
