//! `cargo xtask test`: all tests.

mod flakes;
mod lab;
pub(crate) mod programs;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use overlay_tests::scenario::openvswitch;

use crate::{
    build,
    console::Console,
    setup::{self, Unmet},
    steps::Steps,
    workspace,
};
use flakes::Record;
use programs::Program;

/// The crate of the lab and of the end-to-end tests.
const LAB: &str = "overlay-tests";

/// Its tests with programs of others.
const INTEROPERATION: &str = "interoperation";

/// Which tests to run.
#[derive(clap::Args, Default)]
pub(crate) struct Args {
    /// Run only tests whose names contain one of these
    filter: Vec<String>,
    /// Let the soak last so many minutes instead of one
    #[arg(long, value_name = "MINUTES")]
    soak: Option<u64>,
    /// An agent that is built already, instead of this workspace's for release
    #[arg(long, env = "OVERLAY_AGENT", value_name = "FILE")]
    agent: Option<PathBuf>,
}

/// Sets up what is missing, and runs the tests.
///
/// # Errors
/// When a test fails; [`Unmet`] when not run by root.
pub(crate) fn run(console: Console, args: &Args) -> Result<()> {
    require_root()?;
    let mut steps = Steps::new(console);
    let outcome = steps
        .take("set-up", || setup::run_for_tests(console))
        .and_then(|()| run_all(console, &mut steps, args));
    steps.tell();
    outcome
}

/// That the end-to-end tests can be run at all.
pub(crate) fn require_root() -> Result<()> {
    if setup::is_root() {
        return Ok(());
    }
    Err(Unmet(
        "the end-to-end tests make network namespaces and load eBPF programs, which takes root: \
         run `sudo -E env PATH=\"$PATH\" cargo xtask test`"
            .to_owned(),
    )
    .into())
}

/// Builds all of it, and runs the unit tests of all crates, then the tests in the kernel and in
/// the lab.
pub(crate) fn run_all(console: Console, steps: &mut Steps, args: &Args) -> Result<()> {
    let agent = match &args.agent {
        // Tests run elsewhere.
        Some(agent) => agent
            .canonicalize()
            .with_context(|| format!("find {}", agent.display()))?,
        None => steps.take("the agent, for release", || build::compile(console))?,
    };
    let programs = steps.take("the tests", programs::build_all)?;
    let (lab, units): (Vec<&Program>, Vec<&Program>) =
        programs.iter().partition(|program| program.is_of_the_lab());
    ensure!(
        !lab.is_empty() && !units.is_empty(),
        "cargo built no tests of units, or none of the lab"
    );

    // What fails here says nothing of the lab: its tests run all the same.
    let units = steps.take("tests of units", || run_units(console, args, units));
    if let Err(error) = &units {
        console.say("units", format_args!("{error:#}; now the tests of the lab"));
    }
    let lab = steps.take("tests in the lab", || run_lab(console, args, &agent, &lab));
    match (units, lab) {
        (Err(units), Err(lab)) => bail!("{units:#}; and {lab:#}"),
        (units, lab) => units.and(lab),
    }
}

/// Runs the tests of units, and those in documents.
fn run_units(console: Console, args: &Args, programs: Vec<&Program>) -> Result<()> {
    let units = lab::run_units(console, programs, |mut command| {
        command.args(&args.filter);
        command
    });
    let mut documents = workspace::cargo();
    documents
        .args(["test", "--workspace", "--doc", "--no-fail-fast", "--"])
        .args(&args.filter);
    let documents = console.run("documents", "tests in documents", &mut documents);
    units.and(documents)
}

/// Runs the tests in the kernel and in the lab, and those with programs of others.
fn run_lab(console: Console, args: &Args, agent: &Path, programs: &[&Program]) -> Result<()> {
    let prepare = |mut command: Command, ignored: &[&str]| {
        command
            .env("OVERLAY_AGENT", agent)
            .args(ignored)
            .args(&args.filter)
            // A lab is many processes, and its name is its program's.
            .arg("--test-threads=1");
        if let Some(path) = setup::servers::search_path() {
            command.env("PATH", path);
        }
        if let Some(folder) = setup::clients::folder() {
            command.env("OVERLAY_CLIENTS", folder);
        }
        if let Some(folder) = setup::clients::etcds() {
            command.env("OVERLAY_ETCDS", folder);
        }
        if let Some(minutes) = args.soak {
            command.env("OVERLAY_SOAK_MINUTES", minutes.to_string());
        }
        command
    };
    let mut flaky = BTreeSet::new();
    let ran = run_programs(console, programs, prepare, &mut flaky);
    // Also of a run that has failed: what was flaky in it counts.
    let noted = Record::find()?.add(&flaky);
    match (ran, noted) {
        (Err(failed), Err(again)) => Err(failed.context(again.to_string())),
        (ran, noted) => ran.and(noted),
    }
}

/// Runs the programs of the lab, and then those tests that need what the set-up does not install, if it is there.
fn run_programs(
    console: Console,
    programs: &[&Program],
    prepare: impl Fn(Command, &[&str]) -> Command + Sync,
    flaky: &mut BTreeSet<String>,
) -> Result<()> {
    lab::run(console, programs, flaky, |command| prepare(command, &[]))?;
    if setup::is_there(openvswitch::PROGRAM) {
        let which: Vec<&Program> = programs
            .iter()
            .filter(|program| program.name == INTEROPERATION)
            .copied()
            .collect();
        let ignored = |command| prepare(command, &["--ignored"]);
        lab::run(console, &which, flaky, ignored)?;
    } else {
        console.say("open vSwitch", "not installed: its tests are left out");
    }
    Ok(())
}
