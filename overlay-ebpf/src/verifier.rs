//! What LLVM knows and the kernel's verifier does not.

/// The same number, of which LLVM no longer knows the range: a bounds check that follows
/// stays in the program, where the verifier looks for it.
#[inline(always)]
pub(crate) fn forget_range(number: usize) -> usize {
    #[cfg(target_arch = "bpf")]
    {
        let same: usize;
        // SAFETY: copies a register, and touches nothing else.
        unsafe {
            core::arch::asm!(
                "{same} = {number}",
                same = lateout(reg) same,
                number = in(reg) number,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        same
    }
    #[cfg(not(target_arch = "bpf"))]
    number
}

/// The length, or that of an Ethernet header if it is less, compared in the register that it comes
/// in: where LLVM compares a copy, Linux 6.1 does not know it of the number itself.
#[cfg(feature = "watched")]
#[inline(always)]
pub(crate) fn a_header_at_least(length: u32) -> u32 {
    const { assert!(network_types::eth::EthHdr::LEN == 14) };
    #[cfg(target_arch = "bpf")]
    {
        let mut length = u64::from(length);
        // SAFETY: changes a register, and touches nothing else.
        unsafe {
            core::arch::asm!(
                "if {length} > 13 goto +1",
                "{length} = 14",
                length = inout(reg) length,
                options(pure, nomem, nostack),
            );
        }
        #[expect(clippy::cast_possible_truncation, reason = "it was one of 32 bits")]
        let length = length as u32;
        length
    }
    #[cfg(not(target_arch = "bpf"))]
    length.max(14)
}
