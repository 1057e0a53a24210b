//! FNV-1a of 64 bits: the same in every build, for what outlives the agent.

/// The offset basis: the value that a hash begins with.
pub(crate) const START: u64 = 0xcbf2_9ce4_8422_2325;

/// The hash of what `hash` stands for and these bytes after it.
pub(crate) fn fnv1a<'a>(hash: u64, bytes: impl IntoIterator<Item = &'a u8>) -> u64 {
    bytes.into_iter().fold(hash, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::{START, fnv1a};

    #[test]
    fn it_is_that_of_its_authors() {
        // Of the test vectors of draft-eastlake-fnv.
        assert_eq!(fnv1a(START, b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(START, b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a(START, b"foobar"), 0x8594_4171_f739_67e8);
        assert_eq!(fnv1a(fnv1a(START, b"foo"), b"bar"), 0x8594_4171_f739_67e8);
    }
}
