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
    let unmet = || Unmet(format!("put into PATH: {}", PROGRAMS.join(", ")));
    let (folder, programs) = folder().zip(programs()).ok_or_else(unmet)?;
    let unpacked = |name: &&str| programs.join(name).is_file();
    if !PROGRAMS.iter().all(unpacked) {
        let apt = apt.ok_or_else(unmet)?;
        let unpack = || apt.unpack(PACKAGE, &packages(|name| apt.offers(name)), &folder);
        match unpack() {
            // Old lists name versions that the archive no longer has.
            Err(_) if apt.refresh() => unpack()?,
            result => result?,
        }
        if !PROGRAMS.iter().all(unpacked) {
            return Err(unmet().into());
        }
    }
    console.say(PACKAGE, programs.display());
    Ok(())
}

/// The packages that have the programs: before Debian 13 the one had both.
fn packages(is_offered: impl Fn(&str) -> bool) -> Vec<String> {
    let own = PROGRAMS.iter().filter(|name| is_offered(name));
    let mut packages: Vec<String> = own.map(|&name| name.to_owned()).collect();
    if packages.is_empty() {
        // So that apt says that it has none.
        packages.push(PACKAGE.to_owned());
    }
    packages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_with_a_package_of_its_own_is_fetched_with_it() {
        assert_eq!(packages(|name| name == "prometheus"), ["prometheus"]);
        assert_eq!(packages(|_| true), ["prometheus", "promtool"]);
        assert_eq!(packages(|_| false), ["prometheus"]);
    }
}
