//! Rules about dependencies between modules, checked in the source text.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, Result, ensure};

use crate::workspace;

/// A folder whose code names none of some crates.
struct Layer {
    folder: &'static str,
    /// Folders and files inside it that may.
    except: &'static [&'static str],
    foreign: &'static [&'static str],
    reason: &'static str,
}

const LAYERS: &[Layer] = &[
    Layer {
        folder: "overlay-agent/core/src",
        // It opens files without waiting for who writes them.
        except: &["text_file.rs"],
        foreign: &["nix"],
        reason: "what a node should be does not depend on the kernel",
    },
    Layer {
        folder: "overlay-agent/cluster/src",
        except: &[
            "client.rs",
            "failure.rs",
            "login.rs",
            "main.rs",
            "proto.rs",
            "session.rs",
            "session",
        ],
        foreign: &["nix", "prost", "tokio", "tonic"],
        reason: "what follows from a store does not depend on how it is reached",
    },
    Layer {
        folder: "overlay-common/src",
        except: &[],
        foreign: &["aya_ebpf", "std"],
        reason: "the ABI belongs to both sides",
    },
];

/// Crates that only some packages name among their dependencies.
const DEPENDENTS: &[(&str, &[&str])] = &[
    // Only `overlay-kernel` speaks with the kernel.
    ("aya", &["aya-log", "overlay-common", "overlay-kernel"]),
    ("nftables", &["overlay-kernel"]),
    ("rtnetlink", &["overlay-kernel"]),
    ("netlink-packet-wireguard", &["overlay-kernel"]),
    // What a name server says is `overlay-names`' to know.
    ("hickory-proto", &["overlay-names"]),
    ("overlay-agent", &[]),
    ("overlay-tests", &["xtask"]),
];

/// Packages that wait for nothing, and what they would wait with.
const PURE: &[(&str, &str)] = &[("overlay-core", "tokio"), ("overlay-common", "tokio")];

/// Checks every rule.
///
/// # Errors
/// With the first place that breaks one.
pub(super) fn check() -> Result<()> {
    for layer in LAYERS {
        layer.check()?;
    }
    for (package, allowed) in DEPENDENTS {
        let dependents = dependents(package)?;
        let strange = dependents
            .iter()
            .find(|name| !allowed.contains(&name.as_str()));
        ensure!(
            strange.is_none(),
            "{} must not depend on {package}",
            strange.map_or("", |name| name)
        );
    }
    for (pure, foreign) in PURE {
        ensure!(
            !dependents(foreign)?.iter().any(|name| name == pure),
            "{pure} must not depend on {foreign}"
        );
    }
    Ok(())
}

impl Layer {
    fn check(&self) -> Result<()> {
        let folder = workspace::root().join(self.folder);
        for file in rust_files(&folder)? {
            let inside = file.strip_prefix(&folder).unwrap_or(&file);
            if self.except.iter().any(|except| inside.starts_with(except)) {
                continue;
            }
            let text =
                fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
            for (number, line) in (1..).zip(text.lines()) {
                let named = self.foreign.iter().find(|name| names_crate(line, name));
                ensure!(
                    named.is_none(),
                    "{}:{number} names {}, but {}",
                    file.display(),
                    named.unwrap_or(&""),
                    self.reason,
                );
            }
        }
        Ok(())
    }
}

/// Whether a line of code has a path that begins with the crate's name.
fn names_crate(line: &str, name: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    code.match_indices(name).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let starts = !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':');
        let after = &code[at + name.len()..];
        starts
            && (after.starts_with("::")
                || (code.trim_start().starts_with("use ") && after.starts_with(';')))
    })
}

fn rust_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let entries = fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))?;
    for entry in entries {
        let path = entry
            .with_context(|| format!("list {}", folder.display()))?
            .path();
        if path.is_dir() {
            files.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(files)
}

/// The packages that name `package` among their dependencies, other than for their own tests.
fn dependents(package: &str) -> Result<Vec<String>> {
    let mut tree = workspace::cargo();
    tree.args([
        "tree",
        "--workspace",
        "--invert",
        package,
        "--edges",
        "normal,build",
        "--prefix",
        "none",
        "--depth",
        "1",
    ])
    .stderr(Stdio::inherit());
    let output = tree.output().context("run cargo tree")?;
    ensure!(
        output.status.success(),
        "cargo tree of {package} failed ({})",
        output.status
    );
    let lines = String::from_utf8(output.stdout).context("read what cargo tree prints")?;
    let names = lines
        .lines()
        .skip(1)
        .filter_map(|line| line.split(' ').next());
    Ok(names.map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_its_crate() {
        assert!(names_crate("use aya::maps::Map;", "aya"));
        assert!(names_crate("    let x = tokio::spawn(f);", "tokio"));
        assert!(names_crate("use {std::fs, aya::Ebpf};", "aya"));
        assert!(names_crate("use aya;", "aya"));
    }

    #[test]
    fn words_and_longer_names_do_not() {
        assert!(!names_crate("/// What aya::Ebpf would do.", "aya"));
        assert!(!names_crate("use aya_log::EbpfLogger;", "aya"));
        assert!(!names_crate("use crate::aya::Thing;", "aya"));
        assert!(!names_crate("let himalaya::Peak = p;", "aya"));
    }
}
