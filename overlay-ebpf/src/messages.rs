//! What programs say of a packet where the agent's log asks for it: the same that they tell a
//! capture, in the agent's log.
//!
//! Each message is a function of its own, which the verifier takes out together with its call
//! where nobody asks: as part of the programs they would make the rest worse.

use aya_log_ebpf::{debug, warn};

pub(crate) use aya_log_ebpf::macro_support::{Level, level_enabled};

/// A packet is dropped, of which these are its sighting and its first bytes.
#[inline(never)]
pub(crate) fn dropped(sighting: &[u8]) {
    warn!((), "{:x}", sighting);
}

/// A packet is left to the kernel.
#[inline(never)]
pub(crate) fn passed(sighting: &[u8]) {
    debug!((), "{:x}", sighting);
}
