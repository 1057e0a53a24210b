//! Packages of a distribution that `cargo xtask setup` has unpacked, without installing them.

use std::{
    env,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::error::{Error, Result};

/// A release of the distribution whose packages have been unpacked.
#[derive(Clone, Copy, Debug)]
pub enum Release {
    /// Debian 12
    Bookworm,
    /// The one that becomes Debian 14
    Forky,
}

impl Release {
    /// Its unpacked packages; where there are none, that is said.
    pub fn folder(self) -> Option<PathBuf> {
        fetched(self.name())
    }

    /// Name of the folder of its unpacked packages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bookworm => "bookworm",
            Self::Forky => "forky",
        }
    }
}

/// A client that `cargo xtask setup` has fetched; tells when it is not there.
pub fn fetched(name: &str) -> Option<PathBuf> {
    let cache = || {
        let home = || Some(PathBuf::from(env::var_os("HOME")?).join(".cache"));
        let cache = env::var_os("XDG_CACHE_HOME").map_or_else(home, |it| Some(it.into()))?;
        Some(cache.join("overlay/clients"))
    };
    let clients = env::var_os("OVERLAY_CLIENTS").map_or_else(cache, |it| Some(it.into()));
    let found = clients?.join(name);
    if found.exists() {
        return Some(found);
    }
    eprintln!(
        "skipped: there is no {}; cargo xtask setup fetches it where it can",
        found.display()
    );
    None
}

/// Has `iptables-nft-restore` or `ip6tables-nft-restore` of unpacked packages set rules in a
/// namespace, besides those that are there.
pub fn restore(packages: &Path, namespace: &str, program: &str, rules: &str) -> Result<()> {
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--net=/run/netns/{namespace}"))
        .arg("chroot")
        .arg(packages)
        .args(["/usr/sbin/xtables-nft-multi", program, "--noflush"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let argv = || [program, "--noflush"].map(str::to_owned).to_vec();
    let spawn = |source| Error::Spawn {
        argv: argv(),
        source,
    };
    let mut child = command.spawn().map_err(spawn)?;
    if let Some(mut input) = child.stdin.take() {
        // What it says of it stands in its own words below.
        let _ = input.write_all(rules.as_bytes());
    }
    let done = child.wait_with_output().map_err(spawn)?;
    if done.status.success() {
        return Ok(());
    }
    Err(Error::Command {
        argv: argv(),
        status: done.status,
        output: String::from_utf8_lossy(&done.stderr).into_owned(),
    })
}
