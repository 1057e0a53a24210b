//! Virtual machines that run tests and end.

use std::{
    fmt,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};

use super::{
    arch::Arch, archive::Archive, counted::Counted, kernel::Kernel, nic::Nic, tether,
    verifier::Verified, wire,
};
use crate::console::Console;

/// What has to be installed: what makes a RAM disk.
pub(super) const PACKAGES: [&str; 4] = ["binutils", "cpio", "kmod", "xz-utils"];
/// The emulator, and the RAM disk's shell. They are not installed: the one that this machine
/// follows may be too old for newer kernels (7.2 loses processor flags, and they crash), and
/// either may be at odds with what is installed.
const SHELL: &str = "busybox-static";
/// Where they come from.
pub(super) const SUITES: [&str; 2] = ["bookworm", "bookworm-backports"];
/// Where they have their libraries, below the folder that they are unpacked into.
const LIBRARIES: [&str; 2] = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"];
/// Where they have their firmware.
const FIRMWARE: [&str; 3] = ["usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu"];

/// One processor, each of whose instructions takes a nanosecond of the machine's own time, and that
/// sleeps no time of ours. What it takes for random, and the time of day, are the same each time.
const COUNTING: [&str; 8] = [
    "-icount",
    "shift=0,sleep=off",
    "-smp",
    "1",
    "-seed",
    "1",
    "-rtc",
    "base=2026-01-01T00:00:00,clock=vm",
];

/// What runs the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Accelerator {
    /// The emulator: everywhere, and slowly
    Tcg,
    /// KVM, where available
    Kvm,
}

impl Accelerator {
    const fn name(self) -> &'static str {
        match self {
            Self::Tcg => "tcg",
            Self::Kvm => "kvm",
        }
    }
}

/// An emulator.
pub(super) struct Emulator {
    root: PathBuf,
    arch: Arch,
    accelerator: Accelerator,
    /// How many each machine has.
    pub(super) processors: u8,
}

/// The machine to boot.
#[derive(Clone, Copy)]
pub(super) struct Guest<'a> {
    pub(super) kernel: &'a Kernel,
    pub(super) image: &'a Path,
    /// The tests, as the RAM disk's first program takes them.
    pub(super) tests: &'a str,
    /// How many packets the programs are tried with.
    pub(super) fuzz_runs: u64,
    /// Whether its clock counts instructions.
    pub(super) counts: bool,
    /// The cards of two machines.
    pub(super) nic: Nic,
    /// Where another build of the agent lies in its RAM disk, if one does.
    pub(super) baseline: Option<&'static str>,
    /// Where its console goes.
    pub(super) folder: &'a Path,
}

/// The outcome of one test.
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

/// What a machine's console told.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Told {
    pub(super) results: Vec<TestResult>,
    pub(super) verified: Vec<Verified>,
    pub(super) counted: Vec<Counted>,
}

impl Emulator {
    /// The emulator of an archive, unpacked with all that it needs.
    pub(super) fn find(
        console: Console,
        archive: &Archive,
        arch: Arch,
        accelerator: Accelerator,
    ) -> Result<Self> {
        let root = archive.folder().join(arch.tools());
        let packages = [arch.emulator().0, SHELL].map(str::to_owned);
        archive.unpack_with_dependencies(&packages, &root)?;
        console.say("vm", format_args!("emulator in {}", root.display()));
        Ok(Self {
            root,
            arch,
            accelerator,
            processors: 1,
        })
    }

    /// The RAM disk's shell for this machine's processor, which is linked to nothing.
    pub(super) fn busybox(&self) -> PathBuf {
        self.root.join("bin/busybox")
    }

    /// Boots a machine of its own, and reads from its console how the tests went.
    pub(super) fn boot(&self, console: Console, guest: Guest<'_>, limit: Duration) -> Result<Told> {
        let mut argv = self.argv(guest, "");
        argv.extend(["-nic", "none"].map(str::to_owned));
        let mut qemu = Command::new(&argv[0]);
        qemu.args(&argv[1..]);
        let doing = format!("tests on kernel {}", guest.kernel.version);
        self.watch(
            console,
            &doing,
            &guest.folder.join("console.log"),
            limit,
            qemu,
        )
    }

