//! Completes the eBPF build chain: what is there is used, else Debian's matched
//! set is unpacked beside the user's compilers, else rustup is asked.

mod next;

use std::{
    fs::{self, File},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Error, Result};

use super::{Unmet, apt::Apt, bpf_linker, debian_rust, is_root};
use crate::{
    console::Console,
    toolchain::{
        Chain, Compiler, compilers, find, linkers, on_path, overridden, private_compiler,
        probe_compiler,
    },
};
use next::{Facts, Next, Rustup, Step};

/// A download by rustup that takes longer is given up.
const RUSTUP_LIMIT: Duration = Duration::from_mins(5);

/// Finds the chain, or completes it step by step.
///
/// # Errors
/// [`Unmet`] when no step is left that could.
pub(super) fn ensure(console: Console, apt: Option<&Apt>) -> Result<()> {
    let chain = match Chain::choose(&compilers(), &linkers()) {
        Some(chain) => chain,
        None => complete(console, apt)?,
    };
    console.say("compiler", &chain.compiler);
    console.say("linker", &chain.linker);
    Ok(())
}

fn complete(console: Console, apt: Option<&Apt>) -> Result<Chain> {
    let _one_at_a_time = lock()?;
    let mut taken = Vec::new();
    let mut failures = Vec::new();
    loop {
        match gather(apt, &taken).next() {
            Next::Ready(chain) => return Ok(chain),
            Next::Stuck => return Err(stuck(apt, &failures)),
            Next::Take(step) => {
                taken.push(step);
                match take(step, console, apt) {
                    Ok(()) => {}
                    // The user can remove this obstacle; a way around it could only be worse.
                    Err(error) if error.is::<Unmet>() => return Err(error),
                    Err(error) => {
                        console.say(
                            step.subject(),
                            format_args!("{step}: failed, looking for another way"),
                        );
                        failures.push(format!("{step}: {error:#}"));
                    }
                }
            }
        }
    }
}

fn gather(apt: Option<&Apt>, taken: &[Step]) -> Facts {
    let compilers = compilers();
    let mut llvms: Vec<u32> = compilers.iter().map(|compiler| compiler.llvm).collect();
    llvms.retain(|llvm| bpf_linker::can_be_built(apt, *llvm));
    Facts {
        overridden: overridden().is_some(),
        linkers: linkers(),
        compilers,
        debian: apt.is_some_and(debian_rust::is_offered),
        llvms,
        rustup: match on_path("rustup") {
            None => Rustup::Absent,
            Some(_) if probe_compiler("nightly").is_some() => Rustup::Nightly,
            Some(_) => Rustup::NoNightly,
        },
        taken: taken.to_vec(),
    }
}

fn take(step: Step, console: Console, apt: Option<&Apt>) -> Result<()> {
    let rustup = |args: &[&str]| {
        let mut command = Command::new("rustup");
        command.args(args);
        console.run_within(
            "compiler",
            &format!("rustup {}", args.join(" ")),
            RUSTUP_LIMIT,
            &mut command,
        )
    };
    match step {
        Step::BuildLinker { llvm } => bpf_linker::build(console, apt, llvm),
        Step::UnpackDebian => debian_rust::unpack(console, apt.context("apt is not there")?),
        Step::AddSource => rustup(&["component", "add", "rust-src", "--toolchain", "nightly"]),
        Step::InstallNightly => rustup(&[
            "toolchain",
            "install",
            "nightly",
            "--profile",
            "minimal",
            "--component",
            "rust-src",
        ]),
    }
}

/// Keeps others from completing the same chain at the same time.
fn lock() -> Result<File> {
    let prefix = private_compiler()
        .context("find a place for the chain: neither HOME nor XDG_CACHE_HOME is set")?;
    let folder = prefix.parent().context("find a place for the chain")?;
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    let path = folder.join("lock");
    let lock = File::create(&path).with_context(|| format!("create {}", path.display()))?;
    lock.lock()
        .with_context(|| format!("lock {}", path.display()))?;
    Ok(lock)
}

/// What is still missing, and who can provide it.
fn stuck(apt: Option<&Apt>, failures: &[String]) -> Error {
    let mut cure = find()
        .err()
        .unwrap_or_else(|| "the eBPF build chain is not complete".to_owned());
    if apt.is_some() && !is_root() {
        cure += ": run `cargo xtask setup` as root, who can use apt, or";
    } else {
        cure += ":";
    }
    if !compilers().iter().any(Compiler::is_usable) {
        cure += " install one by `rustup toolchain install nightly --component rust-src`, or name a \
                 toolchain in OVERLAY_EBPF_TOOLCHAIN, and";
    }
    cure += " put bpf-linker into PATH (`cargo binstall bpf-linker`, or from the releases \
             of aya-rs/bpf-linker)";
    for failure in failures {
        cure += "\n    ";
        cure += failure;
    }
    Unmet(cure).into()
}
