//! What programs say of a packet where the agent's log asks for it: the same that they tell a
//! capture, in the agent's log.
//!
//! Each message is a function of its own, which the verifier takes out together with its call
//! where nobody asks: as part of the programs they would make the rest worse.

use aya_log_ebpf::{debug, warn};
use overlay_common::journal::SAID;

pub(crate) use aya_log_ebpf::macro_support::{Level, level_enabled};

/// As many bytes as LLVM copies word by word; for more it calls a loop over single bytes, which costs the
/// verifier eight times as much.
const PIECE: usize = SAID / 2;
const _: () = assert!(2 * PIECE == SAID && PIECE <= 128);

/// A packet is dropped, of which these are its sighting and its first bytes.
#[inline(never)]
pub(crate) fn dropped(sighting: &[u8; SAID]) {
    let (first, second) = sighting.split_at(PIECE);
    warn!((), "{:x}{:x}", first, second);
}

/// A packet is left to the kernel.
#[inline(never)]
pub(crate) fn passed(sighting: &[u8; SAID]) {
    let (first, second) = sighting.split_at(PIECE);
    debug!((), "{:x}{:x}", first, second);
}
