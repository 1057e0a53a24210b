//! Ctrl-C: the first ends the run in good order, the second ends it at once.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result};
use nix::{
    libc::c_int,
    sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction},
};

static REQUESTED: AtomicBool = AtomicBool::new(false);

extern "C" fn note(_: c_int) {
    REQUESTED.store(true, Ordering::Relaxed);
}

/// From now on, SIGINT and SIGTERM are noted; a second one has its usual effect.
pub(crate) fn install() -> Result<()> {
    let action = SigAction::new(
        SigHandler::Handler(note),
        SaFlags::SA_RESTART | SaFlags::SA_RESETHAND,
        SigSet::empty(),
    );
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        // SAFETY: the handler does nothing but store to an atomic, which is
        // async-signal-safe, and it is a function, so it is there for ever.
        unsafe { sigaction(signal, &action) }.with_context(|| format!("handle {signal}"))?;
    }
    Ok(())
}

/// Whether the user wants an end.
pub(crate) fn requested() -> bool {
    REQUESTED.load(Ordering::Relaxed)
}
