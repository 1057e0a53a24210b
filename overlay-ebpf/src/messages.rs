//! What programs say of a packet where the agent's log asks for it.
//!
//! Each message is a function of its own, which the verifier takes out together with its call
//! where nobody asks: as part of the programs they would make the rest worse.

#[cfg(feature = "watched")]
use aya_log_ebpf::debug;
use aya_log_ebpf::{
    macro_support::{Level, level_enabled},
    warn,
};
use overlay_common::reasons::DropReason;
#[cfg(feature = "watched")]
use overlay_common::reasons::PassReason;

/// A packet is dropped.
#[inline(always)]
pub(crate) fn dropped(reason: DropReason) {
    if level_enabled(Level::Warn) {
        say_dropped(reason);
    }
}

/// A packet is left to the kernel: often enough, and no matter for programs that nobody watches.
#[cfg(feature = "watched")]
#[inline(always)]
pub(crate) fn passed(reason: PassReason) {
    if level_enabled(Level::Debug) {
        say_passed(reason);
    }
}

#[inline(never)]
fn say_dropped(reason: DropReason) {
    warn!((), "dropped: {}", reason.name());
}

#[cfg(feature = "watched")]
#[inline(never)]
fn say_passed(reason: PassReason) {
    debug!((), "left to the kernel: {}", reason.name());
}
