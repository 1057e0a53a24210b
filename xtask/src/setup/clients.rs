//! Container runtimes that tests run: whole roots of packages, unpacked into the user's cache; and
//! etcds of newer releases; and a client that is built from its source. None of them is installed or started here.

mod cnitool;

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::apt::Apt;
use crate::{
    console::Console,
    toolchain::cache,
    vm::{arch::Arch, archive::Archive},
};

/// The packages of a release, with all that they need.
struct Root {
    name: &'static str,
    release: &'static [&'static str; 1],
    packages: &'static [&'static str],
}

const ROOTS: [Root; 3] = [
    // podman has CNI here, and containerd is 1.6.
    Root {
        name: "bookworm",
        release: &["bookworm"],
        packages: &[
            "busybox-static",
            "containerd",
            "containernetworking-plugins",
            "iptables",
            "podman",
            "runc",
        ],
    },
    // podman has netavark here, and containerd is 2.
    Root {
        name: "forky",
        release: &["forky"],
        packages: &[
            "busybox-static",
            "containerd",
            "containernetworking-plugins",
            "iptables",
            "netavark",
            "nftables",
            "podman",
            "runc",
        ],
    },
    // Apart from the others, so that a root that is there already lacks nothing.
    Root {
        name: "docker",
        release: &["forky"],
        packages: &[
            "busybox-static",
            "containerd",
            "docker-cli",
            "docker.io",
            "iptables",
            "runc",
        ],
    },
];

/// Releases whose etcd is tried besides the one that this machine's own release has.
const ETCDS: [&[&str; 1]; 2] = [&["trixie"], &["forky"]];

/// Where the roots are, each in a folder with its name.
pub(crate) fn folder() -> Option<PathBuf> {
    cache("clients")
}

/// Where etcds of other releases are, each in a folder with its release's name.
pub(crate) fn etcds() -> Option<PathBuf> {
    cache("etcds")
}

/// Fetches what is not there. What cannot be had is told, and its tests are skipped.
pub(super) fn ensure(console: Console, apt: Option<&Apt>) {
    for root in &ROOTS {
        match root.ensure(console, apt) {
            Ok(folder) => console.say("runtimes", folder.display()),
            Err(error) => console.say(
                "runtimes",
                format_args!(
                    "{} is not to be had, its tests are skipped: {error:#}",
                    root.name
                ),
            ),
        }
    }
    match cnitool::ensure(console, apt) {
        Ok(program) => console.say("cnitool", program.display()),
        Err(error) => console.say(
            "cnitool",
            format_args!("it is not to be had, its test is skipped: {error:#}"),
        ),
    }
    for suite in ETCDS {
        let [release] = suite;
        match ensure_etcd(console, apt, suite) {
            Ok(folder) => console.say("etcd", folder.display()),
            Err(error) => console.say(
                "etcd",
                format_args!("that of {release} is not to be had, and not tried: {error:#}"),
            ),
        }
    }
}

fn ensure_etcd(
    console: Console,
    apt: Option<&Apt>,
    suite: &'static [&'static str; 1],
) -> Result<PathBuf> {
    let [release] = suite;
    let folder = etcds().context("find the user's cache: set HOME")?;
    let folder = folder.join(release);
    if folder.is_dir() {
        return Ok(folder);
    }
    apt.context("there is no apt")?;
    let archive = archive(console, suite)?;
    let packages = ["etcd-server", "etcd-client"].map(str::to_owned);
    let unpack = || archive.unpack(&packages, &folder);
    // Old lists name versions that the archive no longer has.
    unpack().or_else(|_| {
        archive.refresh()?;
        unpack()
    })?;
    Ok(folder)
}

fn archive(console: Console, suite: &'static [&'static str; 1]) -> Result<Archive> {
    let arch = if cfg!(target_arch = "aarch64") {
        Arch::Arm64
    } else {
        Arch::Amd64
    };
    let lists = cache("vm").context("find the user's cache: set HOME")?;
    Archive::of(console, &lists, suite, arch)
}

impl Root {
    fn ensure(&self, console: Console, apt: Option<&Apt>) -> Result<PathBuf> {
        let folder = folder()
            .context("find the user's cache: set HOME")?
            .join(self.name);
        if folder.is_dir() {
            return Ok(folder);
        }
        apt.context("there is no apt")?;
        let archive = archive(console, self.release)?;
        let packages: Vec<String> = self.packages.iter().map(|&name| name.to_owned()).collect();
        let unpack = || archive.unpack_with_dependencies(&packages, &folder);
        // Old lists name versions that the archive no longer has.
        unpack().or_else(|_| {
            archive.refresh()?;
            unpack()
        })?;
        Ok(folder)
    }
}
