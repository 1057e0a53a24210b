//! `cargo xtask bench --icount`: instructions that packets take, on one emulated processor whose
//! clock counts them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::{Args, Choice, counted::OnKernel, prepare};
use crate::console::Console;

/// The test that counts.
const TEST: &str = "instructions:per_packet";

/// Boots kernels, one after the other, and writes what packets take on them to a file of `out`.
///
/// # Errors
/// When one does not come to its end.
pub(crate) fn count(
    console: Console,
    kernels: Vec<Choice>,
    agent: Option<PathBuf>,
    baseline: Option<PathBuf>,
    out: &Path,
) -> Result<()> {
    let args = Args {
        kernels,
        tests: vec![TEST.to_owned()],
        agent,
        counts: true,
        baseline,
        ..Args::default()
    };
    let (runner, kernels) = prepare(console, &args)?;
    let outcomes = runner.run(&kernels);
    let mut all = Vec::new();
    for (bootable, outcome) in kernels.into_iter().zip(outcomes) {
        ensure!(
            outcome.passed,
            "kernel {} did not count to the end (console: {})",
            bootable.kernel.version,
            bootable.folder.display()
        );
        let on = OnKernel {
            kernel: bootable.kernel.version,
            figures: outcome.counted,
        };
        println!(
            "\nLinux {}: instructions for each datagram\n{on}",
            on.kernel
        );
        all.push(on);
    }
    let path = out.join("icount.json");
    let text = serde_json::to_string_pretty(&json!({"schema": 1, "kernels": all}))?;
    fs::write(&path, text + "\n").with_context(|| format!("write {}", path.display()))?;
    console.say("written", path.display());
    Ok(())
}
