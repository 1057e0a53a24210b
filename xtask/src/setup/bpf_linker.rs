//! A bpf-linker, built with the LLVM of the compiler that it is for.

use std::{
    env,
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::apt::Apt;
use crate::{
    console::Console,
    toolchain::{OLDEST_LINKER, private_linker},
    workspace,
};

/// The versions of LLVM that [`OLDEST_LINKER`] can be built with.
const LLVMS: RangeInclusive<u32> = 21..=23;

/// Whether LLVM's headers are installed where Debian puts them, or apt could install them.
pub(super) fn can_be_built(apt: Option<&Apt>, llvm: u32) -> bool {
    let installed = installed_llvm(llvm).join("bin/llvm-config").exists();
    let listed = |apt: &Apt| apt.offers(&development_package(llvm));
    let offered = || apt.is_some_and(|apt| listed(apt) || (apt.refresh() && listed(apt)));
    LLVMS.contains(&llvm) && (installed || offered())
}

/// Builds it where [`private_linker`] says.
pub(super) fn build(console: Console, apt: Option<&Apt>, llvm: u32) -> Result<()> {
    if let Some(apt) = apt {
        apt.install(
            "linker",
            &[&development_package(llvm), "zlib1g-dev", "libzstd-dev"],
        )?;
    }
    let prefix = private_linker().context("find a place for bpf-linker")?;
    let llvm_prefix = installed_llvm(llvm);
    let mut cargo = workspace::cargo();
    cargo
        .args(["install", "bpf-linker", "--locked", "--force"])
        .args(["--version", &OLDEST_LINKER.to_string()])
        .args([
            "--no-default-features",
            "--features",
            &format!("llvm-{llvm}"),
        ])
        // cargo puts the executable there in one move, when it is complete.
        .arg("--root")
        .arg(prefix)
        // Its artifacts are of no use after that: cargo's temporary folder will do.
        .env_remove("CARGO_TARGET_DIR")
        .env("LLVM_PREFIX", &llvm_prefix)
        // The crate llvm-sys of LLVM 22 has the major version 221.
        .env(format!("LLVM_SYS_{llvm}1_PREFIX"), &llvm_prefix)
        .env("PATH", path_with(&llvm_prefix.join("bin"))?);
    let doing = format!("build bpf-linker {OLDEST_LINKER} with LLVM {llvm}");
    console.run("linker", &doing, &mut cargo)
}

fn development_package(llvm: u32) -> String {
    format!("llvm-{llvm}-dev")
}

/// Where Debian's packages put that LLVM.
fn installed_llvm(llvm: u32) -> PathBuf {
    PathBuf::from(format!("/usr/lib/llvm-{llvm}"))
}

fn path_with(first: &Path) -> Result<std::ffi::OsString> {
    let rest = env::var_os("PATH").unwrap_or_default();
    let all = std::iter::once(first.to_path_buf()).chain(env::split_paths(&rest));
    env::join_paths(all).with_context(|| format!("put {} into PATH", first.display()))
}
