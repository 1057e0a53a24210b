//! Boots kernels, as many at a time as there are processors.

use std::{
    collections::VecDeque,
    num::NonZero,
    path::PathBuf,
    sync::Mutex,
    thread::{self, available_parallelism},
    time::Duration,
};

use super::{
    counted::Counted,
    guest::{Emulator, Guest, Told},
    kernel::Kernel,
    nic::Nic,
    selection::Selection,
    verifier::Verified,
};
use crate::console::Console;

/// A kernel with its RAM disk.
pub(super) struct Bootable {
    pub(super) kernel: Kernel,
    pub(super) image: PathBuf,
    /// For what its machines leave.
    pub(super) folder: PathBuf,
    pub(super) selection: Selection,
}

/// What boots kernels.
pub(super) struct Runner {
    pub(super) console: Console,
    pub(super) emulator: Emulator,
    /// How long a machine may take.
    pub(super) limit: Duration,
    /// The cards of two machines.
    pub(super) nic: Nic,
    /// Where another build of the agent lies in the RAM disks.
    pub(super) baseline: Option<&'static str>,
}

/// How it went with a kernel.
#[derive(Clone, Default)]
pub(super) struct Outcome {
    pub(super) passed: bool,
    pub(super) verified: Vec<Verified>,
    pub(super) counted: Vec<Counted>,
}

/// What is booted at a time.
#[derive(Clone, Copy, PartialEq)]
enum Machines {
    One,
    Two,
}

impl Bootable {
    /// The tests for so many machines.
    fn tests(&self, machines: Machines) -> String {
        match machines {
            Machines::One => self.selection.alone(),
            Machines::Two => self.selection.pair(),
        }
    }
}

impl Runner {
    /// Boots one machine of each kernel, then two, as far as there are tests for them; each
    /// machine has a processor to itself.
    pub(super) fn run(&self, kernels: &[Bootable]) -> Vec<Outcome> {
        let processors = available_parallelism().map_or(1, NonZero::get);
        let passed = Outcome {
            passed: true,
            ..Outcome::default()
        };
        let mut outcomes = vec![passed; kernels.len()];
        for (machines, at_a_time) in [(Machines::One, processors), (Machines::Two, processors / 2)]
        {
            for (index, outcome) in self.boot_all(kernels, machines, at_a_time.max(1)) {
                outcomes[index].add(outcome);
            }
        }
        outcomes
    }

    /// Boots kernels, so many at a time, and tells by index how it went.
    fn boot_all(
        &self,
        kernels: &[Bootable],
        machines: Machines,
        at_a_time: usize,
    ) -> Vec<(usize, Outcome)> {
        let waiting = kernels.iter().enumerate();
        let waiting: VecDeque<_> = waiting
            .map(|(index, kernel)| (index, kernel, kernel.tests(machines)))
            .filter(|(_, _, tests)| !tests.is_empty())
            .collect();
        let waiting = Mutex::new(waiting);
        let next = || waiting.lock().ok()?.pop_front();
        let work = || {
            let mut done = Vec::new();
            while let Some((index, kernel, tests)) = next() {
                let told = self.boot(kernel, machines, &tests);
                done.push((index, self.tell(kernel, &tests, told)));
            }
            done
        };
        thread::scope(|scope| {
            let workers: Vec<_> = (0..at_a_time).map(|_| scope.spawn(work)).collect();
            let done = workers.into_iter().map(|worker| {
                worker
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            });
            done.flatten().collect()
        })
    }

    /// Boots one, and says why when it does not come to its end; the others are tried yet.
    fn boot(&self, bootable: &Bootable, machines: Machines, tests: &str) -> Told {
        let guest = Guest {
            kernel: &bootable.kernel,
            image: &bootable.image,
            tests,
            fuzz_runs: bootable.selection.fuzz_runs,
            counts: bootable.selection.counts,
            nic: self.nic,
            baseline: self.baseline,
            folder: &bootable.folder,
        };
        let told = match machines {
            Machines::One => self.emulator.boot(self.console, guest, self.limit),
            Machines::Two => self.emulator.boot_two(self.console, guest, self.limit),
        };
        told.unwrap_or_else(|error| {
            self.console
                .say(&bootable.kernel.version, format_args!("{error:#}"));
            Told::default()
        })
    }

    /// Says how each test went; one that the console does not tell of has failed.
    fn tell(&self, bootable: &Bootable, tests: &str, told: Told) -> Outcome {
        for result in &told.results {
            self.console.say(&bootable.kernel.version, result);
        }
        let complete = told.results.len() == tests.split(',').count();
        Outcome {
            passed: complete && told.results.iter().all(|result| result.passed),
            verified: told.verified,
            counted: told.counted,
        }
    }
}

impl Outcome {
    fn add(&mut self, other: Self) {
        self.passed &= other.passed;
        self.verified.extend(other.verified);
        self.counted.extend(other.counted);
    }
}
