//! `cargo xtask vm`: the tests on other kernels than this machine's.
//!
//! Debian's kernels boot in virtual machines with a RAM disk that holds the agent, the tests
//! and the programs that they run: on one machine alone, and on two with a wire between them.
//! Nothing of it touches this machine's kernel or network.

pub(crate) mod arch;
pub(crate) mod archive;
mod counted;
mod guest;
pub(crate) mod icount;
mod image;
mod kernel;
mod nic;
mod runner;
mod selection;
mod tether;
mod verifier;
mod wire;

use std::{collections::BTreeSet, fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, bail};

use crate::{
    build,
    console::Console,
    setup::{self, Apt, Unmet, cross::Cross},
    test::programs,
    toolchain, workspace,
};
use arch::{Arch, Pages};
use archive::Archive;
use guest::{Accelerator, Emulator};
use kernel::{Kernel, Release};
use nic::Nic;
use runner::{Bootable, Runner};
use selection::Selection;
use verifier::{Table, Verified};

/// Which kernels, and which tests.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The kernels to boot
    #[arg(long = "kernel", value_enum, default_value = "all")]
    kernels: Vec<Choice>,
    /// Run all that makes sense on another kernel, not only what says most in a few minutes
    #[arg(long, conflicts_with_all = ["tests", "pair_tests"])]
    full: bool,
    /// Run these tests alone: a file's name, or `FILE:FILTER`
    #[arg(long = "test", value_name = "TEST")]
    tests: Vec<String>,
    /// Run these alone on the first of two machines
    #[arg(long = "pair-test", value_name = "TEST")]
    pair_tests: Vec<String>,
    /// Minutes after which a machine that is not done is ended
    #[arg(long, default_value_t = 30)]
    minutes: u64,
    /// An agent that is built already, such as a static one, instead of this workspace's
    #[arg(long, env = "OVERLAY_AGENT", value_name = "FILE")]
    agent: Option<PathBuf>,
    /// What runs the machines
    #[arg(long, value_enum, default_value = "tcg")]
    accelerator: Accelerator,
    /// Processors of each machine: what a device has many of, such as queues, it has for them
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=8), conflicts_with = "counts")]
    processors: u8,
    /// The machines' processor
    #[arg(long, value_enum, default_value = "amd64")]
    arch: Arch,
    /// The size of their pages of memory; 16k on arm64 with kernels 6.12 and 7.2
    #[arg(long, value_enum, default_value = "4k")]
    pages: Pages,
    /// Try two machines with such network cards, on Debian's kernels with all drivers
    #[arg(long, value_enum, conflicts_with = "full")]
    nic: Option<Nic>,
    /// As `cargo xtask ci` does it: fewer packets, and of a kernel between two others, whether it takes the
    /// programs, and no more
    #[arg(long, conflicts_with_all = ["full", "nic", "tests", "pair_tests"])]
    brief: bool,
    /// Boot machines whose clock counts instructions: one for a nanosecond
    #[arg(long = "icount", conflicts_with_all = ["pair_tests", "full", "nic"])]
    counts: bool,
    /// Another build of the agent, for the test that counts them
    #[arg(skip)]
    baseline: Option<PathBuf>,
}

impl Default for Args {
    fn default() -> Self {
        Self {
            kernels: vec![Choice::All],
            full: false,
            tests: Vec::new(),
            pair_tests: Vec::new(),
            minutes: 30,
            agent: None,
            accelerator: Accelerator::Tcg,
            processors: 1,
            arch: Arch::Amd64,
            pages: Pages::Four,
            nic: None,
            brief: false,
            counts: false,
            baseline: None,
        }
    }
}

impl Args {
    /// What says most in the least time: the core of the tests on the oldest and the newest
    /// kernel, whose ways of attaching programs are the two that there are, and of those between
    /// them what their verifiers say.
    pub(crate) fn in_ci() -> Self {
        Self {
            brief: true,
            ..Self::default()
        }
    }

