//! Debian's kernels for the cloud: small, and with what virtual machines need.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use super::archive::Archive;
use crate::console::Console;

/// A kernel series that is tested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Release {
    /// Too old for the programs.
    V5_10,
    V6_1,
    V6_12,
    V7_2,
}

impl Release {
    /// Those that the programs are for.
    pub(super) const SUPPORTED: [Self; 3] = [Self::V6_1, Self::V6_12, Self::V7_2];

    pub(super) fn is_supported(self) -> bool {
        Self::SUPPORTED.contains(&self)
    }

    /// Whether Debian builds it with pages of 16 KiB, too.
    pub(super) const fn has_large_pages(self) -> bool {
        matches!(self, Self::V6_12 | Self::V7_2)
    }

    /// The suite that has it.
    pub(super) const fn suite(self) -> &'static [&'static str] {
        match self {
            Self::V5_10 => &["bullseye"],
            Self::V6_1 => &["bookworm"],
            Self::V6_12 => &["bookworm-backports"],
            Self::V7_2 => &["sid"],
        }
    }

    /// What its versions begin with.
    const fn prefix(self) -> &'static str {
        match self {
            Self::V5_10 => "5.10.",
            Self::V6_1 => "6.1.",
            Self::V6_12 => "6.12.",
            Self::V7_2 => "7.2.",
        }
    }
}

/// A kernel that can be booted.
pub(super) struct Kernel {
    /// As `uname -r` prints it.
    pub(super) version: String,
    pub(super) image: PathBuf,
    /// The folder of its modules.
    pub(super) modules: PathBuf,
}

impl Kernel {
    /// The newest one of a series, from the archive or from an earlier run.
    ///
    /// `newest` is the package that depends on it.
    pub(super) fn fetch(
        console: Console,
        archive: &Archive,
        release: Release,
        newest: &str,
    ) -> Result<Self> {
        let image = archive
            .depends(newest)?
            .into_iter()
            .find(|package| package.starts_with("linux-image-"))
            .context("the newest kernel's package depends on no kernel")?;
        let version = image.trim_start_matches("linux-image-").to_owned();
        if !version.starts_with(release.prefix()) {
            bail!(
                "{} has kernel {version} now, not {}x: another suite has that, or none any more",
                archive.name(),
                release.prefix()
            );
        }
        // Newer packages keep image and modules apart.
        let parts = archive.depends(&image)?;
        let parts = parts
            .into_iter()
            .filter(|part| part.starts_with("linux-binary-") || part.starts_with("linux-modules-"));
        let mut packages: Vec<String> = parts.collect();
        if packages.is_empty() {
            packages.push(image);
        }
        let root = archive.folder().join(&version);
        archive.unpack(&packages, &root)?;
        console.say("vm", format_args!("kernel {version}"));
        Self::in_root(&root, version)
    }

    fn in_root(root: &Path, version: String) -> Result<Self> {
        let modules = first(&[
            root.join("lib/modules").join(&version),
            root.join("usr/lib/modules").join(&version),
        ])
        .with_context(|| format!("the packages of kernel {version} have no modules"))?;
        let image = first(&[
            root.join("boot").join(format!("vmlinuz-{version}")),
            modules.join("vmlinuz"),
        ])
        .with_context(|| format!("the packages of kernel {version} have no image"))?;
        Ok(Self {
            version,
            image,
            modules,
        })
    }
}

fn first(paths: &[PathBuf]) -> Option<PathBuf> {
    paths.iter().find(|path| path.exists()).cloned()
}

/// The modules below `modules` that lie in one of these folders of its `kernel/`.
pub(super) fn files(modules: &Path, wanted: &[&str]) -> Result<Vec<PathBuf>> {
    let kernel = modules.join("kernel");
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = wanted.iter().map(|path| kernel.join(path)).collect();
    while let Some(folder) = folders.pop() {
        let list = || format!("list {}", folder.display());
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            // Not every version has every folder.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error).with_context(list),
        };
        for entry in entries {
            let path = entry.with_context(list)?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path);
            }
        }
    }
    Ok(found)
}
