//! Processors that machines are emulated with.

use std::fmt;

use crate::setup::cross::Target;

/// A processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Arch {
    /// 64-bit x86
    Amd64,
    /// 64-bit Arm
    Arm64,
}

/// Size of a page of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Pages {
    #[value(name = "4k")]
    Four,
    /// On arm64, as on a Raspberry Pi 5
    #[value(name = "16k")]
    Sixteen,
}

impl Arch {
    /// As Debian calls it.
    pub(super) const fn debian(self) -> &'static str {
        self.target().debian()
    }

    /// As rustc calls it.
    pub(super) const fn target(self) -> Target {
        match self {
            Self::Amd64 => Target::X86_64,
            Self::Arm64 => Target::Aarch64,
        }
    }

    /// The package with its emulator, and the program in it.
    pub(super) const fn emulator(self) -> (&'static str, &'static str) {
        match self {
            Self::Amd64 => ("qemu-system-x86", "usr/bin/qemu-system-x86_64"),
            Self::Arm64 => ("qemu-system-arm", "usr/bin/qemu-system-aarch64"),
        }
    }

    /// Where an archive's emulator is unpacked.
    pub(super) const fn tools(self) -> &'static str {
        match self {
            Self::Amd64 => "tools",
            Self::Arm64 => "tools-for-arm64",
        }
    }

    /// The machine that is emulated.
    pub(super) const fn machine(self) -> &'static [&'static str] {
        match self {
            Self::Amd64 => &["-cpu", "max"],
            // Real pointer authentication takes most of the emulator's time.
            Self::Arm64 => &["-machine", "virt", "-cpu", "max,pauth-impdef=on"],
        }
    }

    /// What its kernel is told besides. On a busy machine the emulator is late with the interrupts by which
    /// Linux on x86 finds out, at its start, whether the timer works, and it would give up.
    pub(super) const fn parameters(self) -> &'static str {
        match self {
            Self::Amd64 => "no_timer_check",
            Self::Arm64 => "",
        }
    }

    /// Its first serial line.
    pub(super) const fn console(self) -> &'static str {
        match self {
            Self::Amd64 => "ttyS0",
            Self::Arm64 => "ttyAMA0",
        }
    }

    /// The package that always depends on a suite's newest kernel, with the drivers of real
    /// hardware or the cloud's alone; `None` where there is none.
    pub(super) const fn newest_kernel(
        self,
        pages: Pages,
        all_drivers: bool,
    ) -> Option<&'static str> {
        Some(match (self, pages, all_drivers) {
            (Self::Amd64, Pages::Four, false) => "linux-image-cloud-amd64",
            (Self::Amd64, Pages::Four, true) => "linux-image-amd64",
            (Self::Arm64, Pages::Four, false) => "linux-image-cloud-arm64",
            (Self::Arm64, Pages::Four, true) => "linux-image-arm64",
            (Self::Arm64, Pages::Sixteen, _) => "linux-image-arm64-16k",
            (Self::Amd64, Pages::Sixteen, _) => return None,
        })
    }

    /// The folder of its kernel's modules for this processor alone.
    pub(super) const fn crypto(self) -> &'static str {
        match self {
            Self::Amd64 => "arch/x86/crypto",
            Self::Arm64 => "arch/arm64/crypto",
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.debian())
    }
}
