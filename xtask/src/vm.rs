//! `cargo xtask vm`: the tests on other kernels than this machine's.
//!
//! Debian's kernels boot in a virtual machine with a RAM disk that holds the agent, the
//! tests and the programs that they run. Nothing of it needs root or the machine's kernel.

mod archive;
mod guest;
mod image;
mod kernel;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    build,
    console::Console,
    setup::{self, Apt, Unmet},
    toolchain, workspace,
};
use archive::Archive;
use kernel::Release;

/// The tests that say most about a kernel: the verifier's word on each program, every
/// program on packets, then traffic with the fast path on and off and with kernel peers.
const TESTS: [&str; 3] = ["programs", "reachability", "kernel_peer"];

/// Which kernels, and which tests.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The kernels to boot
    #[arg(long = "kernel", value_enum, default_value = "all")]
    kernels: Vec<Choice>,
    /// The end-to-end tests to run there, by the names of their files
    #[arg(long = "test", value_name = "NAME", default_values = TESTS)]
    tests: Vec<String>,
    /// Minutes after which a machine that is not done is ended
    #[arg(long, default_value_t = 30)]
    minutes: u64,
}

/// A kernel on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Choice {
    #[value(name = "6.1")]
    V6_1,
    #[value(name = "6.12")]
    V6_12,
    #[value(name = "7.2")]
    V7_2,
    All,
}

impl Choice {
    fn releases(self) -> &'static [Release] {
        match self {
            Self::V6_1 => &[Release::V6_1],
            Self::V6_12 => &[Release::V6_12],
            Self::V7_2 => &[Release::V7_2],
            Self::All => &Release::ALL,
        }
    }
}

/// Boots each kernel and runs the tests there.
///
/// # Errors
/// When a test fails on one of them; all are tried. [`Unmet`] without Debian's packages.
pub(crate) fn run(console: Console, args: &Args) -> Result<()> {
    setup::run(console)?;
    let apt = Apt::find(console).ok_or_else(|| {
        Unmet("Debian's packages: kernels come from them, and this machine has no apt".to_owned())
    })?;
    apt.install("vm", &guest::PACKAGES)?;
    let agent = build::compile(console)?;
    let tests = executables(&args.tests)?;
    let cache = toolchain::cache("vm").context("find the user's cache: set HOME")?;
    let emulator = guest::Emulator::find(
        console,
        &Archive::of(console, &cache, "bookworm-backports")?,
    )?;

    let mut releases: Vec<Release> = args
        .kernels
        .iter()
        .flat_map(|choice| choice.releases())
        .copied()
        .collect();
    releases.dedup();
    let mut failed = Vec::new();
    for release in releases {
        let archive = Archive::of(console, &cache, release.suite())?;
        let kernel = kernel::Kernel::fetch(console, &archive, release)?;
        let folder = workspace::target()?.join("vm").join(&kernel.version);
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        let image = image::build(console, &folder, &kernel, &agent, &tests)?;
        let limit = Duration::from_secs(60 * args.minutes);
        let outcome =
            emulator.boot(console, &kernel, &image, &folder.join("console.log"), limit)?;
        for result in &outcome {
            console.say(&kernel.version, result);
        }
        if outcome.len() != tests.len() || outcome.iter().any(|result| !result.passed) {
            failed.push(format!(
                "{} (its console: {})",
                kernel.version,
                folder.join("console.log").display()
            ));
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    bail!("not all tests passed on {}", failed.join(", "))
}

/// Builds end-to-end tests, and tells where they are.
fn executables(names: &[String]) -> Result<Vec<PathBuf>> {
    let mut cargo = workspace::cargo();
    cargo.args(["test", "--package", "overlay-tests", "--no-run"]);
    cargo.arg("--message-format=json-render-diagnostics");
    for name in names {
        cargo.args(["--test", name]);
    }
    let output = cargo
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("run cargo")?;
    ensure!(output.status.success(), "the tests cannot be built");
    let messages = String::from_utf8(output.stdout).context("read what cargo built")?;
    let executables: Vec<PathBuf> = messages.lines().filter_map(executable).collect();
    ensure!(
        executables.len() == names.len(),
        "cargo built {} tests, not {}",
        executables.len(),
        names.len()
    );
    Ok(executables)
}

/// The test in one of cargo's messages.
fn executable(message: &str) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(message).ok()?;
    let is_test = message["profile"]["test"].as_bool()?;
    is_test.then(|| message["executable"].as_str().map(PathBuf::from))?
}

/// The name of a test's file, of which cargo made `name-0123456789abcdef`.
fn test_name(executable: &Path) -> Option<&str> {
    let name = executable.file_name()?.to_str()?;
    Some(name.rsplit_once('-').map_or(name, |(name, _)| name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargos_messages_name_the_tests() {
        let test = r#"{"reason":"compiler-artifact","profile":{"test":true},
            "executable":"/t/debug/deps/wire-0123456789abcdef"}"#;
        assert_eq!(
            executable(&test.replace('\n', " ")),
            Some("/t/debug/deps/wire-0123456789abcdef".into())
        );
        let library =
            r#"{"reason":"compiler-artifact","profile":{"test":false},"executable":null}"#;
        assert_eq!(executable(library), None);
        assert_eq!(executable("Compiling x"), None);
        assert_eq!(
            test_name(Path::new("/t/kernel_peer-0123456789abcdef")),
            Some("kernel_peer")
        );
    }

    #[test]
    fn all_kernels_are_more_than_each() {
        for choice in [Choice::V6_1, Choice::V6_12, Choice::V7_2] {
            assert_eq!(choice.releases().len(), 1);
            assert!(Choice::All.releases().contains(&choice.releases()[0]));
        }
    }
}
