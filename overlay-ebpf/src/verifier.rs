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
