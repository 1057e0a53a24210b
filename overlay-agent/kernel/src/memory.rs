//! The agent's own memory.

/// Gives memory that is no longer used back to the system.
///
/// The allocator keeps it otherwise, as long as anything lies behind it: after a large change
/// that is a multiple of what the agent needs.
pub fn release() {
    #[cfg(target_env = "gnu")]
    // SAFETY: `malloc_trim` may be called at any time from any thread; it takes a number and
    // frees only what nobody has.
    unsafe {
        nix::libc::malloc_trim(0);
    }
}
