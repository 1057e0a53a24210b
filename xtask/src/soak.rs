//! `cargo xtask soak`: the test of that name for as long as one likes, with what it measures.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};

use crate::{
    build,
    console::Console,
    setup,
    test::{self, programs},
};

/// The program of tests, and the test in it.
const PROGRAM: &str = "soak";
const TEST: &str = "a_trickle_loses_nothing_while_all_changes";

/// For how long, and with what.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Let it last so many minutes
    #[arg(long, value_name = "MINUTES", default_value_t = 15)]
    minutes: u64,
    /// An agent that is built already, instead of this workspace's for release
    #[arg(long, env = "OVERLAY_AGENT", value_name = "FILE")]
    agent: Option<PathBuf>,
}

/// Runs it, and shows what it prints.
///
/// # Errors
/// When a packet was lost, or something is left; [`setup::Unmet`] when not run by root.
pub(crate) fn run(console: Console, args: &Args) -> Result<()> {
    test::require_root()?;
    setup::run_for_tests(console)?;
    let agent = match &args.agent {
        // The test runs elsewhere.
        Some(agent) => agent
            .canonicalize()
            .with_context(|| format!("find {}", agent.display()))?,
        None => build::compile(console)?,
    };
    let built = programs::build([PROGRAM].into_iter(), None)?;
    let program = built.first().context("cargo built no soak")?;
    console.say("soak", format_args!("{} minutes …", args.minutes));
    let status = program
        .command()
        .env("OVERLAY_AGENT", agent)
        .env("OVERLAY_SOAK_MINUTES", args.minutes.to_string())
        .args([TEST, "--nocapture", "--test-threads=1"])
        .status()
        .with_context(|| format!("run {}", program.executable.display()))?;
    ensure!(status.success(), "the soak failed; what it said is above");
    Ok(())
}
