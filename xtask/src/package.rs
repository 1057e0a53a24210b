//! `cargo xtask package`: a Debian package, and a machine on which it is installed, used and
//! removed.

mod trial;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{
    console::Console,
    machine::Suite,
    setup::{self, Apt, Unmet, is_there},
    toolchain, workspace,
};

/// What makes the package.
const TOOL: &str = "cargo-deb";
/// The version that this was made with.
const TOOL_VERSION: &str = "3.8.0";
/// What judges it.
const JUDGE: &str = "lintian";

/// What to do besides building.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Install, start, upgrade and remove it on a Debian of its own, in a container (root)
    #[arg(long)]
    test: bool,
    /// The release to try it on, instead of this machine's
    #[arg(long, value_enum, value_name = "SUITE", requires = "test")]
    suite: Option<Suite>,
    /// The cargo profile that the agent is built with
    #[arg(long, default_value = "release", value_name = "NAME")]
    profile: String,
}

/// Builds the package and prints where it is.
///
/// # Errors
/// When a step fails; [`Unmet`] when something is missing that only the user can provide.
pub(crate) fn run(console: Console, args: &Args) -> Result<()> {
    setup::run(console)?;
    let apt = Apt::find(console).ok_or_else(|| {
        Unmet("Debian's tools: they make the package, and this machine has no apt".to_owned())
    })?;
    let agent = build(console, &args.profile)?;
    let package = package(console, &apt, &args.profile, &agent)?;
    judge(console, &package)?;
    console.say("package", package.display());
    if args.test {
        let suite = match args.suite {
            Some(suite) => suite,
            None => this_machines()?,
        };
        trial::run(console, &apt, suite, &package, &agent)?;
    }
    Ok(())
}

/// The release of this machine: on an older one its libraries would be missed.
fn this_machines() -> Result<Suite> {
    let about = fs::read_to_string("/etc/os-release").context("read /etc/os-release")?;
    Suite::of(&about).ok_or_else(|| {
        Unmet("say which Debian to try it on, by --suite: this machine is none".to_owned()).into()
    })
}

fn build(console: Console, profile: &str) -> Result<PathBuf> {
    let mut cargo = workspace::cargo();
    cargo.args(["build", "--package", "overlay-agent", "--profile", profile]);
    console.run(
        "build",
        &format!("overlay-agent, profile {profile}"),
        &mut cargo,
    )?;
    Ok(folder(profile)?.join("overlay-agent"))
}

/// Where cargo puts what it builds with a profile.
fn folder(profile: &str) -> Result<PathBuf> {
    let name = if profile == "dev" { "debug" } else { profile };
    Ok(workspace::target()?.join(name))
}

fn package(console: Console, apt: &Apt, profile: &str, agent: &Path) -> Result<PathBuf> {
    // For the libraries that the agent needs, and for a program without what debuggers want.
    apt.install("package", &["binutils", "dpkg-dev"])?;
    let tool = tool(console)?;
    let documents = folder(profile)?.join("documents");
    if documents.exists() {
        fs::remove_dir_all(&documents)
            .with_context(|| format!("remove {}", documents.display()))?;
    }
    let mut write = Command::new(agent);
    write.arg("documents").arg("--into").arg(&documents);
    console.run("documents", "manual pages and completions", &mut write)?;
    // As Debian's policy has them: small, and the same each time.
    let mut gzip = Command::new("sh");
    gzip.current_dir(documents.join("man"));
    gzip.args(["-c", "gzip --best --no-name *.1"]);
    console.run("documents", "compress manual pages", &mut gzip)?;

    let package = workspace::target()?.join("overlay-agent.deb");
    let mut deb = Command::new(tool);
    deb.current_dir(workspace::root().join("overlay-agent"))
        .env("CARGO_TARGET_DIR", workspace::target()?)
        .args(["--no-build", "--profile", profile, "--output"])
        .arg(&package);
    console.run("package", "cargo deb", &mut deb)?;
    Ok(package)
}

/// The program that makes packages: the user's own, else one that is built once.
fn tool(console: Console) -> Result<PathBuf> {
    if let Some(own) = toolchain::on_path(TOOL) {
        return Ok(own);
    }
    let root = toolchain::cache(TOOL).context("find the user's cache: set HOME")?;
    let program = root.join("bin").join(TOOL);
    if program.exists() {
        return Ok(program);
    }
    let mut cargo = workspace::cargo();
    cargo
        .args([
            "install",
            TOOL,
            "--locked",
            "--version",
            TOOL_VERSION,
            "--root",
        ])
        .arg(&root)
        .env_remove("CARGO_TARGET_DIR");
    console.run(
        "package",
        &format!("build {TOOL} {TOOL_VERSION}"),
        &mut cargo,
    )?;
    Ok(program)
}

/// Has Debian's own checks look at it, where they are installed.
fn judge(console: Console, package: &Path) -> Result<()> {
    if !is_there(JUDGE) {
        console.say(JUDGE, "not installed: its checks are left out");
        return Ok(());
    }
    let mut lintian = Command::new(JUDGE);
    lintian
        .args([
            "--allow-root",
            "--fail-on",
            "error",
            "--tag-display-limit",
            "0",
        ])
        // There is no bug in Debian that asks for this package.
        .args(["--suppress-tags", "initial-upload-closes-no-bugs"])
        .arg(package);
    console.run(JUDGE, "Debian's checks", &mut lintian)
}