    /// The kernels, each with its tests.
    fn selections(&self) -> Vec<(Release, Selection)> {
        let choices = self.kernels.iter();
        let mut releases: Vec<Release> = choices
            .flat_map(|choice| choice.releases())
            .copied()
            .filter(|release| self.pages == Pages::Four || release.has_large_pages())
            .collect();
        releases.dedup();
        let newest = releases
            .iter()
            .rfind(|release| release.is_supported())
            .copied();
        let oldest = releases
            .iter()
            .find(|release| release.is_supported())
            .copied();
        let selections = releases.into_iter().map(|release| {
            let selection = if !(self.tests.is_empty() && self.pair_tests.is_empty()) {
                Selection::of(&self.tests, &self.pair_tests)
            } else if !release.is_supported() {
                Selection::refused()
            } else if self.nic.is_some() {
                Selection::card()
            } else if self.full {
                Selection::full()
            } else if self.brief && ![oldest, newest].contains(&Some(release)) {
                Selection::verified()
            } else if self.brief {
                Selection::core_in_ci(Some(release) == newest)
            } else {
                // Two machines say of one kernel what they would of the others.
                Selection::core(Some(release) == newest)
            };
            let selection = if self.counts {
                selection.counting()
            } else {
                selection
            };
            (release, selection)
        });
        selections.collect()
    }
}

/// A kernel on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Choice {
    /// Too old for the programs, and told so
    #[value(name = "5.10")]
    V5_10,
    #[value(name = "6.1")]
    V6_1,
    #[value(name = "6.12")]
    V6_12,
    #[value(name = "7.2")]
    V7_2,
    /// Those that the programs are for
    All,
}

impl Choice {
    fn releases(self) -> &'static [Release] {
        match self {
            Self::V5_10 => &[Release::V5_10],
            Self::V6_1 => &[Release::V6_1],
            Self::V6_12 => &[Release::V6_12],
            Self::V7_2 => &[Release::V7_2],
            Self::All => &Release::SUPPORTED,
        }
    }
}

/// Sets up what is missing, builds, boots each kernel and runs the tests there.
///
/// # Errors
/// When a test fails on one of them; all are tried. [`Unmet`] without Debian's packages.
pub(crate) fn run(console: Console, args: &Args) -> Result<()> {
    let (runner, kernels) = prepare(console, args)?;
    let outcomes = runner.run(&kernels);

    let mut failed = Vec::new();
    let mut verified: Vec<(String, Vec<Verified>)> = Vec::new();
    for (Bootable { kernel, folder, .. }, outcome) in kernels.into_iter().zip(outcomes) {
        if !outcome.passed {
            failed.push(format!(
                "{} (consoles: {})",
                kernel.version,
                folder.display()
            ));
        }
        if !outcome.verified.is_empty() {
            verified.push((kernel.version, outcome.verified));
        }
    }
    if !verified.is_empty() {
        console.say(
            "verifier",
            "instructions walked / left to run / bytes of machine code",
        );
        println!("{}", Table(&verified));
    }
    if failed.is_empty() {
        return Ok(());
    }
    bail!("not all tests passed on {}", failed.join(", "))
}

