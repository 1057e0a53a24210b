//! `cargo xtask build`: the agent, with the eBPF programs inside.

use std::path::PathBuf;

use anyhow::Result;

use crate::{console::Console, setup, workspace};

/// Builds the agent and prints where it is.
pub(crate) fn run(console: Console) -> Result<()> {
    let agent = agent(console)?;
    console.say("agent", agent.display());
    Ok(())
}

/// Sets up what is missing, builds the agent for release and returns its absolute path.
pub(crate) fn agent(console: Console) -> Result<PathBuf> {
    setup::run(console)?;
    compile(console)
}

/// Builds the agent on a machine that is set up.
pub(crate) fn compile(console: Console) -> Result<PathBuf> {
    let mut cargo = workspace::cargo();
    cargo.args(["build", "--release", "--package", "overlay-agent"]);
    console.run("build", "overlay-agent, for release", &mut cargo)?;
    Ok(workspace::target()?.join("release/overlay-agent"))
}
