//! Packages of a Debian suite that the machine does not follow.
//!
//! apt verifies them like its own, with lists and a cache apart from the machine's. They
//! are unpacked, never installed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use super::arch::Arch;
use crate::{console::Console, setup::extract};

/// Debian's keys, from the package `debian-archive-keyring`.
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A suite of the archive that this machine's own packages come from, or several of which the
/// last goes before the others.
pub(crate) struct Archive {
    console: Console,
    suites: &'static [&'static str],
    arch: Arch,
    folder: PathBuf,
}

impl Archive {
    /// The suites, with lists that are fetched now if there are none yet.
    pub(crate) fn of(
        console: Console,
        cache: &Path,
        suites: &'static [&'static str],
        arch: Arch,
    ) -> Result<Self> {
        let name = match arch {
            Arch::Amd64 => suites.join("+"),
            Arch::Arm64 => format!("{}-{}", suites.join("+"), arch.debian()),
        };
        let archive = Self {
            console,
            suites,
            arch,
            folder: cache.join(name),
        };
        let sources = archive.folder.join("sources");
        for folder in ["sources", "lists/partial", "cache/archives/partial"] {
            let folder = archive.folder.join(folder);
            fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        }
        let source = archive.source("deb")?;
        let file = sources.join("debian.sources");
        if fs::read_to_string(&file).ok().as_ref() != Some(&source) {
            archive.update(&source, &file)?;
        }
        Ok(archive)
    }

    /// What apt is told of it.
    fn source(&self, types: &str) -> Result<String> {
        Ok(format!(
            "Types: {types}\nURIs: {}\nSuites: {}\nComponents: main\nSigned-By: {KEYS}\n",
            repository()?,
            self.name()
        ))
    }

    /// Fetches its lists anew.
    pub(crate) fn refresh(&self) -> Result<()> {
        let file = self.folder.join("sources/debian.sources");
        let source =
            fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        // Two files with the same source would be a fault.
        fs::remove_file(&file).with_context(|| format!("remove {}", file.display()))?;
        self.update(&source, &file)
    }

    fn update(&self, source: &str, file: &Path) -> Result<()> {
        let write = |path: &Path| {
            fs::write(path, source).with_context(|| format!("write {}", path.display()))
        };
        // Under its name only once the lists are there.
        let trial = file.with_file_name("trial.sources");
        write(&trial)?;
        let doing = format!("lists of {}", self.name());
        let mut update = self.apt("apt-get");
        // A list that cannot be fetched is a warning otherwise.
        update.args(["-o", "APT::Update::Error-Mode=any", "update"]);
        let updated = self.console.run("vm", &doing, &mut update);
        fs::remove_file(&trial).with_context(|| format!("remove {}", trial.display()))?;
        updated.with_context(|| {
            format!(
                "{} has no package lists of {} yet: the first run takes the network, later ones \
                 find everything there",
                self.folder.display(),
                self.name()
            )
        })?;
        write(file)
    }

    /// The suites, as apt has them.
    pub(super) fn name(&self) -> String {
        self.suites.join(" ")
    }

    /// The packages that one depends on, under the names of this suite.
    pub(super) fn depends(&self, package: &str) -> Result<Vec<String>> {
        let output = self
            .apt("apt-cache")
            .args(["depends", package])
            .output()
            .context("run apt-cache")?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(
            output.status.success(),
            "{} has no package {package}",
            self.name()
        );
        Ok(dependencies(&text))
    }

    /// Unpacks packages into a folder, once.
    pub(crate) fn unpack(&self, packages: &[String], folder: &Path) -> Result<()> {
        self.unpack_once(packages, folder, |archives| {
            let mut download = self.apt("apt-get");
            download.arg("download").current_dir(archives);
            download
        })
    }

    /// Unpacks packages into a folder, once, with all that they need on a machine that has
    /// nothing.
    pub(crate) fn unpack_with_dependencies(
        &self,
        packages: &[String],
        folder: &Path,
    ) -> Result<()> {
        let nothing = self.folder.join("nothing-installed");
        fs::write(&nothing, "").with_context(|| format!("write {}", nothing.display()))?;
        self.unpack_once(packages, folder, |archives| {
            let mut download = self.apt("apt-get");
            for (option, place) in [
                ("Dir::State::status", nothing.as_path()),
                ("Dir::Cache::archives", archives),
            ] {
                download
                    .arg("-o")
                    .arg(format!("{option}={}", place.display()));
            }
            // What this machine has is neither asked nor changed, so it need not be locked.
            download.args(["-o", "Debug::NoLocking=1", "--download-only", "--yes"]);
            if let Some(last) = self.suites.last() {
                download.args(["--target-release", last]);
            }
            download.args(["--no-install-recommends", "install"]);
            download
        })
    }

    fn unpack_once(
        &self,
        packages: &[String],
        folder: &Path,
        download: impl FnOnce(&Path) -> Command,
    ) -> Result<()> {
        if folder.is_dir() {
            return Ok(());
        }
        let trial = folder.with_extension("trial");
        let archives = folder.with_extension("debs");
        for path in [&trial, &archives] {
            if path.exists() {
                fs::remove_dir_all(path).with_context(|| format!("remove {}", path.display()))?;
            }
            fs::create_dir_all(path).with_context(|| format!("create {}", path.display()))?;
        }
        let doing = format!("download {}", packages.join(" "));
        let mut download = download(&archives);
        download.args(packages);
        self.console
            .run("vm", &doing, &mut download)
            .with_context(|| {
                format!(
                    "{} may have newer packages than its lists here tell: remove {}, and try again",
                    self.name(),
                    self.folder.display()
                )
            })?;
        extract(&archives, &trial)?;
        // Whoever finds the folder finds all of it.
        fs::rename(&trial, folder).with_context(|| format!("create {}", folder.display()))
    }

    /// Unpacks the source of a package as its makers published it, without Debian's changes.
    pub(crate) fn unpack_source(&self, package: &str, folder: &Path) -> Result<()> {
        let apart = self.folder.join("source");
        for place in ["sources", "lists/partial", "archives"] {
            let place = apart.join(place);
            fs::create_dir_all(&place).with_context(|| format!("create {}", place.display()))?;
        }
        let file = apart.join("sources/debian.sources");
        fs::write(&file, self.source("deb-src")?)
            .with_context(|| format!("write {}", file.display()))?;
        let apt_get = || {
            let mut apt = self.apt("apt-get");
            for (option, place) in [
                ("Dir::Etc::sourceparts", "sources"),
                ("Dir::State::lists", "lists"),
            ] {
                apt.arg("-o")
                    .arg(format!("{option}={}", apart.join(place).display()));
            }
            apt
        };
        let mut update = apt_get();
        update.args(["-o", "APT::Update::Error-Mode=any", "update"]);
        let doing = format!("lists of sources of {}", self.name());
        self.console.run("vm", &doing, &mut update)?;
        let archives = apart.join("archives");
        let mut download = apt_get();
        download
            .args(["source", "--download-only", "--tar-only", package])
            .current_dir(&archives);
        let doing = format!("download the source of {package}");
        self.console.run("vm", &doing, &mut download)?;
        let list = || format!("list {}", archives.display());
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        for entry in fs::read_dir(&archives).with_context(list)? {
            let archive = entry.with_context(list)?.path();
            let mut tar = Command::new("tar");
            tar.args(["--extract", "--strip-components=1", "--file"])
                .arg(&archive)
                .arg("--directory")
                .arg(folder);
            let doing = format!("unpack {}", archive.display());
            self.console.run("vm", &doing, &mut tar)?;
        }
        // They are wanted once, and are large.
        fs::remove_dir_all(&apart).with_context(|| format!("remove {}", apart.display()))
    }

    /// Where its things are kept.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    fn apt(&self, program: &str) -> Command {
        let mut apt = Command::new(program);
        let places = [
            ("Dir::Etc::sourcelist", PathBuf::from("/dev/null")),
            ("Dir::Etc::sourceparts", self.folder.join("sources")),
            ("Dir::State::lists", self.folder.join("lists")),
            ("Dir::Cache", self.folder.join("cache")),
        ];
        for (option, place) in places {
            apt.arg("-o").arg(format!("{option}={}", place.display()));
        }
        let debian = self.arch.debian();
        apt.args(["-o", &format!("APT::Architecture={debian}")]);
        apt.args(["-o", &format!("APT::Architectures={debian}")]);
        // Root need not give up what only root may read.
        apt.args(["-o", "APT::Sandbox::User=root"]);
        apt
    }
}

/// Where this machine's own packages come from.
fn repository() -> Result<String> {
    let output = Command::new("apt-get")
        .args(["indextargets", "--format", "$(CODENAME) $(REPO_URI)"])
        .arg("Created-By: Packages")
        .output()
        .context("run apt-get")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let found = text.lines().find_map(|line| {
        let (codename, uri) = line.split_once(' ')?;
        // Updates and security fixes have archives of their own.
        (!codename.contains('-') && uri.trim_end_matches('/').ends_with("/debian"))
            .then(|| uri.to_owned())
    });
    found.context("this machine's apt does not follow a Debian archive: add one to its sources")
}

/// Reads what `apt-cache depends` prints.
fn dependencies(text: &str) -> Vec<String> {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_read_without_recommendations() {
        let text = "linux-image-cloud-amd64\n  Depends: linux-base\n |Depends: dracut\n  \
                    Depends: linux-image-6.1.0-50-cloud-amd64\n  Recommends: apparmor\n";
        assert_eq!(
            dependencies(text),
            ["linux-base", "linux-image-6.1.0-50-cloud-amd64"]
        );
    }
}
