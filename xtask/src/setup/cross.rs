//! What a build for another processor takes: its standard library, and a C compiler that links.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use super::{
    Unmet,
    apt::{Apt, extract},
    debian_rust,
};
use crate::{
    console::Console,
    toolchain::{cache, on_path, private_compiler, probe_compiler},
    workspace,
};

/// A processor that the agent is built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Target {
    /// 64-bit x86
    #[value(name = "x86_64-unknown-linux-gnu")]
    X86_64,
    /// 64-bit Arm
    #[value(name = "aarch64-unknown-linux-gnu")]
    Aarch64,
}

impl Target {
    /// All, as this program's own processor is one of them or of none.
    const ALL: [Self; 2] = [Self::X86_64, Self::Aarch64];

    /// This machine's.
    pub(crate) fn host() -> Option<Self> {
        let host = |target: &Self| target.triple().starts_with(std::env::consts::ARCH);
        Self::ALL.into_iter().find(host)
    }

    /// As rustc calls it.
    pub(crate) const fn triple(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-unknown-linux-gnu",
            Self::Aarch64 => "aarch64-unknown-linux-gnu",
        }
    }

    /// As Debian calls it.
    pub(crate) const fn debian(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }

    /// As GNU's programs for it begin.
    pub(crate) const fn gnu(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-linux-gnu",
            Self::Aarch64 => "aarch64-linux-gnu",
        }
    }

    fn linker(self) -> String {
        format!("{}-gcc", self.gnu())
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.triple())
    }
}

/// A compiler that has the standard library of another processor.
pub(crate) struct Cross {
    target: Target,
    /// Where it is not the one that cargo takes by itself.
    rustc: Option<PathBuf>,
}

impl Cross {
    /// The compiler of Rust alone; `None` where apt has none, nor anybody else.
    fn with_std(console: Console, apt: Option<&Apt>, target: Target) -> Result<Option<Self>> {
        let own = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        if has_std(Path::new(&own), target) {
            return Ok(Some(Self {
                target,
                rustc: None,
            }));
        }
        let Some(apt) = apt.filter(|apt| debian_rust::offered(apt).is_ok()) else {
            return Ok(None);
        };
        let rustc = debians(console, apt, target)?;
        console.say(
            "compiler",
            format_args!("for {target}: {}", rustc.display()),
        );
        Ok(Some(Self {
            target,
            rustc: Some(rustc),
        }))
    }

    /// All that a build takes.
    ///
    /// # Errors
    /// [`Unmet`] with what only the user can provide.
    pub(crate) fn to_build(console: Console, apt: Option<&Apt>, target: Target) -> Result<Self> {
        if let Some(apt) = apt {
            let (gcc, binutils) = match target {
                Target::X86_64 => ("gcc-x86-64-linux-gnu", "libc6-dev-amd64-cross"),
                Target::Aarch64 => ("gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"),
            };
            apt.install("linker", &[gcc, binutils])?;
        }
        if on_path(&target.linker()).is_none() {
            let cure = format!(
                "put {} into PATH, a C compiler for {target}",
                target.linker()
            );
            return Err(Unmet(cure).into());
        }
        Self::with_std(console, apt, target)?.ok_or_else(|| {
            Unmet(format!(
                "run `rustup target add {target}`: there is no standard library for it"
            ))
            .into()
        })
    }

    /// cargo with a subcommand, for that processor. What it builds is kept apart, because
    /// another compiler's is of no use to anybody else.
    pub(crate) fn cargo(&self, subcommand: &str) -> Result<Command> {
        let variable = format!(
            "CARGO_TARGET_{}_LINKER",
            self.target.triple().to_uppercase().replace('-', "_")
        );
        let mut cargo = workspace::cargo();
        cargo
            .args([subcommand, "--target", self.target.triple(), "--target-dir"])
            .arg(folder()?)
            .env(variable, self.target.linker());
        if let Some(rustc) = &self.rustc {
            cargo.env("RUSTC", rustc);
        }
        Ok(cargo)
    }

