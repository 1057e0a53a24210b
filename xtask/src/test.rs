//! `cargo xtask test`: all tests.

mod lab;

use std::path::Path;

use anyhow::{Result, bail};
use overlay_tests::scenario::openvswitch;

use crate::{
    build,
    console::Console,
    setup::{self, Unmet},
    workspace,
};

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
}

/// Sets up what is missing, and runs the tests.
///
/// # Errors
/// When a test fails; [`Unmet`] when not run by root.
pub(crate) fn run(console: Console, args: &Args) -> Result<()> {
    require_root()?;
    setup::run(console)?;
    run_all(console, args)
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

/// Runs the unit tests of all crates, then the tests in the kernel and in the lab.
pub(crate) fn run_all(console: Console, args: &Args) -> Result<()> {
    let agent = build::compile(console)?;

    // What fails here says nothing of the lab: its tests run all the same.
    let mut units = workspace::cargo();
    units
        .args(["test", "--workspace", "--no-fail-fast", "--exclude", LAB])
        .arg("--")
        .args(&args.filter);
    let units = workspace::run(&mut units);
    if let Err(error) = &units {
        console.say("units", format_args!("{error:#}; now the tests of the lab"));
    }
    let lab = run_lab(console, args, &agent);
    match (units, lab) {
        (Err(units), Err(lab)) => bail!("{units:#}; and {lab:#}"),
        (units, lab) => units.and(lab),
    }
}

/// Runs the tests in the kernel and in the lab, and those with programs of others.
fn run_lab(console: Console, args: &Args, agent: &Path) -> Result<()> {
    let tests = |which: &[String], ignored: &[&str]| {
        let mut lab = workspace::cargo();
        lab.env("OVERLAY_AGENT", agent)
            .args(["test", "--package", LAB, "--no-fail-fast"])
            .args(which)
            .arg("--")
            .args(ignored)
            .args(&args.filter)
            // A lab is many processes, and the kernel's counters are shared.
            .arg("--test-threads=1");
        if let Some(path) = setup::servers::search_path() {
            lab.env("PATH", path);
        }
        if let Some(minutes) = args.soak {
            lab.env("OVERLAY_SOAK_MINUTES", minutes.to_string());
        }
        lab
    };
    lab::run(console, &[], |which| tests(which, &[]))?;
    if setup::is_there(openvswitch::PROGRAM) {
        // What these tests need the set-up does not install.
        let which = ["--test", INTEROPERATION].map(str::to_owned);
        return lab::run(console, &which, |which| tests(which, &["--ignored"]));
    }
    console.say("open vSwitch", "not installed: its tests are left out");
    Ok(())
}
