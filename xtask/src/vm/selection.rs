//! Which tests are run on a kernel.

use std::collections::BTreeSet;

/// What says most in the least time: the verifier's word on each program, in all its variants; the
/// programs on packets; traffic from everywhere to everywhere with the fast path on and off; what
/// the agent makes of the kernel's events; programs that others are put in the place of, and asked;
/// an underlay that is a module, without Ethernet headers; and tunnels that are encrypted by it.
const CORE: [&str; 7] = [
    "programs:object:watched:fuzz:what_a_peer_sends:an_endpoint_s_packet:what_can_be_delivered",
    "reachability:all_pairs_with_the_fast_path",
    "repair:what_is_repaired_is_repaired_once",
    WATCHING,
    "explain:what_is_said_to_be_delivered_arrives_over_ipv4",
    "uplinks:wireguard",
    "encryption:nothing_leaves",
];
/// The verifier's word alone, and the maps.
const VERIFIED: [&str; 1] = ["programs:the_verifier:the_maps"];
/// Captures and messages of the programs, but for what takes tshark to read.
const WATCHING: &str = "capture:whoever_goes_away:the_log_tells";
/// What two machines show that namespaces do not: programs in a network card's driver.
const CORE_PAIR: [&str; 2] = ["machines:guarded_over_ipv4", "machines:stripped_over_ipv4"];
/// What depends on the kernel in any way.
const FULL: [&str; 27] = [
    "programs",
    "reachability",
    "endpoints",
    "networks",
    "masquerade",
    "spoofing",
    "mtu",
    "kernel_peer",
    "kernel_peer_ipv6",
    "dual_stack",
    "payloads",
    "padding",
    "services:services_answer:services_of_ipvs",
    "ways_round",
    "repair",
    "stale",
    "config",
    "underlay_change",
    "uplinks",
    "scenarios:an_overlay_stands",
    "encryption",
    "ownership",
    "hitless",
    "xdp",
    WATCHING,
    "explain",
    // How the kernel learns of another card, and who it goes on believing in.
    "faults:reboot",
];
const FULL_PAIR: [&str; 1] = ["machines"];
/// What a network card shows: sizes, fragments and streams with each of its offloads off in turn,
/// with each guard that it takes.
const CARD: [&str; 1] = ["machines:card_"];
/// What remains where the programs are refused.
const REFUSED: [&str; 1] = ["old_kernel"];
/// Packets that the programs are tried with, on an emulated processor.
const CI_FUZZ_RUNS: u64 = 4_000;
const CORE_FUZZ_RUNS: u64 = 20_000;
const FULL_FUZZ_RUNS: u64 = 200_000;

/// Tests for one machine, and for the first of two: names of files, or `FILE:FILTER`.
#[derive(Clone, Debug)]
pub(super) struct Selection {
    alone: Vec<String>,
    pair: Vec<String>,
    pub(super) fuzz_runs: u64,
    /// Whether the machine's clock counts instructions.
    pub(super) counts: bool,
}

impl Selection {
    /// With or without the tests for two machines.
    pub(super) fn core(pair: bool) -> Self {
        let pair = if pair { CORE_PAIR.as_slice() } else { &[] };
        Self {
            fuzz_runs: CORE_FUZZ_RUNS,
            ..Self::of(&CORE, pair)
        }
    }

    /// The same with fewer packets: they are half of the time.
    pub(super) fn core_in_ci(pair: bool) -> Self {
        Self {
            fuzz_runs: CI_FUZZ_RUNS,
            ..Self::core(pair)
        }
    }

    pub(super) fn verified() -> Self {
        Self::of(&VERIFIED, &[] as &[&str])
    }

    pub(super) fn card() -> Self {
        Self::of(&[] as &[&str], &CARD)
    }

    pub(super) fn full() -> Self {
        Self::of(&FULL, &FULL_PAIR)
    }

    /// For a kernel that is too old for the programs.
    pub(super) fn refused() -> Self {
        Self::of(&REFUSED, &[] as &[&str])
    }

    pub(super) fn of(alone: &[impl ToString], pair: &[impl ToString]) -> Self {
        Self {
            alone: alone.iter().map(ToString::to_string).collect(),
            pair: pair.iter().map(ToString::to_string).collect(),
            fuzz_runs: FULL_FUZZ_RUNS,
            counts: false,
        }
    }

    /// On a machine whose clock counts instructions.
    pub(super) fn counting(self) -> Self {
        Self {
            counts: true,
            ..self
        }
    }

    /// The files of all tests, each once.
    pub(super) fn files(&self) -> BTreeSet<&str> {
        let tests = self.alone.iter().chain(&self.pair);
        tests.map(|test| file(test)).collect()
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
        let files: Vec<&str> = selection.files().into_iter().collect();
        assert_eq!(files, ["machines", "mtu", "wire"]);
        assert_eq!(selection.alone(), "wire,mtu:one,mtu:two");
        assert_eq!(selection.pair(), "machines");
    }
}
