//! The programs under mutated packets: whatever arrives, each packet leaves in one way, is
//! counted once (I2), and is unchanged unless it was sent on (I3).
//!
//! `OVERLAY_FUZZ_RUNS` asks for more packets, `OVERLAY_FUZZ_SEED` for others. An input that
//! fails is kept in `fuzz/regressions`, and is replayed from then on.

mod corpus;
mod mutate;
mod runner;

use std::env;

use crate::{
    fuzz::{
        corpus::{Input, Regressions},
        mutate::Mutator,
        runner::Runner,
    },
    node::Node,
};

/// Enough to meet every branch, and still a matter of seconds.
const RUNS: u64 = 1_000_000;
/// Packets between two looks at the counters.
const BATCH: u64 = 2_000;
/// Any number: each run of the tests is the same.
const SEED: u64 = 0x6f76_6572_6c61_7904;

fn setting(name: &str, usual: u64) -> u64 {
    match env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|error| panic!("{name}={text}: {error}")),
        Err(_) => usual,
    }
}

#[test]
fn mutated_packets_are_counted_once_and_left_whole() {
    let (runs, seed) = (
        setting("OVERLAY_FUZZ_RUNS", RUNS),
        setting("OVERLAY_FUZZ_SEED", SEED),
    );
    let mut runner = Runner::new(Node::new());
    let mut mutator = Mutator::new(seed);
    let mut done = 0;
    while done < runs {
        let batch: Vec<Input> = (0..BATCH.min(runs - done))
            .map(|_| mutator.next())
            .collect();
        if let Err(fault) = runner.batch(&batch) {
            let (input, fault) = runner.culprit(&batch).unwrap_or_else(|| {
                panic!("seed {seed}, after {done} packets: {fault}; no packet of the batch alone does it")
            });
            let kept = Regressions::here().keep(&input);
            panic!(
                "seed {seed}, after {done} packets: {fault}; kept as {}",
                kept.display()
            );
        }
        done += BATCH;
    }
    let met = runner.tally();
    assert!(
        met.sent > 0 && met.passed > 0 && met.dropped > 0,
        "mutations that no longer meet every way out: {met:?}"
    );
}

#[test]
fn inputs_that_failed_once_do_not_fail_again() {
    let mut runner = Runner::new(Node::new());
    for (path, input) in Regressions::here().all() {
        if let Err(fault) = runner.batch(std::slice::from_ref(&input)) {
            panic!("{}: {fault}", path.display());
        }
    }
}
