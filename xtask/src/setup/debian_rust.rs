//! Debian's newest compiler with the source of its library, unpacked beside the
//! user's compilers.
//!
//! Its packages conflict with rustc's and rustup's, so they are not installed:
//! they are unpacked into the user's cache, in the shape of a rustup toolchain.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use anyhow::{Context as _, Result, ensure};

use super::apt::{Apt, Candidate};
use crate::{
    console::Console,
    toolchain::{Compiler, OLDEST_RUSTC, Version, private_compiler, probe_compiler},
    workspace,
};

const RUSTC: &str = "rustc-web";
const SOURCE: &str = "rust-web-src";
const CLIPPY: &str = "rust-web-clippy";

/// What to unpack, and what it loads from the system.
#[derive(Debug, PartialEq, Eq)]
struct Packages {
    unpacked: Vec<String>,
    libraries: Vec<String>,
}

/// Whether Debian has one that is new enough; asks anew when the lists are old.
pub(super) fn is_offered(apt: &Apt) -> bool {
    let offered = || {
        let newest = apt
            .candidate(RUSTC)
            .and_then(|rustc| Version::parse(&rustc.version));
        newest.is_some_and(|version| version >= OLDEST_RUSTC) && apt.candidate(SOURCE).is_some()
    };
    offered() || (apt.refresh() && offered())
}

/// Unpacks the compiler where [`private_compiler`] says.
pub(super) fn unpack(console: Console, apt: &Apt) -> Result<()> {
    let prefix = private_compiler().context("find a place for the compiler")?;
    let packages = Packages::of(|name| apt.candidate(name))?;
    apt.install("compiler", &packages.libraries)?;

    // What an interrupted run has left looks different from a complete prefix.
    let partial = prefix.with_extension("partial");
    remove(&partial)?;
    apt.unpack("compiler", &packages.unpacked, &partial.join("debian"))?;
    write_wrappers(&partial)?;
    let compiler = partial.to_str().and_then(probe_compiler);
    ensure!(
        compiler.as_ref().is_some_and(Compiler::is_usable),
        "the compiler in {} does not run, or has no source of core",
        partial.display(),
    );
    remove(&prefix)?;
    fs::rename(&partial, &prefix)
        .with_context(|| format!("rename {} to {}", partial.display(), prefix.display()))?;
    console.say(
        "compiler",
        format_args!("unpacked into {}", prefix.display()),
    );
    Ok(())
}

impl Packages {
    fn of(candidate: impl Fn(&str) -> Option<Candidate>) -> Result<Self> {
        let find = |name: &str| candidate(name).with_context(|| format!("apt offers no {name}"));
        let version = find(RUSTC)?.version;
        let mut unpacked = vec![RUSTC.to_owned(), SOURCE.to_owned()];
        // The linter is for `cargo xtask ci`; the build does without.
        unpacked.extend(candidate(CLIPPY).map(|_| CLIPPY.to_owned()));
        let mut libraries = Vec::new();
        let mut seen = 0;
        while let Some(name) = unpacked.get(seen).cloned() {
            seen += 1;
            let package = find(&name)?;
            ensure!(
                package.version == version,
                "apt offers {name} {} beside {RUSTC} {version}: run `apt-get update`",
                package.version,
            );
            for dependency in package.depends {
                let list = match () {
                    () if dependency.starts_with("libstd-rust-") => &mut unpacked,
                    () if dependency.starts_with("libllvm") => &mut libraries,
                    () => continue,
                };
                if !list.contains(&dependency) {
                    list.push(dependency);
                }
            }
        }
        Ok(Self {
            unpacked,
            libraries,
        })
    }
}