    /// Boots two machines that a wire joins; the tests run on the first.
    pub(super) fn boot_two(
        &self,
        console: Console,
        guest: Guest<'_>,
        limit: Duration,
    ) -> Result<Told> {
        let second = guest.folder.join("second.log");
        let machines = wire::nodes(guest.nic)?.map(|node| {
            let mut argv = self.argv(guest, &node.parameters());
            argv.extend(node.arguments());
            argv
        });
        let doing = format!("tests on two machines with kernel {}", guest.kernel.version);
        let qemu = wire::join(guest.nic, &machines, &second);
        self.watch(
            console,
            &doing,
            &guest.folder.join("first.log"),
            limit,
            qemu,
        )
    }

    fn watch(
        &self,
        console: Console,
        doing: &str,
        log: &Path,
        limit: Duration,
        mut qemu: Command,
    ) -> Result<Told> {
        let output = File::create(log).with_context(|| format!("create {}", log.display()))?;
        // Modules of an installed emulator of another version do not fit.
        let modules = self.root.join(LIBRARIES[1]).join("qemu");
        qemu.env("QEMU_MODULE_DIR", modules).stdin(Stdio::null());
        tether::tie(&mut qemu);
        console.run_into("vm", doing, limit, output, &mut qemu)?;
        let text = fs::read(log).with_context(|| format!("read {}", log.display()))?;
        Ok(Told::read(&String::from_utf8_lossy(&text)))
    }

    /// The command line of one machine, but for its network.
    fn argv(&self, guest: Guest<'_>, parameters: &str) -> Vec<String> {
        let path = |path: &Path| path.display().to_string();
        let unpacked = |place: &str| path(&self.root.join(place));
        // Its own loader takes its own C library, whichever this machine has.
        let mut argv = vec![
            unpacked("lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"),
            "--library-path".to_owned(),
            LIBRARIES.map(unpacked).join(":"),
            unpacked(self.arch.emulator().1),
        ];
        for folder in FIRMWARE.map(unpacked) {
            argv.extend(["-L".to_owned(), folder]);
        }
        let fixed = ["-accel", self.accelerator.name(), "-m", "2048"];
        let fixed = fixed.iter().chain(self.arch.machine());
        argv.extend(fixed.map(|&word| word.to_owned()));
        if self.processors > 1 {
            argv.extend(["-smp".to_owned(), self.processors.to_string()]);
        }
        if guest.counts {
            argv.extend(COUNTING.map(str::to_owned));
        }
        argv.extend(["-nographic", "-no-reboot", "-append"].map(str::to_owned));
        let baseline = guest.baseline;
        let baseline =
            baseline.map_or_else(String::new, |path| format!(" OVERLAY_BASELINE={path}"));
        argv.push(format!(
            "console={} {} quiet panic=-1 TESTS={} OVERLAY_FUZZ_RUNS={}{baseline} {parameters}",
            self.arch.console(),
            self.arch.parameters(),
            guest.tests,
            guest.fuzz_runs
        ));
        argv.extend(["-kernel".to_owned(), path(&guest.kernel.image)]);
        argv.extend(["-initrd".to_owned(), path(guest.image)]);
        argv
    }
}

impl Told {
    /// Reads the lines that the RAM disk's first program and the tests print.
    fn read(console: &str) -> Self {
        let mut told = Self::default();
        let mut summary = String::new();
        for line in console.lines().map(str::trim) {
            if let Some(text) = line.strip_prefix("test result: ") {
                text.clone_into(&mut summary);
            }
            told.verified.extend(Verified::parse(line));
            told.counted.extend(Counted::parse(line));
            let Some((test, status)) = line
                .strip_prefix("overlay-vm: ")
                .and_then(|result| result.rsplit_once(' '))
            else {
                continue;
            };
            told.results.push(TestResult {
                test: test.to_owned(),
                passed: status == "0",
                summary: std::mem::take(&mut summary),
            });
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_console_tells_how_each_test_went() {
        let console = "running 2 tests\r\ntest result: ok. 2 passed; 0 failed\r\n\
                       overlay-vm: programs 0\r\ntest result: FAILED. 1 passed; 1 failed\r\n\
                       overlay-vm: repair 101\r\noverlay-vm: end\r\n";
        let told = Told::read(console);
        assert_eq!(told.results.len(), 2);
        assert!(told.results[0].passed && !told.results[1].passed);
        assert_eq!(
            told.results[1].to_string(),
            "repair FAILED: FAILED. 1 passed; 1 failed"
        );
    }

    #[test]
    fn the_console_tells_what_was_verified() {
        let console = "overlay-vm: programs 0\r\nverifier: {\"program\":\"from_host\",\"walked\":1,\
                       \"translated\":2,\"machine_code\":3}\r\n";
        assert_eq!(Told::read(console).verified.len(), 1);
    }
}
