//! Servers of others that tests run: Prometheus, which scrapes the agent, and etcd, of which there are
//! labs, too. They are
//! unpacked into the user's cache: their packages would start them.

use std::{env, ffi::OsString, path::PathBuf};

use anyhow::Result;

use super::{Unmet, apt::Apt, is_there};
use crate::{console::Console, toolchain::cache};

/// A server, with the program that asks it.
struct Server {
    name: &'static str,
    programs: [&'static str; 2],
    /// Where they are; of these those that there are.
    packages: [&'static str; 2],
}

const SERVERS: [Server; 2] = [
    Server {
        name: "prometheus",
        programs: ["prometheus", "promtool"],
        // Before Debian 13 the one had both.
        packages: ["prometheus", "promtool"],
    },
    Server {
        name: "etcd",
        programs: ["etcd", "etcdctl"],
        packages: ["etcd-server", "etcd-client"],
    },
];

/// `PATH` with their programs behind all others.
pub(crate) fn search_path() -> Option<OsString> {
    let path = env::var_os("PATH").unwrap_or_default();
    let unpacked = SERVERS.iter().filter_map(Server::folder_of_programs);
    env::join_paths(env::split_paths(&path).chain(unpacked)).ok()
}

/// Where a program of one of them is.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = search_path()?;
    env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
}

/// Finds or unpacks all of them.
///
/// # Errors
/// [`Unmet`] where there is neither one nor apt.
pub(super) fn ensure(console: Console, apt: Option<&Apt>) -> Result<()> {
    SERVERS
        .iter()
        .try_for_each(|server| server.ensure(console, apt))
}

/// Finds or unpacks etcd alone.
///
/// # Errors
/// As [`ensure`].
pub(super) fn ensure_etcd(console: Console, apt: Option<&Apt>) -> Result<()> {
    let [_, etcd] = &SERVERS;
    etcd.ensure(console, apt)
}

impl Server {
    /// Where it is unpacked, with the folders that its packages have.
    fn folder(&self) -> Option<PathBuf> {
        cache(self.name)
    }

    fn folder_of_programs(&self) -> Option<PathBuf> {
        Some(self.folder()?.join("usr/bin"))
    }

    fn ensure(&self, console: Console, apt: Option<&Apt>) -> Result<()> {
        if self.programs.iter().all(|program| is_there(program)) {
            console.say(self.name, "in PATH");
            return Ok(());
        }
        let unmet = || Unmet(format!("put into PATH: {}", self.programs.join(", ")));
        let folders = self.folder().zip(self.folder_of_programs());
        let (folder, programs) = folders.ok_or_else(unmet)?;
        let unpacked = |name: &&str| programs.join(name).is_file();
        if !self.programs.iter().all(unpacked) {
            let apt = apt.ok_or_else(unmet)?;
            let packages = || self.packages_of(|name| apt.offers(name));
            let unpack = || apt.unpack(self.name, &packages(), &folder);
            match unpack() {
                // Old lists name versions that the archive no longer has.
                Err(_) if apt.refresh() => unpack()?,
                result => result?,
            }
            if !self.programs.iter().all(unpacked) {
                return Err(unmet().into());
            }
        }
        console.say(self.name, programs.display());
        Ok(())
    }

    /// The packages that have the programs.
    fn packages_of(&self, is_offered: impl Fn(&str) -> bool) -> Vec<String> {
        let offered = self.packages.iter().filter(|name| is_offered(name));
        let mut packages: Vec<String> = offered.map(|&name| name.to_owned()).collect();
        if packages.is_empty() {
            // So that apt says that it has none.
            packages.push(self.packages[0].to_owned());
        }
        packages
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_with_a_package_of_its_own_is_fetched_with_it() {
        let [prometheus, etcd] = &SERVERS;
        assert_eq!(
            prometheus.packages_of(|name| name == "prometheus"),
            ["prometheus"]
        );
        assert_eq!(prometheus.packages_of(|_| true), ["prometheus", "promtool"]);
        assert_eq!(prometheus.packages_of(|_| false), ["prometheus"]);
        assert_eq!(etcd.packages_of(|_| true), ["etcd-server", "etcd-client"]);
    }
}
