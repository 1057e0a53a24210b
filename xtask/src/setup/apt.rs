//! Debian's package tools, for what is not there.

use std::{cell::Cell, fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};

use super::{Unmet, is_root};
use crate::{console::Console, toolchain::on_path};

/// `apt-get`, `apt-cache` and `dpkg` of this machine.
pub(crate) struct Apt {
    console: Console,
    refreshed: Cell<bool>,
}

/// The version of a package that an installation would bring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    /// Debian's version, with revision.
    pub(super) version: String,
    /// Names of the packages that it depends on; of alternatives the first.
    pub(super) depends: Vec<String>,
}

impl Apt {
    /// The tools, on a machine that has them.
    pub(crate) fn find(console: Console) -> Option<Self> {
        let complete = ["apt-get", "apt-cache", "dpkg-deb", "dpkg-query"]
            .map(on_path)
            .iter()
            .all(Option::is_some);
        complete.then_some(Self {
            console,
            refreshed: Cell::new(false),
        })
    }

    /// What apt's lists offer of a package.
    #[expect(clippy::unused_self, reason = "only a machine with apt can be asked")]
    pub(super) fn candidate(&self, package: &str) -> Option<Candidate> {
        let output = Command::new("apt-cache")
            .args(["show", "--no-all-versions", package])
            .output()
            .ok()?;
        Candidate::parse(&String::from_utf8(output.stdout).ok()?)
    }

    /// Whether apt's lists have a package.
    pub(super) fn offers(&self, package: &str) -> bool {
        self.candidate(package).is_some()
    }

    /// Fetches apt's lists anew, once in a run; whether they are newer now.
    ///
    /// Only root may do it. A machine without the network keeps its old lists.
    pub(super) fn refresh(&self) -> bool {
        if !is_root() || self.refreshed.replace(true) {
            return false;
        }
        let mut update = Command::new("apt-get");
        update.arg("update");
        let result = self.console.run("apt lists", "apt-get update", &mut update);
        if let Err(error) = &result {
            self.console
                .say("apt lists", format_args!("keeping the old ones: {error:#}"));
        }
        result.is_ok()
    }

    /// Installs those packages that are not installed.
    ///
    /// # Errors
    /// [`Unmet`] when only root could do it.
    pub(crate) fn install(&self, subject: &str, packages: &[impl AsRef<str>]) -> Result<()> {
        let missing: Vec<&str> = packages
            .iter()
            .map(AsRef::as_ref)
            .filter(|package| !is_installed(package))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        let missing = missing.join(" ");
        if !is_root() {
            let cure = format!("run as root: apt-get install --no-install-recommends {missing}");
            return Err(Unmet(cure).into());
        }
        let doing = format!("apt-get install {missing}");
        match self.get(subject, &doing, &missing) {
            // Old lists name versions that the archive no longer has.
            Err(_) if self.refresh() => self.get(subject, &doing, &missing),
            result => result,
        }
    }

    fn get(&self, subject: &str, doing: &str, packages: &str) -> Result<()> {
        let mut apt_get = Command::new("apt-get");
        apt_get
            .env("DEBIAN_FRONTEND", "noninteractive")
            // Never at the price of a package that the user has.
            .args(["install", "--yes", "--no-install-recommends", "--no-remove"])
            .args(["-o", "DPkg::Lock::Timeout=300"])
            .args(packages.split(' '));
        self.console.run(subject, doing, &mut apt_get)
    }

    /// Unpacks packages into a folder, without installing them.
    pub(super) fn unpack(&self, subject: &str, packages: &[String], folder: &Path) -> Result<()> {
        let archives = folder.with_extension("debs");
        for path in [folder, &archives] {
            fs::create_dir_all(path).with_context(|| format!("create {}", path.display()))?;
        }
        let doing = format!("download {}", packages.join(" "));
        let mut download = Command::new("apt-get");
        download
            .arg("download")
            .args(packages)
            .current_dir(&archives);
        self.console.run(subject, &doing, &mut download)?;

        extract(&archives, folder)
    }
}

/// Unpacks all packages that lie in `archives`, and removes that folder.
pub(crate) fn extract(archives: &Path, folder: &Path) -> Result<()> {
    let list = || format!("list {}", archives.display());
    for entry in fs::read_dir(archives).with_context(list)? {
        let archive = entry.with_context(list)?.path();
        // apt puts a lock and a folder of its own beside them.
        if archive
            .extension()
            .is_none_or(|extension| extension != "deb")
        {
            continue;
        }
        let status = Command::new("dpkg-deb")
            .arg("--extract")
            .arg(&archive)
            .arg(folder)
            .status();
        let status = status.context("run dpkg-deb")?;
        ensure!(
            status.success(),
            "unpack {}: dpkg-deb failed ({status})",
            archive.display()
        );
    }
    fs::remove_dir_all(archives).with_context(|| format!("remove {}", archives.display()))
}

impl Candidate {
    /// Reads the first record that `apt-cache show` prints.
    fn parse(record: &str) -> Option<Self> {
        let record = record.split("\n\n").next()?;
        let field = |name: &str| {
            record
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        };
        let depends = field("Depends").unwrap_or_default().split(", ");
        let name = |relation: &str| relation.split([' ', ':', '|']).next().map(str::to_owned);
        Some(Self {
            version: field("Version")?.to_owned(),
            depends: depends
                .filter_map(name)
                .filter(|name| !name.is_empty())
                .collect(),
        })
    }
}

fn is_installed(package: &str) -> bool {
    installed_version(package).is_some()
}

/// The version of a package that is installed.
pub(super) fn installed_version(package: &str) -> Option<String> {
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat=${db:Status-Status} ${Version}"])
        .arg(package)
        .output()
        .ok()?;
    let answer = String::from_utf8(output.stdout).ok()?;
    answer.strip_prefix("installed ").map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_candidate_is_its_version_and_the_names_it_depends_on() {
        let record = "Package: rustc-web\nVersion: 1.96.0+dfsg1-1\nDepends: libc6 (>= 2.34), \
                      libstd-rust-web-dev (= 1.96.0+dfsg1-1), gcc:any | c-compiler, binutils\n\
                      Description: a compiler\n\nPackage: rustc-web\nVersion: 1.85.0\n";
        let candidate = Candidate::parse(record).expect("a complete record");
        assert_eq!(candidate.version, "1.96.0+dfsg1-1");
        assert_eq!(
            candidate.depends,
            ["libc6", "libstd-rust-web-dev", "gcc", "binutils"]
        );
    }

    #[test]
    fn a_package_without_dependencies_has_none() {
        let candidate = Candidate::parse("Package: x\nVersion: 1\n").expect("a complete record");
        assert_eq!(candidate.depends, Vec::<String>::new());
    }

    #[test]
    fn no_record_is_no_candidate() {
        assert_eq!(Candidate::parse(""), None);
    }
}