/// Sets up what is missing, builds, and makes what each kernel boots.
fn prepare(console: Console, args: &Args) -> Result<(Runner, Vec<Bootable>)> {
    setup::run_for_measuring(console)?;
    let newest = args.arch.newest_kernel(args.pages, args.nic.is_some());
    let newest = newest.ok_or_else(|| {
        Unmet("leave --pages out, or take --arch arm64: amd64 has pages of 4k alone".to_owned())
    })?;
    let apt = Apt::find(console).ok_or_else(|| {
        Unmet("run it on Debian: kernels come from its packages, and there is no apt".to_owned())
    })?;
    let cross = match build::foreign(Some(args.arch.target())) {
        None => None,
        Some(_) if args.accelerator == Accelerator::Kvm => {
            return Err(Unmet("leave --accelerator out: this is another processor".into()).into());
        }
        Some(target) => Some(Cross::to_build(console, Some(&apt), target)?),
    };
    let agent = match (&args.agent, &cross) {
        (Some(agent), _) => agent.clone(),
        (None, None) => build::compile(console)?,
        (None, Some(cross)) => build::compile_for(console, cross, args.arch.target(), "release")?,
    };
    apt.install("vm", &guest::PACKAGES)?;
    let selections = args.selections();
    let all = selections.iter().map(|(_, selection)| selection);
    let files: BTreeSet<&str> = all.flat_map(Selection::files).collect();
    let tests = programs::build(files.into_iter(), cross.as_ref())?;
    let cache = toolchain::cache("vm").context("find the user's cache: set HOME")?;
    let tools = Archive::of(console, &cache, &guest::SUITES, Arch::Amd64)?;
    let mut emulator = Emulator::find(console, &tools, args.arch, args.accelerator)?;
    emulator.processors = args.processors;
    let programs = if cross.is_some() {
        let archive = Archive::of(console, &cache, &guest::SUITES, args.arch)?;
        let root = archive.folder().join("programs");
        archive.unpack_with_dependencies(&image::PACKAGES.map(str::to_owned), &root)?;
        Some(root)
    } else {
        None
    };
    let mut kernels = Vec::new();
    for (release, selection) in selections {
        let archive = Archive::of(console, &cache, release.suite(), args.arch)?;
        let kernel = Kernel::fetch(console, &archive, release, newest)?;
        let folder = workspace::target()?.join("vm").join(&kernel.version);
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        let contents = image::Contents {
            arch: args.arch,
            busybox: &emulator.busybox(),
            programs: programs.as_deref(),
            agent: &agent,
            baseline: args.baseline.as_deref(),
            tests: &tests,
            cards: args.nic.is_some(),
            packing: if selection.counts {
                image::Packing::Quick
            } else {
                image::Packing::Small
            },
        };
        let image = image::build(console, &folder, &kernel, &contents)?;
        kernels.push(Bootable {
            kernel,
            image,
            folder,
            selection,
        });
    }
    let runner = Runner {
        console,
        emulator,
        limit: Duration::from_secs(60 * args.minutes),
        nic: args.nic.unwrap_or(Nic::Virtio),
        baseline: args.baseline.is_some().then_some(image::BASELINE),
    };
    Ok((runner, kernels))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_is_too_old_is_only_refused() {
        let args = Args {
            kernels: vec![Choice::All, Choice::V5_10],
            ..Args::default()
        };
        let selections = args.selections();
        let pairs = |release: Release| {
            let mut of = selections.iter().filter(|(each, _)| *each == release);
            of.next().map(|(_, selection)| selection.pair())
        };
        assert_eq!(pairs(Release::V6_12), Some(String::new()));
        assert!(pairs(Release::V7_2).is_some_and(|tests| !tests.is_empty()));
        let (release, refused) = selections.last().unwrap();
        assert_eq!(*release, Release::V5_10);
        assert_eq!(refused.alone(), "old_kernel");
    }

    #[test]
    fn ci_asks_each_verifier_and_runs_the_core_on_the_oldest_and_the_newest() {
        let selections = Args::in_ci().selections();
        let core = Selection::core(false).alone();
        for (release, selection) in selections {
            let is_core = selection.alone() == core;
            assert_eq!(is_core, release != Release::V6_12, "{release:?}");
            assert!(selection.alone().starts_with("programs:"));
        }
    }

    #[test]
    fn a_card_is_tried_between_two_machines_alone() {
        let args = Args {
            nic: Some(Nic::Igb),
            ..Args::default()
        };
        for (_, selection) in args.selections() {
            assert_eq!(selection.alone(), "");
            assert_eq!(selection.pair(), "machines:card_");
        }
    }

    #[test]
    fn large_pages_leave_out_the_kernels_without_them() {
        let args = Args {
            arch: Arch::Arm64,
            pages: Pages::Sixteen,
            ..Args::default()
        };
        let selections = args.selections();
        let releases: Vec<Release> = selections.iter().map(|(release, _)| *release).collect();
        assert_eq!(releases, [Release::V6_12, Release::V7_2]);
        for pages in [Pages::Four, Pages::Sixteen] {
            assert!(Arch::Arm64.newest_kernel(pages, false).is_some());
        }
        assert!(Arch::Amd64.newest_kernel(Pages::Sixteen, false).is_none());
    }

    #[test]
    fn all_kernels_are_more_than_each() {
        for choice in [Choice::V6_1, Choice::V6_12, Choice::V7_2] {
            assert_eq!(choice.releases().len(), 1);
            assert!(Choice::All.releases().contains(&choice.releases()[0]));
        }
    }
}
