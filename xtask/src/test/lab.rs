//! The tests in the kernel and in the lab, and those that failed once more.
//!
//! A lab is dozens of processes on a machine that others may use, too, where a frame or a timer
//! can be late. So all tests run, and then those programs again in which one failed: what fails
//! twice is a failure, and what passes the second time is told, not hidden.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::console::Console;

/// Runs tests, and what fails a second time.
///
/// `tests` makes cargo's command for the test programs that such words select.
///
/// # Errors
/// When a test fails twice, or a test program cannot be built or started.
pub(super) fn run(
    console: Console,
    which: &[String],
    tests: impl Fn(&[String]) -> Command,
) -> Result<()> {
    let failed = once(&mut tests(which))?;
    if failed.is_empty() {
        return Ok(());
    }
    let told = names(&failed);
    console.say("second run", format_args!("of what failed: {told}"));
    let mut again = Vec::new();
    for words in &failed {
        again.extend(once(&mut tests(words))?);
    }
    if again.is_empty() {
        console.say("flaky", format_args!("failed once and passed then: {told}"));
        return Ok(());
    }
    bail!("tests failed twice: {}", names(&again))
}

fn names(programs: &[Vec<String>]) -> String {
    let names: Vec<String> = programs.iter().map(|words| words.join(" ")).collect();
    names.join(", ")
}

/// Runs tests; the words that select each test program in which one failed.
fn once(command: &mut Command) -> Result<Vec<Vec<String>>> {
    let mut child = command
        .stderr(Stdio::piped())
        .spawn()
        .context("run cargo test")?;
    let stderr = child.stderr.take().context("read what cargo says")?;
    let mut failed = Vec::new();
    for line in BufReader::new(stderr).split(b'\n') {
        let line = line.context("read what cargo says")?;
        let line = String::from_utf8_lossy(&line);
        eprintln!("{line}");
        failed.extend(selection(&line));
    }
    let status = child.wait().context("wait for cargo test")?;
    ensure!(
        status.success() || !failed.is_empty(),
        "cargo test failed before a test did ({status})"
    );
    Ok(failed)
}

/// The words with which cargo, at its end, names a test program that failed.
fn selection(line: &str) -> Option<Vec<String>> {
    let words = line.trim().strip_prefix("`-p ")?.strip_suffix('`')?;
    let (_, target) = words.split_once(' ')?;
    Some(target.split(' ').map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::selection;

    #[test]
    fn cargo_names_what_failed_at_its_end() {
        let words = |line| selection(line).map(|words| words.join(" "));
        let told = "    `-p overlay-tests --test conformance`";
        assert_eq!(words(told).as_deref(), Some("--test conformance"));
        let lib = "    `-p overlay-tests --lib`";
        assert_eq!(words(lib).as_deref(), Some("--lib"));
        let at_once = "error: test failed, to rerun pass `-p overlay-tests --test stale`";
        assert_eq!(words(at_once), None);
        assert_eq!(words("error: 2 targets failed:"), None);
    }
}
