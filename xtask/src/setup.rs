//! `cargo xtask setup`: finds what the build, the lab and the tests need, and
//! installs what is missing.
//!
//! It only ever adds: packages that conflict with nothing, and a private
//! compiler in the user's cache. A second run finds everything and changes nothing.

mod apt;
mod bpf_linker;
mod chain;
pub(crate) mod clients;
pub(crate) mod cross;
mod debian_rust;
mod host;
pub(crate) mod servers;
mod tools;

use anyhow::Result;

use crate::console::Console;
pub(crate) use apt::{Apt, extract};
use tools::For;
pub(crate) use tools::is_there;

/// Something is missing that only the user can provide; the text says how.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Unmet(pub(crate) String);

/// Finds or installs everything, with what only tests run.
///
/// # Errors
/// As [`run`].
pub(crate) fn run_for_tests(console: Console) -> Result<()> {
    run_for_measuring(console)?;
    clients::ensure(console, Apt::find(console).as_ref());
    Ok(())
}

/// Finds or installs what it takes to build, to measure, and to fill a virtual machine.
///
/// # Errors
/// As [`run`].
pub(crate) fn run_for_measuring(console: Console) -> Result<()> {
    let apt = Apt::find(console);
    let mut parts = parts(console, apt.as_ref(), For::Tests);
    parts.push(servers::ensure(console, apt.as_ref()));
    all(parts)
}

/// Finds or installs what it takes to build, to raise a lab and to look at one.
///
/// # Errors
/// [`Unmet`] with all that could not be installed, and how to install it.
pub(crate) fn run(console: Console) -> Result<()> {
    let apt = Apt::find(console);
    all(parts(console, apt.as_ref(), For::Lab))
}

/// Finds or unpacks etcd, which only labs of it need.
///
/// # Errors
/// As [`run`].
pub(crate) fn etcd(console: Console) -> Result<()> {
    servers::ensure_etcd(console, Apt::find(console).as_ref())
}

fn parts(console: Console, apt: Option<&Apt>, who: For) -> Vec<Result<()>> {
    vec![
        chain::ensure(console, apt),
        tools::ensure(console, apt, who),
        host::ensure(console),
    ]
}

/// Tells all that is missing at once.
fn all(parts: Vec<Result<()>>) -> Result<()> {
    let mut unmet = Vec::new();
    for part in parts {
        match part.map_err(anyhow::Error::downcast::<Unmet>) {
            Ok(()) => {}
            Err(Ok(Unmet(cure))) => unmet.push(cure),
            Err(Err(error)) => return Err(error),
        }
    }
    match unmet.as_slice() {
        [] => Ok(()),
        [only] => Err(Unmet(only.clone()).into()),
        [first, rest @ ..] => {
            let more: Vec<String> = rest.iter().map(|cure| format!("\n  - {cure}")).collect();
            Err(Unmet(format!("{first}\n  and then:{}", more.concat())).into())
        }
    }
}

/// Whether this process may do what only root may.
pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}