    /// Where it puts what it builds with a profile's folder.
    pub(crate) fn output(&self, profile: &str) -> Result<PathBuf> {
        Ok(folder()?.join(self.target.triple()).join(profile))
    }
}

/// The target directory of all builds for other processors.
pub(crate) fn folder() -> Result<PathBuf> {
    Ok(workspace::target()?.join("cross"))
}

/// Debian's compiler in the private prefix, with the library beside its own.
fn debians(console: Console, apt: &Apt, target: Target) -> Result<PathBuf> {
    let prefix = private_compiler().context("find a place for the compiler")?;
    let rustc = prefix.join("bin/rustc");
    if has_std(&rustc, target) {
        return Ok(rustc);
    }
    if prefix.to_str().and_then(probe_compiler).is_none() {
        debian_rust::unpack(console, apt)?;
    }
    add_std(console, apt, &prefix, target)?;
    if !has_std(&rustc, target) {
        // The compiler was unpacked when apt offered an older one.
        debian_rust::unpack(console, apt)?;
        add_std(console, apt, &prefix, target)?;
    }
    ensure!(
        has_std(&rustc, target),
        "remove {} and run it again: its compiler does not take Debian's library for {target}",
        prefix.display()
    );
    Ok(rustc)
}

/// Unpacks the library for another processor, from lists of packages that this machine's own apt
/// need not have.
fn add_std(console: Console, apt: &Apt, prefix: &Path, target: Target) -> Result<()> {
    let packages = debian_rust::offered(apt)?;
    let library = packages
        .library()
        .context("which package has the library")?;
    let foreign = cache("foreign").context("find the user's cache: set HOME")?;
    for folder in ["lists/partial", "cache/archives/partial"] {
        let folder = foreign.join(folder);
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    }
    let apt_get = || {
        let mut command = Command::new("apt-get");
        for option in [
            format!("APT::Architectures::={}", target.debian()),
            format!("Dir::State::lists={}", foreign.join("lists").display()),
            format!("Dir::Cache={}", foreign.join("cache").display()),
            "APT::Sandbox::User=root".to_owned(),
        ] {
            command.args(["-o", &option]);
        }
        command
    };
    let lists = format!("lists of packages for {}", target.debian());
    console.run("compiler", &lists, apt_get().arg("update"))?;

    let unpacked = foreign.join(target.debian());
    let archives = unpacked.with_extension("debs");
    for folder in [&unpacked, &archives] {
        if folder.exists() {
            fs::remove_dir_all(folder).with_context(|| format!("remove {}", folder.display()))?;
        }
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    }
    let name = format!("{library}:{}", target.debian());
    let mut download = apt_get();
    download.args(["download", &name]).current_dir(&archives);
    console.run("compiler", &format!("download {name}"), &mut download)?;
    extract(&archives, &unpacked)?;

    let within = Path::new("usr/lib/rustlib").join(target.triple());
    let place = prefix.join("debian").join(&within);
    if place.exists() {
        fs::remove_dir_all(&place).with_context(|| format!("remove {}", place.display()))?;
    }
    fs::rename(unpacked.join(&within), &place)
        .with_context(|| format!("create {}", place.display()))?;
    fs::remove_dir_all(&unpacked).with_context(|| format!("remove {}", unpacked.display()))
}

/// Whether a compiler compiles for it a program that uses the standard library.
fn has_std(rustc: &Path, target: Target) -> bool {
    let trial = Command::new(rustc)
        .args(["--target", target.triple(), "--crate-name", "trial"])
        // What it depends on, to where nobody reads: enough for rustc to look for the library.
        .args(["--crate-type", "lib", "--emit", "dep-info=-", "-"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    trial.is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machines_processor_is_one_of_them() {
        let host = Target::host().expect("tests run on what is supported");
        assert!(host.triple().starts_with(std::env::consts::ARCH));
        assert_ne!(Target::X86_64.debian(), Target::Aarch64.debian());
    }

    #[test]
    fn an_own_compiler_has_the_library_of_its_own_machine() {
        let host = Target::host().expect("tests run on what is supported");
        assert!(has_std(Path::new("rustc"), host));
        assert!(!has_std(Path::new("/nowhere/rustc"), host));
    }
}
