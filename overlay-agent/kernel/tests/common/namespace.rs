//! A network namespace for a test.

use std::{
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use overlay_core::{identity::Made, model::Name};
use overlay_kernel::netns;

/// A namespace that goes when the test ends, however it ends.
pub(crate) struct Namespace {
    pub(crate) name: Name,
    pub(crate) made: Made,
}

impl Namespace {
    /// One whose name begins with this, and is no other test's.
    pub(crate) fn named(prefix: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name: Name = format!("{prefix}{}.{number}", std::process::id())
            .parse()
            .unwrap();
        let unnamed =
            netns::create().unwrap_or_else(|error| panic!("this test needs root: {error}"));
        let made = unnamed.made.clone();
        unnamed.name(&name).unwrap();
        Self { name, made }
    }

    pub(crate) fn path(&self) -> PathBuf {
        netns::path_of(&self.name)
    }

    /// Does something on a thread in it.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        netns::run_in(&self.path(), work).unwrap()
    }

    /// Runs a command in it, as a second opinion or as somebody else.
    pub(crate) fn run(&self, command: &str) -> String {
        let words: Vec<&str> = command.split(' ').collect();
        self.run_words(&words)
    }

    /// The same, with words that may have spaces in them.
    pub(crate) fn run_words(&self, words: &[&str]) -> String {
        let output = Command::new("nsenter")
            .arg(format!("--net={}", self.path().display()))
            .args(words)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{words:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = netns::delete(&self.name, &self.made) {
            eprintln!("{error}");
        }
    }
}
