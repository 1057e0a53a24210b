//! `cargo xtask package`: a Debian package, and a machine on which it is installed, used and
//! removed.

mod trial;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    build,
    console::Console,
    machine::Suite,
    setup::{
        self, Apt, Unmet,
        cross::{self, Cross, Target},
        is_there,
    },
    toolchain, workspace,
};

/// What makes the package.
const TOOL: &str = "cargo-deb";
/// The version that this was made with.
const TOOL_VERSION: &str = "3.8.0";
/// What judges it.
const JUDGE: &str = "lintian";

/// The largest that the program may be when it is installed.
const LARGEST_PROGRAM: u64 = 20 << 20;

/// What to do besides building.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Install, start, upgrade and remove it on a Debian of its own, in a container (root)
    #[arg(long, conflicts_with = "target")]
    test: bool,
    /// The release to try it on, instead of this machine's
    #[arg(long, value_enum, value_name = "SUITE", requires = "test")]
    suite: Option<Suite>,
    /// The cargo profile that the agent is built with
    #[arg(long, default_value = "release", value_name = "NAME")]
    profile: String,
    /// The processor to build for, instead of this machine's
    #[arg(long, value_enum, value_name = "TRIPLE")]
    target: Option<Target>,
}

/// Builds the package and prints where it is.
///
/// # Errors
/// When a step fails; [`Unmet`] when something is missing that only the user can provide.
pub(crate) fn run(console: Console, args: &Args) -> Result<()> {
    setup::run(console)?;
    let apt = Apt::find(console).ok_or_else(|| {
        Unmet("run it on Debian: its tools make the package, and this machine has no apt".into())
    })?;
    // It tells its own manual pages, so it has to run here.
    let agent = build::compile_as(console, &args.profile)?;
    let parts = match build::foreign(args.target) {
        None => Parts {
            folder: workspace::target()?.join(build::folder(&args.profile)),
            target: None,
        },
        Some(target) => {
            let cross = Cross::to_build(console, Some(&apt), target)?;
            build::compile_for(console, &cross, target, &args.profile)?;
            Parts {
                folder: cross.output(build::folder(&args.profile))?,
                target: Some(target),
            }
        }
    };
    let packages = package(console, &apt, &args.profile, &agent, &parts)?;
    judge(console, &packages.program)?;
    console.say("package", packages.program.display());
    console.say("debug info", packages.symbols.display());
    if args.test {
        let suite = match args.suite {
            Some(suite) => suite,
            None => this_machines()?,
        };
        trial::run(console, &apt, suite, &packages.program, &agent)?;
    }
    Ok(())
}

/// The release of this machine: on an older one its libraries would be missed.
fn this_machines() -> Result<Suite> {
    let about = fs::read_to_string("/etc/os-release").context("read /etc/os-release")?;
    Suite::of(&about).ok_or_else(|| {
        Unmet("say which Debian to try it on, by --suite: this machine is none of them".into())
            .into()
    })
}

/// The parts of a package.
struct Parts {
    /// Where cargo has put the program.
    folder: PathBuf,
    /// Its processor, when it is not this machine's.
    target: Option<Target>,
}

/// The one with the program, and the one with what debuggers want to know of it.
struct Packages {
    program: PathBuf,
    symbols: PathBuf,
}

fn package(
    console: Console,
    apt: &Apt,
    profile: &str,
    agent: &Path,
    parts: &Parts,
) -> Result<Packages> {
    // For the libraries that the agent needs, and for a program without what debuggers want.
    apt.install("package", &["binutils", "dpkg-dev"])?;
    let tool = tool(console)?;
    let documents = parts.folder.join("documents");
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
    gzip.args(["-c", "gzip --best --no-name *.5 *.8"]);
    console.run("documents", "compress manual pages", &mut gzip)?;

    let of = |name: &str| -> Result<PathBuf> {
        let suffix = parts.target.map(|target| format!("-{}", target.debian()));
        let name = format!("{name}{}.deb", suffix.unwrap_or_default());
        Ok(workspace::target()?.join(name))
    };
    let packages = Packages {
        program: of("overlay-agent")?,
        symbols: of("overlay-agent-dbgsym")?,
    };
    let mut deb = Command::new(tool);
    deb.current_dir(workspace::root().join("overlay-agent"))
        .args(["--no-build", "--dbgsym", "--profile", profile, "--output"])
        .arg(&packages.program);
    match parts.target {
        None => deb.env("CARGO_TARGET_DIR", workspace::target()?),
        Some(target) => deb
            .args(["--target", target.triple()])
            .env("CARGO_TARGET_DIR", cross::folder()?),
    };
    console.run("package", "cargo deb", &mut deb)?;
    let beside = packages.program.with_extension("ddeb");
    fs::rename(&beside, &packages.symbols)
        .with_context(|| format!("rename {}", beside.display()))?;
    is_static(&parts.folder.join("overlay-cni"))?;
    if profile == "release" {
        is_small(&packages.program)?;
    }
    Ok(packages)
}

/// That the plugin needs no libraries: containers' runtimes start it where there are others.
fn is_static(plugin: &Path) -> Result<()> {
    let output = Command::new("readelf")
        .args(["--program-headers", "--wide"])
        .arg(plugin)
        .output()
        .context("run readelf")?;
    let headers = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success() && headers.contains("LOAD") && !headers.contains("INTERP"),
        "{} is not static: {headers}",
        plugin.display()
    );
    Ok(())
}

/// That the program came without what debuggers want.
fn is_small(package: &Path) -> Result<()> {
    let output = Command::new("dpkg-deb")
        .arg("--contents")
        .arg(package)
        .output()
        .context("run dpkg-deb")?;
    let listing = String::from_utf8_lossy(&output.stdout);
    let size = program_size(&listing)
        .with_context(|| format!("{} has no program: {listing}", package.display()))?;
    ensure!(
        size <= LARGEST_PROGRAM,
        "the program in {} has {size} bytes: it was not stripped",
        package.display()
    );
    Ok(())
}

/// Bytes of the agent in what `dpkg-deb --contents` prints.
fn program_size(listing: &str) -> Option<u64> {
    let line = listing
        .lines()
        .find(|line| line.ends_with("/usr/bin/overlay-agent"))?;
    line.split_whitespace().nth(2)?.parse().ok()
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

#[cfg(test)]
mod tests {
    use super::program_size;

    #[test]
    fn the_programs_size_is_read() {
        let listing = "drwxr-xr-x 0/0 0 2026-11-29 00:00 ./usr/bin/\n\
            -rwxr-xr-x 0/0 16777216 2026-11-29 00:00 ./usr/bin/overlay-agent\n";
        assert_eq!(program_size(listing), Some(16_777_216));
        assert_eq!(
            program_size("drwxr-xr-x 0/0 0 2026-11-29 00:00 ./usr/bin/\n"),
            None
        );
    }
}
