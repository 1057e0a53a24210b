//! Traffic that no common tool makes: paced or scattered datagrams, and transactions.
//!
//! All of it runs on threads of this process, each in its namespace and on its core.

pub(crate) mod datagrams;
pub(crate) mod transactions;

use anyhow::{Context as _, Result};
use overlay_tests::{cores::on_core, netns};

/// Runs a function in a namespace and on a core.
pub(crate) fn on<T: Send>(
    namespace: &str,
    core: usize,
    work: impl FnOnce() -> Result<T> + Send,
) -> Result<T> {
    let done = netns::inside(namespace, || on_core(core, work))?;
    done.with_context(|| format!("stay on core {core}"))?
}
