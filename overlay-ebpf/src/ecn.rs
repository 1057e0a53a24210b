//! Congestion marks at both ends of the tunnel: RFC 6040, normal mode.

use overlay_common::reasons::DropReason;

/// The two bits of the TOS byte that carry ECN (RFC 3168 §5).
pub(crate) const MASK: u8 = 0b11;

const NOT_ECT: u8 = 0b00;
const ECT_1: u8 = 0b01;
const ECT_0: u8 = 0b10;
const CE: u8 = 0b11;

/// The outer TOS byte for an inner one: DSCP 0 unless it is to be copied, and ECN copied
/// but for CE, which becomes ECT(0) as Linux's tunnels send it, so that the marks met
/// inside the tunnel can be told from those met before it.
pub(crate) fn encapsulated(inner: u8, copies_dscp: bool) -> u8 {
    let dscp = if copies_dscp { inner & !MASK } else { 0 };
    dscp | match inner & MASK {
        CE => ECT_0,
        ecn => ecn,
    }
}

/// The inner TOS byte with the marks that the outer header gathered on its way
/// (RFC 6040 §4.2, figure 4).
pub(crate) fn decapsulated(outer: u8, inner: u8) -> Result<u8, DropReason> {
    match (outer & MASK, inner & MASK) {
        (CE, NOT_ECT) => Err(DropReason::EcnNotCapable),
        (CE, _) => Ok(inner | CE),
        (ECT_1, ECT_0) => Ok(inner & !MASK | ECT_1),
        _ => Ok(inner),
    }
}

#[cfg(test)]
mod tests {
    use super::{CE, DropReason, ECT_0, ECT_1, NOT_ECT, decapsulated, encapsulated};

    const DSCP: u8 = 46 << 2;

    #[test]
    fn the_outer_header_copies_ecn_and_dscp_if_told() {
        for (inner, outer) in [
            (NOT_ECT, NOT_ECT),
            (ECT_1, ECT_1),
            (ECT_0, ECT_0),
            (CE, ECT_0),
        ] {
            assert_eq!(encapsulated(DSCP | inner, false), outer);
            assert_eq!(encapsulated(DSCP | inner, true), DSCP | outer);
        }
    }

    /// Every cell of RFC 6040, figure 4: rows are inner, columns outer.
    #[test]
    fn decapsulation_follows_the_table() {
        let columns = [NOT_ECT, ECT_0, ECT_1, CE];
        let table = [
            (NOT_ECT, [Some(NOT_ECT), Some(NOT_ECT), Some(NOT_ECT), None]),
            (ECT_0, [Some(ECT_0), Some(ECT_0), Some(ECT_1), Some(CE)]),
            (ECT_1, [Some(ECT_1), Some(ECT_1), Some(ECT_1), Some(CE)]),
            (CE, [Some(CE), Some(CE), Some(CE), Some(CE)]),
        ];
        for (inner, row) in table {
            for (outer, expected) in columns.into_iter().zip(row) {
                let expected = expected
                    .map(|ecn| DSCP | ecn)
                    .ok_or(DropReason::EcnNotCapable);
                assert_eq!(
                    decapsulated(outer, DSCP | inner),
                    expected,
                    "{outer:02b} over {inner:02b}"
                );
            }
        }
    }
}
