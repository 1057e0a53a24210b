//! The Rust that a newcomer has already.

use std::{fmt, fs, process::Command};

use anyhow::{Context as _, Result, ensure};

use crate::{
    console::Console,
    machine::{Machine, Suite},
    setup::Unmet,
    toolchain::{on_path, program},
};

/// The toolchain that a newcomer's rustup has.
const STABLE: &str = "stable";

/// Where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Rust {
    /// rustup, with the stable toolchain of this machine alone
    Rustup,
    /// The release's own packages, without rustup
    Debian,
}

impl fmt::Display for Rust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rustup => "from rustup",
            Self::Debian => "from Debian",
        })
    }
}

impl Rust {
    /// Puts it there.
    pub(super) fn install(self, console: Console, machine: &Machine, suite: Suite) -> Result<()> {
        match self {
            Self::Rustup => copy_rustup(console, machine),
            Self::Debian => {
                // Stable releases have one that is new enough under this name.
                let package = match suite {
                    Suite::Bookworm | Suite::Trixie => "cargo-web",
                    Suite::Sid => "cargo",
                };
                let line = format!(
                    "apt-get update && apt-get install --yes --no-install-recommends {package}"
                );
                let mut install = machine.command(&line)?;
                console.run("distro", &format!("install {package}"), &mut install)
            }
        }
    }

    /// The parts of it that a set-up must not change.
    pub(super) fn belongings(self, machine: &Machine) -> Result<String> {
        let line = match self {
            Self::Rustup => "find /root/.rustup/toolchains -type f | sort | sha256sum",
            Self::Debian => "readlink -f /usr/bin/rustc; rustc --version",
        };
        machine.run(line)
    }
}

/// Copies rustup and its stable toolchain, without what few have: documentation and source.
fn copy_rustup(console: Console, machine: &Machine) -> Result<()> {
    let rustup = on_path("rustup").ok_or_else(|| {
        Unmet(
            "put rustup into PATH: its stable toolchain is copied (or try `--rust debian`)".into(),
        )
    })?;
    let output = program(STABLE, "rustc")
        .args(["--print", "sysroot"])
        .output()
        .context("run rustup")?;
    ensure!(
        output.status.success(),
        "rustup has no {STABLE}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let sysroot = String::from_utf8(output.stdout).context("read the sysroot's name")?;
    let sysroot = sysroot.trim();
    let name = sysroot.rsplit('/').next().context("the sysroot's name")?;

    let home = machine.path("/root/.rustup");
    let toolchain = home.join("toolchains").join(name);
    let programs = machine.path("/root/.cargo/bin");
    for folder in [&toolchain, &programs] {
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    }
    let settings = format!("version = \"12\"\ndefault_toolchain = \"{name}\"\n");
    fs::write(home.join("settings.toml"), settings).context("write rustup's settings")?;
    let mut copy = Command::new("sh");
    copy.args([
        "-euc",
        "tar -C \"$1\" --exclude=./share/doc --exclude=./lib/rustlib/src -cf - . | tar -C \"$2\" -xf -
         cp -L \"$3\" \"$4/rustup\"
         for name in cargo rustc rustdoc; do ln -s rustup \"$4/$name\"; done",
        "sh",
        sysroot,
    ])
    .arg(&toolchain)
    .arg(&rustup)
    .arg(&programs);
    console.run("distro", &format!("copy rustup's {name}"), &mut copy)
}
