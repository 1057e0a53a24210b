//! Prometheus, which tests have scrape the agent. It is unpacked into the user's cache: its
//! package would start a server.

use std::{env, ffi::OsString, path::PathBuf};

use anyhow::Result;

use super::{Unmet, apt::Apt, is_there};
use crate::{console::Console, toolchain::cache};

const PACKAGE: &str = "prometheus";
const PROGRAMS: [&str; 2] = ["prometheus", "promtool"];

/// Where it is unpacked, with the folders that its package has.
fn folder() -> Option<PathBuf> {
    cache(PACKAGE)
}

fn programs() -> Option<PathBuf> {
    Some(folder()?.join("usr/bin"))
}

/// `PATH` with its programs behind all others.
pub(crate) fn search_path() -> Option<OsString> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(programs());
    env::join_paths(folders).ok()
}

/// Finds or unpacks it.
///
/// # Errors
/// [`Unmet`] where there is neither it nor apt.
pub(super) fn ensure(console: Console, apt: Option<&Apt>) -> Result<()> {
    if PROGRAMS.iter().all(|program| is_there(program)) {
        console.say(PACKAGE, "in PATH");
        return Ok(());
    }
    let unmet = || Unmet(format!("in PATH: {}", PROGRAMS.join(", ")));
    let (folder, programs) = folder().zip(programs()).ok_or_else(unmet)?;
    let unpacked = || PROGRAMS.iter().all(|name| programs.join(name).is_file());
    if !unpacked() {
        let apt = apt.ok_or_else(unmet)?;
        let package = || apt.unpack(PACKAGE, &[PACKAGE.to_owned()], &folder);
        match package() {
            // Old lists name versions that the archive no longer has.
            Err(_) if apt.refresh() => package()?,
            result => result?,
        }
    }
    console.say(PACKAGE, programs.display());
    Ok(())
}