/// Gives `prefix` the shape of a rustup toolchain: programs in `bin`, which find
/// the unpacked ones relative to themselves, so that the prefix can be moved.
fn write_wrappers(prefix: &Path) -> Result<()> {
    let bin = prefix.join("bin");
    fs::create_dir_all(&bin).with_context(|| format!("create {}", bin.display()))?;
    let usr = prefix.join("debian/usr");
    let libraries = driver_folder(&usr.join("lib"))?;
    for program in ["rustc", "cargo-clippy"] {
        if usr.join("bin").join(program).exists() {
            write_executable(&bin.join(program), &wrapper(program, &libraries))?;
        }
    }
    let cargo = workspace::cargo();
    write_executable(
        &bin.join("cargo"),
        &cargo_wrapper(&cargo.get_program().to_string_lossy()),
    )
}

/// Name of the folder in `lib`, Debian's for the architecture, that has rustc's library.
fn driver_folder(lib: &Path) -> Result<String> {
    let list = |folder: &Path| {
        let entries = fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))?;
        let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        names.collect::<Result<Vec<String>>>()
    };
    for folder in list(lib)? {
        let folder_path = lib.join(&folder);
        if folder_path.is_dir()
            && list(&folder_path)?
                .iter()
                .any(|name| name.starts_with("librustc_driver-"))
        {
            return Ok(folder);
        }
    }
    anyhow::bail!("there is no librustc_driver in {}", lib.display())
}

fn wrapper(program: &str, libraries: &str) -> String {
    format!(
        "#!/bin/sh\n\
         here=${{0%/*}}\n\
         usr=${{here%/*}}/debian/usr\n\
         export RUSTC=\"$here/rustc\"\n\
         export LD_LIBRARY_PATH=\"$usr/lib/{libraries}${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}\"\n\
         exec \"$usr/bin/{program}\" \"$@\"\n"
    )
}

/// Debian's set has no cargo that is needed: the user's own works with any compiler.
fn cargo_wrapper(cargo: &str) -> String {
    format!(
        "#!/bin/sh\n\
         export RUSTC=\"${{0%/*}}/rustc\"\n\
         exec \"${{CARGO:-{cargo}}}\" \"$@\"\n"
    )
}

fn write_executable(path: &Path, script: &str) -> Result<()> {
    fs::write(path, script).with_context(|| format!("write {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("make {} executable", path.display()))
}

fn remove(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("remove {}", folder.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(name: &str) -> Option<Candidate> {
        let depends: &[&str] = match name {
            "rustc-web" => &["libc6", "libstd-rust-web-dev", "gcc"],
            "libstd-rust-web-dev" => &["libstd-rust-web-1.96"],
            "libstd-rust-web-1.96" => &["libc6", "libllvm22"],
            "rust-web-clippy" => &["libc6", "libstd-rust-web-1.96"],
            "rust-web-src" => &[],
            _ => return None,
        };
        let depends = depends.iter().map(|&name| name.to_owned()).collect();
        Some(Candidate {
            version: "1.96.0".to_owned(),
            depends,
        })
    }

    #[test]
    fn the_set_is_the_compiler_with_its_own_libraries_and_the_llvm_that_they_load() {
        let packages = Packages::of(archive).expect("all are there");
        assert_eq!(
            packages.unpacked,
            [
                "rustc-web",
                "rust-web-src",
                "rust-web-clippy",
                "libstd-rust-web-dev",
                "libstd-rust-web-1.96"
            ],
        );
        assert_eq!(packages.libraries, ["libllvm22"]);
    }

    #[test]
    fn the_set_does_without_the_linter() {
        let packages =
            Packages::of(|name| archive(name).filter(|_| name != CLIPPY)).expect("enough is there");
        assert!(!packages.unpacked.iter().any(|name| name == CLIPPY));
    }

    #[test]
    fn a_source_of_another_version_is_refused() {
        let mixed = |name: &str| {
            let version = if name == SOURCE { "1.85.0" } else { "1.96.0" };
            Some(Candidate {
                version: version.to_owned(),
                ..archive(name)?
            })
        };
        let error = Packages::of(mixed)
            .expect_err("not a matched set")
            .to_string();
        assert_eq!(
            error,
            "apt offers rust-web-src 1.85.0 beside rustc-web 1.96.0: run `apt-get update`"
        );
    }
}
