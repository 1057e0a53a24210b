//! `cargo xtask build`: the agent, with the eBPF programs inside.

use std::{path::PathBuf, process::Command};

use anyhow::Result;

use crate::{
    console::Console,
    setup::{
        self, Apt,
        cross::{Cross, Target},
    },
    workspace,
};

/// For what.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The processor to build for, instead of this machine's
    #[arg(long, value_enum, value_name = "TRIPLE")]
    target: Option<Target>,
}

/// Builds the agent and prints where it is.
pub(crate) fn run(console: Console, args: &Args) -> Result<()> {
    setup::run(console)?;
    let agent = match foreign(args.target) {
        None => compile(console)?,
        Some(target) => {
            let apt = Apt::find(console);
            let cross = Cross::to_build(console, apt.as_ref(), target)?;
            compile_for(console, &cross, target, "release")?
        }
    };
    console.say("agent", agent.display());
    Ok(())
}

/// Sets up what is missing, builds what a lab runs and returns the agent's absolute path: the agent
/// alone, and with a cluster the helper that speaks to its store. Who has just cloned waits for it.
pub(crate) fn for_lab(console: Console, profile: &str, with_cluster: bool) -> Result<PathBuf> {
    setup::run(console)?;
    let packages: &[&str] = if with_cluster {
        &[AGENT, CLUSTER]
    } else {
        &[AGENT]
    };
    cargo_build(console, profile, packages)
}

/// A target that is not what this machine's own compiler makes.
pub(crate) fn foreign(target: Option<Target>) -> Option<Target> {
    target.filter(|target| Some(*target) != Target::host())
}

/// The agent, the helper that it finds beside itself, and what Docker asks.
const AGENT: &str = "overlay-agent";
const CLUSTER: &str = "overlay-cluster";
const PROGRAMS: [&str; 3] = [AGENT, CLUSTER, "overlay-docker"];

/// The plugin of container runtimes, which is started for each container: without a dynamic linker
/// it starts in half the time, and it runs in a runtime's root that has other libraries.
const PLUGIN: [&str; 7] = [
    "--package",
    "overlay-cni",
    "--bin",
    "overlay-cni",
    "--",
    "-C",
    "target-feature=+crt-static",
];

/// Builds the agent on a machine that is set up.
pub(crate) fn compile(console: Console) -> Result<PathBuf> {
    compile_as(console, "release")
}

/// Builds the agent with one of cargo's profiles.
pub(crate) fn compile_as(console: Console, profile: &str) -> Result<PathBuf> {
    let agent = cargo_build(console, profile, &PROGRAMS)?;
    let mut rustc = workspace::cargo();
    rustc.arg("rustc");
    plugin(console, rustc, profile)?;
    Ok(agent)
}

/// Builds packages for this machine; where the agent is then.
fn cargo_build(console: Console, profile: &str, packages: &[&str]) -> Result<PathBuf> {
    let mut cargo = workspace::cargo();
    cargo.args(["build", "--profile", profile]);
    choose(&mut cargo, packages);
    let doing = format!("overlay-agent, profile {profile}");
    console.run("build", &doing, &mut cargo)?;
    let output = workspace::target()?.join(folder(profile));
    Ok(output.join("overlay-agent"))
}

fn choose(cargo: &mut Command, packages: &[&str]) {
    for package in packages {
        cargo.args(["--package", package]);
    }
}

/// Builds the agent for another processor.
pub(crate) fn compile_for(
    console: Console,
    cross: &Cross,
    target: Target,
    profile: &str,
) -> Result<PathBuf> {
    let mut cargo = cross.cargo("build")?;
    cargo.args(["--profile", profile]);
    choose(&mut cargo, &PROGRAMS);
    let doing = format!("overlay-agent for {target}, profile {profile}");
    console.run("build", &doing, &mut cargo)?;
    plugin(console, cross.cargo("rustc")?, profile)?;
    Ok(cross.output(folder(profile))?.join("overlay-agent"))
}

/// Builds the plugin of container runtimes as a static program.
fn plugin(console: Console, mut cargo: Command, profile: &str) -> Result<()> {
    cargo.args(["--profile", profile]).args(PLUGIN);
    let doing = format!("overlay-cni, static, profile {profile}");
    console.run("build", &doing, &mut cargo)
}

/// Where cargo puts what it builds with a profile, in the target directory.
pub(crate) fn folder(profile: &str) -> &str {
    if profile == "dev" { "debug" } else { profile }
}
