//! Completes the eBPF build chain: what is there is used, else Debian's matched set is
//! unpacked beside the user's compilers, else rustup is asked for the source of its own.

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
        Chain, Compiler, OLDEST_LINKER, OLDEST_RUSTC, compilers, is_directory_toolchain, linkers,
        on_path, overridden, private_compiler,
    },
};
use next::{Facts, Next, Step};

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
                match take(&step, console, apt) {
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
                taken.push(step);
            }
        }
    }
}

fn gather(apt: Option<&Apt>, taken: &[Step]) -> Facts {
    let compilers = compilers();
    let debian = apt.and_then(|apt| debian_rust::offered(apt).ok()?.llvm());
    let mut llvms: Vec<u32> = compilers.iter().map(|compiler| compiler.llvm).collect();
    llvms.extend(debian);
    llvms.sort_unstable();
    llvms.dedup();
    llvms.retain(|llvm| bpf_linker::can_be_built(apt, *llvm));
    Facts {
        overridden: overridden().is_some(),
        linkers: linkers(),
        compilers,
        source: apt.and_then(debian_rust::missing_source),
        debian,
        llvms,
        taken: taken.to_vec(),
    }
}

fn take(step: &Step, console: Console, apt: Option<&Apt>) -> Result<()> {
    let apt_there = || apt.context("apt is not there");
    match step {
        Step::BuildLinker { llvm } => bpf_linker::build(console, apt, *llvm),
        Step::InstallSource { package } => apt_there()?.install("compiler", &[package]),
        Step::UnpackDebian => debian_rust::unpack(console, apt_there()?),
        Step::AddSource { toolchain } => {
            let mut rustup = Command::new("rustup");
            rustup.args(["component", "add", "rust-src", "--toolchain", toolchain]);
            let doing = format!("rustup component add rust-src --toolchain {toolchain}");
            console.run_within("compiler", &doing, RUSTUP_LIMIT, &mut rustup)
        }
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

/// What to do, beginning with what helps most, and then what has failed.
fn stuck(apt: Option<&Apt>, failures: &[String]) -> Error {
    let mut lines = vec![cure(apt, &compilers())];
    if let Some(Err(reason)) = apt.map(debian_rust::offered) {
        lines.push(format!("Debian's compiler cannot be used: {reason:#}"));
    }
    lines.extend(failures.iter().cloned());
    Unmet(lines.join("\n    ")).into()
}

fn cure(apt: Option<&Apt>, compilers: &[Compiler]) -> String {
    if let Some(compiler) = compilers.iter().find(|compiler| compiler.is_usable()) {
        return format!(
            "put bpf-linker {OLDEST_LINKER} or later into PATH (`cargo binstall bpf-linker`, or \
             from the releases of aya-rs/bpf-linker): there is none for {compiler}"
        );
    }
    if let Some(name) = overridden() {
        let source = format!("rustc {OLDEST_RUSTC} or later with the source of core (rust-src)");
        return format!("let OVERLAY_EBPF_TOOLCHAIN name a {source}, or unset it: {name} is none");
    }
    if apt.is_some() && !is_root() {
        return "run `cargo xtask setup` as root, who can use apt: there is no compiler with the \
                source of core (rust-src)"
            .to_owned();
    }
    let mut toolchains = compilers.iter().filter(|compiler| {
        compiler.is_new_enough() && !is_directory_toolchain(&compiler.toolchain)
    });
    let command = match (toolchains.next(), on_path("rustup")) {
        (Some(Compiler { toolchain, .. }), _) => {
            format!("`rustup component add rust-src --toolchain {toolchain}`")
        }
        (None, Some(_)) => "`rustup toolchain install stable --component rust-src`".to_owned(),
        (None, None) => "rustup's installer (https://rustup.rs) and add rust-src".to_owned(),
    };
    format!(
        "run {command}, or name a toolchain in OVERLAY_EBPF_TOOLCHAIN: there is no rustc \
         {OLDEST_RUSTC} or later with the source of core (rust-src)"
    )
}
