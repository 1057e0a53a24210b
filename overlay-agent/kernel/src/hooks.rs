//! Doors for tests, opened by environment variables that nobody else sets.
//!
//! They are compiled in always, so that what is tested is what is shipped: they cost a
//! counter a step, and whoever sets the environment of the agent can end it anyway.
//!
//! | variable | does |
//! |---|---|
//! | `OVERLAY_ABORT_AFTER_STEP=N` | the process ends as by `kill -9` after its Nth step |
//! | `OVERLAY_ABI=N` | the maps are those of another layout: pinned under `vN/` |
//! | `OVERLAY_MAP_ENTRIES=PEERS4=3,VTEPS4=3` | these maps hold no more; `PEER_STATS` counts for so many peers at least |

use std::{
    env,
    str::FromStr,
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
};

use nix::sys::signal::{Signal, raise};

/// Number of the maps' layout.
pub fn abi() -> u32 {
    static ABI: LazyLock<u32> =
        LazyLock::new(|| number("OVERLAY_ABI").unwrap_or(overlay_common::ABI));
    *ABI
}

/// How many entries a map is to hold, if a test asks for another number than usual.
pub(crate) fn map_entries(map: &str) -> Option<usize> {
    let asked = env::var("OVERLAY_MAP_ENTRIES").ok()?;
    let mut pairs = asked.split(',').filter_map(|pair| pair.split_once('='));
    let (_, entries) = pairs.find(|(name, _)| *name == map)?;
    entries.parse().ok()
}

/// Something has been changed that a crash must leave in order: a step of a plan, or a part
/// of one, or the state file.
pub fn step_done() {
    static LAST: LazyLock<Option<u64>> = LazyLock::new(|| number("OVERLAY_ABORT_AFTER_STEP"));
    static DONE: AtomicU64 = AtomicU64::new(0);
    let done = DONE.fetch_add(1, Ordering::Relaxed) + 1;
    if *LAST == Some(done) && raise(Signal::SIGKILL).is_err() {
        std::process::abort();
    }
}

fn number<N: FromStr>(variable: &str) -> Option<N> {
    env::var(variable).ok()?.parse().ok()
}
