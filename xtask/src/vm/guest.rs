//! A virtual machine that runs the tests and ends.

use std::{
    fmt,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};

use super::{archive::Archive, kernel::Kernel};
use crate::console::Console;

/// What has to be installed: the emulator's libraries and firmware, and what makes a RAM disk.
pub(super) const PACKAGES: [&str; 5] = [
    "qemu-system-x86",
    "busybox-static",
    "cpio",
    "kmod",
    "xz-utils",
];
/// The emulator itself, in a version that runs newer kernels: 7.2 loses processor flags,
/// and they crash.
const EMULATOR: [&str; 3] = ["qemu-system-x86", "qemu-system-common", "qemu-system-data"];

/// An emulator.
pub(super) struct Emulator {
    root: PathBuf,
}

/// What became of one test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TestResult {
    test: String,
    pub(super) passed: bool,
    /// The last line that its harness printed.
    summary: String,
}

impl fmt::Display for TestResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.passed { "passed" } else { "FAILED" };
        write!(f, "{} {verdict}: {}", self.test, self.summary)
    }
}

impl Emulator {
    /// The emulator of a suite, unpacked beside its packages.
    pub(super) fn find(console: Console, archive: &Archive) -> Result<Self> {
        let root = archive.folder().join("qemu");
        archive.unpack(&EMULATOR.map(str::to_owned), &root)?;
        console.say("vm", format_args!("emulator in {}", root.display()));
        Ok(Self { root })
    }

    /// Boots a kernel with a RAM disk, and reads from its console how the tests went.
    pub(super) fn boot(
        &self,
        console: Console,
        kernel: &Kernel,
        image: &Path,
        log: &Path,
        limit: Duration,
    ) -> Result<Vec<TestResult>> {
        let output = File::create(log).with_context(|| format!("create {}", log.display()))?;
        let share = self.root.join("usr/share");
        let mut qemu = Command::new(self.root.join("usr/bin/qemu-system-x86_64"));
        qemu.arg("-L")
            .arg(share.join("qemu"))
            // The firmware has packages of its own, which are installed.
            .args(["-L", "/usr/share/seabios", "-L", "/usr/share/qemu"])
            // Modules of an installed emulator of another version do not fit.
            .env(
                "QEMU_MODULE_DIR",
                self.root.join("usr/lib/x86_64-linux-gnu/qemu"),
            )
            .args(["-accel", "tcg", "-cpu", "max", "-m", "2048", "-nic", "none"])
            .args(["-nographic", "-no-reboot", "-append"])
            .arg("console=ttyS0 quiet panic=-1")
            .arg("-kernel")
            .arg(&kernel.image)
            .arg("-initrd")
            .arg(image)
            .stdin(Stdio::null());
        let doing = format!("tests on kernel {}", kernel.version);
        console.run_into("vm", &doing, limit, output, &mut qemu)?;
        let text = fs::read(log).with_context(|| format!("read {}", log.display()))?;
        Ok(results(&String::from_utf8_lossy(&text)))
    }
}

/// Reads the lines that the RAM disk's first program and the tests print.
fn results(console: &str) -> Vec<TestResult> {
    let mut summary = String::new();
    let mut results = Vec::new();
    for line in console.lines().map(str::trim) {
        if let Some(text) = line.strip_prefix("test result: ") {
            text.clone_into(&mut summary);
        }
        let Some((test, status)) = line
            .strip_prefix("overlay-vm: ")
            .and_then(|result| result.split_once(' '))
        else {
            continue;
        };
        results.push(TestResult {
            test: test.to_owned(),
            passed: status == "0",
            summary: std::mem::take(&mut summary),
        });
    }
    results
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_console_tells_how_each_test_went() {
        let console = "running 2 tests\r\ntest result: ok. 2 passed; 0 failed\r\n\
                       overlay-vm: programs 0\r\ntest result: FAILED. 1 passed; 1 failed\r\n\
                       overlay-vm: repair 101\r\noverlay-vm: end\r\n";
        let results = results(console);
        assert_eq!(results.len(), 2);
        assert!(results[0].passed && !results[1].passed);
        assert_eq!(
            results[1].to_string(),
            "repair FAILED: FAILED. 1 passed; 1 failed"
        );
    }
}
