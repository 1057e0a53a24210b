//! Debian's newest compiler with the source of its library, unpacked beside the
//! user's compilers.
//!
//! Its packages conflict with rustc's and rustup's, so they are not installed:
//! they are unpacked into the user's cache, in the shape of a rustup toolchain.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use anyhow::{Context as _, Result, bail, ensure};

use super::apt::{Apt, Candidate, installed_version};
use crate::{
    console::Console,
    toolchain::{Compiler, OLDEST_RUSTC, Version, private_compiler, probe_compiler},
    workspace,
};

/// What the packages of the standard library are called, at first.
const STD: &str = "libstd-rust-";

/// What the library of LLVM is called, before its version.
const LLVM: &str = "libllvm";

/// A compiler of Debian's, as its packages are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Set {
    rustc: &'static str,
    source: &'static str,
    /// The linter is for `cargo xtask ci`; the build does without.
    clippy: &'static str,
}

/// A stable release gets a new compiler under the first names, for the web browsers that it
/// builds; the others are the suite's own, new enough in testing and unstable.
const SETS: [Set; 2] = [
    Set {
        rustc: "rustc-web",
        source: "rust-web-src",
        clippy: "rust-web-clippy",
    },
    Set {
        rustc: "rustc",
        source: "rust-src",
        clippy: "rust-clippy",
    },
];

/// What to unpack, and what it loads from the system.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Packages {
    unpacked: Vec<String>,
    libraries: Vec<String>,
}

/// What apt's lists offer; asks anew when the lists are old.
///
/// # Errors
/// Why nothing of it can be used.
pub(super) fn offered(apt: &Apt) -> Result<Packages> {
    let offered = || Packages::newest(|name| apt.candidate(name));
    match offered() {
        Err(_) if apt.refresh() => offered(),
        result => result,
    }
}

/// The package with the source of `core` for the compiler that is installed, where that is
/// all that the compiler lacks.
pub(super) fn missing_source(apt: &Apt) -> Option<&'static str> {
    SETS.iter().find_map(|set| {
        let installed = installed_version(set.rustc)?;
        let matching = || {
            let source = apt.candidate(set.source)?;
            is_same_source(&source.version, &installed).then_some(set.source)
        };
        installed_version(set.source).is_none().then_some(())?;
        matching().or_else(|| apt.refresh().then(matching)?)
    })
}

/// Unpacks the compiler where [`private_compiler`] says.
pub(super) fn unpack(console: Console, apt: &Apt) -> Result<()> {
    let prefix = private_compiler().context("find a place for the compiler")?;
    let packages = offered(apt)?;
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
    /// The first set that is complete and new enough.
    fn newest(candidate: impl Fn(&str) -> Option<Candidate>) -> Result<Self> {
        let mut refused = Vec::new();
        for set in SETS {
            match Self::of(set, &candidate) {
                Ok(packages) => return Ok(packages),
                Err(reason) => refused.push(reason.to_string()),
            }
        }
        bail!("{}", refused.join("; "))
    }

    fn of(set: Set, candidate: impl Fn(&str) -> Option<Candidate>) -> Result<Self> {
        let find = |name: &str| candidate(name).with_context(|| format!("apt offers no {name}"));
        let version = find(set.rustc)?.version;
        ensure!(
            Version::parse(&version).is_some_and(|version| version >= OLDEST_RUSTC),
            "apt's {} {version} is older than {OLDEST_RUSTC}",
            set.rustc
        );
        let mut unpacked = vec![set.rustc.to_owned(), set.source.to_owned()];
        unpacked.extend(candidate(set.clippy).map(|_| set.clippy.to_owned()));
        let mut libraries = Vec::new();
        let mut seen = 0;
        while let Some(name) = unpacked.get(seen).cloned() {
            seen += 1;
            let package = find(&name)?;
            ensure!(
                is_same_source(&package.version, &version),
                "apt offers {name} {} beside {} {version}",
                package.version,
                set.rustc
            );
            for dependency in package.depends {
                let list = match () {
                    () if dependency.starts_with(STD) => &mut unpacked,
                    () if dependency.starts_with(LLVM) => &mut libraries,
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

    /// The package with what the compiler links into programs.
    pub(super) fn library(&self) -> Option<&str> {
        let is_library = |name: &&String| name.starts_with(STD) && name.ends_with("-dev");
        self.unpacked.iter().find(is_library).map(String::as_str)
    }

    /// Major version of the LLVM that the compiler loads.
    pub(super) fn llvm(&self) -> Option<u32> {
        let name = self.libraries.first()?;
        name.strip_prefix(LLVM)?.parse().ok()
    }
}

/// Whether two versions are of one source: `+b1` was compiled again without a change of it,
/// which packages for all architectures never are.
fn is_same_source(one: &str, other: &str) -> bool {
    let source = |version: &str| {
        let rebuilt = version.rsplit_once("+b").filter(|(_, number)| {
            !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
        });
        rebuilt.map_or(version, |(source, _)| source).to_owned()
    };
    source(one) == source(other)
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
        let packages = Packages::newest(archive).expect("all are there");
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
        assert_eq!(packages.library(), Some("libstd-rust-web-dev"));
    }

    #[test]
    fn the_set_does_without_the_linter() {
        let packages = Packages::newest(|name| archive(name).filter(|_| name != SETS[0].clippy))
            .expect("enough is there");
        assert!(!packages.unpacked.iter().any(|name| name == SETS[0].clippy));
    }

    /// The same archive, with one package in another version.
    fn archive_with(odd: &str, version: &str, name: &str) -> Option<Candidate> {
        let candidate = archive(name)?;
        Some(Candidate {
            version: if name == odd {
                version.to_owned()
            } else {
                candidate.version
            },
            ..candidate
        })
    }

    #[test]
    fn a_source_of_another_version_is_refused() {
        let error = Packages::newest(|name| archive_with("rust-web-src", "1.85.0", name))
            .expect_err("not a matched set")
            .to_string();
        assert_eq!(
            error,
            "apt offers rust-web-src 1.85.0 beside rustc-web 1.96.0; apt offers no rustc"
        );
    }

    #[test]
    fn a_compiler_that_was_compiled_again_belongs_to_its_source() {
        let rebuilt = |name: &str| archive_with("rustc-web", "1.96.0+b1", name);
        assert_eq!(
            Packages::newest(rebuilt).expect("of one source"),
            Packages::newest(archive).expect("all are there")
        );
        assert!(is_same_source(
            "1.96.0+dfsg1-1~deb13u1+b12",
            "1.96.0+dfsg1-1~deb13u1"
        ));
        assert!(!is_same_source("1.96.0+dfsg1-1", "1.96.0+dfsg1-2"));
        assert!(!is_same_source("1.96.0+beta", "1.96.0"));
    }

    #[test]
    fn an_old_set_gives_way_to_the_suites_own() {
        let both = |name: &str| {
            let own = match name {
                "rustc" => "rustc-web",
                "rust-src" => "rust-web-src",
                _ => name,
            };
            let version = if own == name { "1.90.0" } else { "1.97.1" };
            let library = own.starts_with("libstd");
            Some(Candidate {
                version: if library { "1.97.1" } else { version }.to_owned(),
                ..archive(own)?
            })
        };
        let packages = Packages::newest(both).expect("the second is new enough");
        assert_eq!(packages.unpacked[..2], ["rustc", "rust-src"]);
        assert_eq!(packages.llvm(), Some(22));
    }
}
