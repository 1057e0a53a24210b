//! Which tests are run on a kernel.

/// What says most in the least time: the verifier's word on each program, the programs on
/// packets, and traffic from everywhere to everywhere with the fast path on and off.
const CORE: [&str; 2] = [
    "programs:object:fuzz:what_a_peer_sends:an_endpoint_s_packet:what_can_be_delivered",
    "reachability:all_pairs_with_the_fast_path",
];
/// What two machines show that namespaces do not: programs in a network card's driver.
const CORE_PAIR: [&str; 2] = ["machines:guarded_over_ipv4", "machines:stripped_over_ipv4"];
/// What depends on the kernel in any way.
const FULL: [&str; 8] = [
    "programs",
    "reachability",
    "kernel_peer",
    "kernel_peer_ipv6",
    "dual_stack",
    "payloads",
    "repair",
    "xdp",
];
const FULL_PAIR: [&str; 1] = ["machines"];
/// Packets that the programs are tried with, on an emulated processor.
const CORE_FUZZ_RUNS: u64 = 20_000;
const FULL_FUZZ_RUNS: u64 = 200_000;

/// Tests for one machine, and for the first of two: names of files, or `FILE:FILTER`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Selection {
    alone: Vec<String>,
    pair: Vec<String>,
    /// Whether two machines are booted with each kernel, or with the last one alone.
    pub(super) pair_of_each: bool,
    pub(super) fuzz_runs: u64,
}

impl Selection {
    pub(super) fn core() -> Self {
        Self {
            pair_of_each: false,
            fuzz_runs: CORE_FUZZ_RUNS,
            ..Self::of(&CORE, &CORE_PAIR)
        }
    }

    pub(super) fn full() -> Self {
        Self::of(&FULL, &FULL_PAIR)
    }

    pub(super) fn of(alone: &[impl ToString], pair: &[impl ToString]) -> Self {
        Self {
            alone: alone.iter().map(ToString::to_string).collect(),
            pair: pair.iter().map(ToString::to_string).collect(),
            pair_of_each: true,
            fuzz_runs: FULL_FUZZ_RUNS,
        }
    }

    /// The files of all tests, each once.
    pub(super) fn files(&self) -> Vec<&str> {
        let tests = self.alone.iter().chain(&self.pair);
        let mut files: Vec<&str> = tests.map(|test| file(test)).collect();
        files.sort_unstable();
        files.dedup();
        files
    }

    /// The tests for one machine as its command line takes them.
    pub(super) fn alone(&self) -> String {
        self.alone.join(",")
    }

    /// The tests for two machines, likewise.
    pub(super) fn pair(&self) -> String {
        self.pair.join(",")
    }
}

fn file(test: &str) -> &str {
    test.split_once(':').map_or(test, |(file, _)| file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_built_once_however_many_of_its_tests_are_run() {
        let selection = Selection::of(&["wire", "mtu:one", "mtu:two"], &["machines"]);
        assert_eq!(selection.files(), ["machines", "mtu", "wire"]);
        assert_eq!(selection.alone(), "wire,mtu:one,mtu:two");
        assert_eq!(selection.pair(), "machines");
    }
}
