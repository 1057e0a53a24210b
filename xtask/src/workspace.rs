//! Where things are.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

/// The folder of the workspace's `Cargo.toml`.
pub(crate) fn root() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask)
}

/// The target directory that this program was built into, and that it builds into.
///
/// # Errors
/// When this program does not lie in `<target>/<profile>/`, as cargo puts it.
pub(crate) fn target() -> Result<PathBuf> {
    let this = env::current_exe().context("find this executable")?;
    let target = this.ancestors().nth(2);
    target
        .map(Path::to_path_buf)
        .with_context(|| format!("{} is not in a target directory", this.display()))
}

/// The cargo that runs this program, or else the one that built it, about to work
/// on the workspace. It is cargo itself, not rustup's stand-in, which would ask
/// the environment what to run.
pub(crate) fn cargo() -> Command {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into());
    let mut cargo = Command::new(cargo);
    cargo.current_dir(root());
    cargo
}
