//! `cargo xtask ci`: form, lints and dependencies, then all tests, and some on other kernels.

mod layers;

use std::{env::consts::ARCH, process::Command};

use anyhow::{Context as _, Error, Result};

use crate::{
    console::Console,
    setup::{
        self, Apt, Unmet,
        cross::{Cross, Target},
    },
    steps::Steps,
    test, toolchain, vm, workspace,
};

/// The crate that is built for the kernel.
const EBPF: &str = "overlay-ebpf";

/// Runs every check; the first that fails ends it. Says at the end where the time went.
pub(crate) fn run(console: Console) -> Result<()> {
    test::require_root()?;
    let mut steps = Steps::new(console);
    let outcome = check(console, &mut steps);
    steps.tell();
    outcome
}

fn check(console: Console, steps: &mut Steps) -> Result<()> {
    steps.take("set-up", || setup::run_for_tests(console))?;
    layers::check()?;
    console.say("layers", "every layer keeps to its dependencies");

    let mut fmt = workspace::cargo();
    console.run(
        "format",
        "cargo fmt --check",
        fmt.args(["fmt", "--all", "--", "--check"]),
    )?;
    steps.take("clippy, for this machine", || clippy(console))?;
    steps.take("check for arm64", || check_elsewhere(console))?;
    steps.take("clippy, for the kernel", || clippy_of_programs(console))?;
    test::run_all(console, steps, &test::Args::default())?;
    steps.take("virtual machines", || vm::run(console, &vm::Args::in_ci()))
}

fn clippy(console: Console) -> Result<()> {
    let mut clippy = workspace::cargo();
    clippy.args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "--deny",
        "warnings",
    ]);
    console.run("lints", "cargo clippy, for this machine", &mut clippy)
}

/// The programs as they carry the traffic, and as they are watched.
fn clippy_of_programs(console: Console) -> Result<()> {
    for features in ["", "watched"] {
        match ebpf_clippy(features)? {
            Some(mut clippy) => {
                console.run("lints", "cargo clippy, for the kernel", &mut clippy)?;
            }
            None => console.say(
                "lints",
                "not for the kernel: the eBPF toolchain has no clippy",
            ),
        }
    }
    Ok(())
}

/// Compiles all of it for the other processors that are supported, but links nothing.
fn check_elsewhere(console: Console) -> Result<()> {
    let apt = Apt::find(console);
    let target = Target::Aarch64;
    if Target::host() == Some(target) {
        return Ok(());
    }
    // Libraries compile C for it even then.
    let cross = match Cross::to_build(console, apt.as_ref(), target) {
        Ok(cross) => cross,
        Err(error) if error.is::<Unmet>() => {
            console.say("arm64", format_args!("not checked: {error}"));
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let mut check = cross.cargo("check")?;
    // The tests are built for it by `cargo xtask vm --arch arm64`.
    check.args(["--workspace", "--exclude", EBPF]);
    console.run("arm64", &format!("cargo check, for {target}"), &mut check)
}

/// clippy of the eBPF toolchain on the eBPF crate; `None` when it has none.
fn ebpf_clippy(features: &str) -> Result<Option<Command>> {
    let chain = toolchain::find().map_err(Error::msg)?;
    let clippy = || toolchain::program(&chain.compiler.toolchain, "cargo-clippy");
    if !clippy()
        .arg("--version")
        .output()
        .is_ok_and(|output| output.status.success())
    {
        return Ok(None);
    }
    let mut clippy = clippy();
    clippy
        .current_dir(workspace::root())
        .envs(
            chain
                .environment()
                .context("put the eBPF build chain into PATH")?,
        )
        .env(
            "CARGO_ENCODED_RUSTFLAGS",
            format!("--cfg=bpf_target_arch=\"{ARCH}\""),
        )
        .args(["clippy", "--package", EBPF, "--release", "-Zbuild-std=core"])
        .args(["--features", features])
        .args(["--target", "bpfel-unknown-none", "--target-dir"])
        .arg(workspace::target()?.join("xtask/clippy"))
        .args(["--", "--deny", "warnings"]);
    Ok(Some(clippy))
}
