//! `cargo xtask distro`: from a bare Debian to a lab that is up, as a newcomer does it.
//!
//! The Debian is a container of its own with nothing in it but git, a C compiler and a Rust. It
//! clones this checkout's last commit, and downloads all else by itself.

mod rust;
mod uplink;

use std::{process::Command, time::Instant};

use anyhow::{Context as _, Result, ensure};

use crate::{
    console::Console,
    machine::{Machine, Plan, Suite},
    setup::{self, Apt, Unmet},
    workspace,
};
use rust::Rust;
use uplink::Uplink;

/// What README asks of a newcomer's machine besides Rust.
const NEEDED: [&str; 4] = ["git", "ca-certificates", "gcc", "libc6-dev"];
/// Where the checkout is cloned from, and where to.
const BUNDLE: &str = "/root/overlay.bundle";
const CLONE: &str = "/root/overlay";

/// Which machines, and how far.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The releases to try
    #[arg(
        long = "suite",
        value_enum,
        value_name = "SUITE",
        default_value = "trixie"
    )]
    suites: Vec<Suite>,
    /// Where the newcomer's Rust comes from
    #[arg(long, value_enum, default_value = "rustup")]
    rust: Rust,
    /// Stop when the set-up is complete
    #[arg(long)]
    only_setup: bool,
    /// Raise the lab at once, without the set-up before it, and tell how long it took from the clone on
    #[arg(long, conflicts_with = "only_setup")]
    only_lab: bool,
    /// Try this commit instead of the last one, to compare how long its lab takes
    #[arg(long, value_name = "REVISION", requires = "only_lab")]
    commit: Option<String>,
    /// Run all tests there, too
    #[arg(long, conflicts_with = "only_setup")]
    tests: bool,
}

/// Tries each release from scratch.
///
/// # Errors
/// With the first thing that a newcomer would have met; [`Unmet`] without root or apt.
pub(crate) fn run(console: Console, args: &Args) -> Result<()> {
    if !setup::is_root() {
        return Err(Unmet("run it as root: it starts containers".to_owned()).into());
    }
    let apt = Apt::find(console).ok_or_else(|| {
        Unmet("run it on Debian: the releases come from there, by apt".to_owned())
    })?;
    apt.install("distro", &["git", "slirp4netns"])?;
    for suite in &args.suites {
        try_out(console, &apt, *suite, args)
            .with_context(|| format!("as a newcomer on {suite}, with Rust {}", args.rust))?;
    }
    Ok(())
}

fn try_out(console: Console, apt: &Apt, suite: Suite, args: &Args) -> Result<()> {
    let netns = format!("distro-{suite}");
    let uplink = Uplink::open(&netns)?;
    let plan = Plan {
        name: "distro",
        suite,
        packages: &NEEDED,
        netns: &netns,
    };
    let machine = Machine::start(console, apt, &plan)?;
    Uplink::serve(&machine)?;
    args.rust.install(console, &machine, suite)?;
    let newcomer = Newcomer { console, machine };

    newcomer.packs()?;
    let started = Instant::now();
    newcomer.clones(args.commit.as_deref())?;
    if !args.only_lab {
        newcomer.sets_up(args.rust)?;
    }
    if !args.only_setup {
        newcomer.raises_a_lab()?;
        let seconds = started.elapsed().as_secs();
        console.say(
            "distro",
            format_args!("{suite}: up {seconds} s after the clone began"),
        );
        newcomer.takes_it_down()?;
    }
    if args.tests {
        newcomer.does("run all tests", "cargo xtask test")?;
    }
    newcomer.machine.stop()?;
    uplink.close()?;
    console.say("distro", format_args!("{suite}: as it should be"));
    Ok(())
}

/// Somebody with a shell on the machine.
struct Newcomer {
    console: Console,
    machine: Machine,
}

impl Newcomer {
    /// Runs a command line in the checkout, with the time that it takes.
    fn does(&self, doing: &str, line: &str) -> Result<()> {
        let mut command = self.machine.command(&inside(line))?;
        self.console.run("distro", doing, &mut command)
    }

    /// Runs a command line in the checkout; what it prints.
    fn sees(&self, line: &str) -> Result<String> {
        self.machine.run(&inside(line))
    }

    /// Puts there what is cloned: this checkout with its history.
    fn packs(&self) -> Result<()> {
        let mut bundle = Command::new("git");
        bundle
            .arg("-C")
            .arg(workspace::root())
            .args(["bundle", "create"])
            .arg(self.machine.path(BUNDLE))
            .arg("HEAD");
        self.console
            .run("distro", "pack this checkout's last commit", &mut bundle)
    }

    fn clones(&self, commit: Option<&str>) -> Result<()> {
        self.machine.run(&format!("git clone {BUNDLE} {CLONE}"))?;
        if let Some(commit) = commit {
            self.sees(&format!("git checkout --quiet {commit}"))?;
        }
        Ok(())
    }

    /// The set-up finds or brings everything, and then finds it.
    fn sets_up(&self, rust: Rust) -> Result<()> {
        let before = rust.belongings(&self.machine)?;
        self.does("cargo xtask setup", "cargo xtask setup")?;
        let again = self.sees("cargo xtask setup")?;
        ensure!(
            !again.contains('…'),
            "the second set-up did something:\n{again}"
        );
        let after = rust.belongings(&self.machine)?;
        ensure!(
            before == after,
            "the newcomer's own Rust is not what it was: {before}, and then {after}"
        );
        self.console
            .say("distro", format_args!("it found:\n{again}"));
        Ok(())
    }

    fn raises_a_lab(&self) -> Result<()> {
        self.does("cargo xtask lab up", "cargo xtask lab up")?;
        let matrix = self.sees("cargo xtask lab check")?;
        // The second is how an earlier commit says it.
        let is_whole = ["48/48 pings", "48 of 48 pings"]
            .iter()
            .any(|words| matrix.contains(words));
        ensure!(is_whole, "{matrix}");
        self.console.say("distro", "48/48 pings");
        Ok(())
    }

    fn takes_it_down(&self) -> Result<()> {
        self.sees("cargo xtask lab down")?;
        let left = self.sees("ip netns list; ls /sys/fs/bpf/overlay 2>/dev/null || true")?;
        ensure!(left.trim().is_empty(), "the lab has left {left}");
        Ok(())
    }
}

fn inside(line: &str) -> String {
    format!("export PATH=/root/.cargo/bin:$PATH; cd {CLONE}; {line}")
}
