//! What passed only the second time, run by run: a test that is flaky again and again is at fault,
//! or what it tests is.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use crate::workspace;

/// Runs that are remembered.
const RUNS: usize = 10;

/// The record, one line a run, the latest last; each names what was flaky in it.
#[derive(Debug)]
pub(super) struct Record(PathBuf);

impl Record {
    /// The one in the target directory, which CI keeps.
    pub(super) fn find() -> Result<Self> {
        Ok(Self(workspace::target()?.join("flakes")))
    }

    /// Adds a run with the names of its flaky tests.
    ///
    /// # Errors
    /// When one of them was flaky in an earlier one of the last [`RUNS`], too; the run is noted
    /// all the same.
    pub(super) fn add(&self, flaky: &BTreeSet<String>) -> Result<()> {
        let path = &self.0;
        let before = read(path).with_context(|| format!("read {}", path.display()))?;
        let known = before.lines().rev().take(RUNS - 1);
        let known: BTreeSet<&str> = known.flat_map(str::split_whitespace).collect();
        let again = flaky.iter().filter(|name| known.contains(name.as_str()));
        let again: Vec<&str> = again.map(String::as_str).collect();

        let mut lines: Vec<&str> = before.lines().collect();
        let run = flaky.iter().map(String::as_str).collect::<Vec<_>>();
        let run = run.join(" ");
        lines.push(&run);
        let kept = &lines[lines.len().saturating_sub(RUNS)..];
        fs::write(path, kept.join("\n") + "\n")
            .with_context(|| format!("write {}", path.display()))?;
        if again.is_empty() {
            return Ok(());
        }
        bail!(
            "flaky twice in {RUNS} runs, so it is a fault, of the test or of what it tests: {}; \
             once it is mended, remove its name from {}",
            again.join(", "),
            path.display()
        )
    }
}

fn read(path: &Path) -> io::Result<String> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        read => read,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_time_in_ten_runs_is_one_too_many() {
        let folder = tempfile::tempdir().unwrap();
        let record = Record(folder.path().join("flakes"));
        let flaky = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        record.add(&flaky(&["a::b", "c"])).unwrap();
        for _ in 0..8 {
            record.add(&flaky(&[])).unwrap();
        }
        let error = record.add(&flaky(&["c"])).unwrap_err().to_string();
        assert!(error.contains(": c; once"), "{error}");
        // Ten runs ago is forgotten; what failed counts, too.
        record.add(&flaky(&["a::b"])).unwrap();
        assert!(record.add(&flaky(&["c"])).is_err());
        let lines = fs::read_to_string(&record.0).unwrap();
        assert_eq!(lines.lines().count(), RUNS);
    }
}
