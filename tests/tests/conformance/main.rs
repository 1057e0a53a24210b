//! The same raw frames to a node of ours and to one with the kernel's VXLAN alone: what
//! becomes of them there is what `docs/conformance.md` says, row by row.
//!
//! ```text
//!   n1c1        n2c1                        captures: what arrives
//!    n1 (ours)   n2 (kernel)   n3           raw frames from n3's eth1, as if from a peer
//!     └───────────┴──── net ────┘
//! ```

#![expect(
    clippy::unwrap_used,
    reason = "what fails in a helper fails the test that called it"
)]

mod cases;
mod document;
mod shot;
mod stand;

use std::{thread, time::Duration};

use anyhow::Result;
use overlay_tests::families::{Families, Family};

use crate::stand::{Seen, Stand};

/// How often a case that does not seem to fit is shot again, after pauses of growing length.
const REPEATS: u32 = 6;
const PAUSE: Duration = Duration::from_millis(100);
/// A name for the lab of each test.
const OVER_IPV4: (&str, Family) = ("tconf4", Family::V4);
const OVER_IPV6: (&str, Family) = ("tconf6", Family::V6);

#[test]
fn the_document_has_exactly_the_cases_that_are_tested() {
    // A row for both stands for one of each.
    let each = |families: Families| families.all().iter().copied();
    let mut documented: Vec<_> = document::rows()
        .into_iter()
        .flat_map(|row| each(row.over).map(move |over| (row.case.clone(), over.layer())))
        .collect();
    let mut tested: Vec<_> = each(Families::Both)
        .flat_map(|over| {
            let cases = cases::all(over).into_iter();
            cases.map(move |case| (case.name, over.layer()))
        })
        .collect();
    documented.sort();
    tested.sort();
    assert_eq!(documented, tested);
}

#[test]
fn a_difference_has_a_reason_and_only_a_difference() {
    for row in document::rows() {
        assert_eq!(row.kernel != row.ours, !row.why.is_empty(), "{row:?}");
    }
}

/// Shoots every case at both nodes, with the fast path on and off.
fn conforms((name, over): (&str, Family)) -> Result<()> {
    let stand = Stand::raise(name, over)?;
    let rows = document::rows();
    let mut faults = Vec::new();
    for case in cases::all(over) {
        let row = rows
            .iter()
            .find(|row| row.case == case.name && row.over.has(over));
        let mut seen = stand.shoot(&case, true)?;
        let fits = |seen: &Seen| {
            row.is_some_and(|row| {
                (&row.kernel, &row.ours, &row.counter)
                    == (&seen.kernel, &seen.ours, &seen.counter())
            })
        };
        // What else is on the wire, a neighbour's solicitation or a report of a multicast group,
        // moves a counter, too: only the case's own moves every time.
        for again in 1..=REPEATS {
            if fits(&seen) {
                break;
            }
            thread::sleep(PAUSE * again);
            let next = stand.shoot(&case, true)?;
            let counters = &seen.counters & &next.counters;
            seen = Seen { counters, ..next };
        }
        if !fits(&seen) {
            faults.push(format!("{row:?} is documented, and seen was {seen}"));
        }
        if !seen.same_bytes {
            faults.push(format!("{}: delivered with different bytes", case.name));
        }
    }
    stand.agent().fastpath(false)?;
    for case in cases::all(over) {
        let seen = stand.shoot(&case, false)?;
        let mut rows = rows.iter();
        let row = rows.find(|row| row.case == case.name && row.over.has(over));
        if row.is_none_or(|row| row.ours != seen.ours) {
            faults.push(format!("with the fast path off: {seen}"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    stand.down()
}

#[test]
fn frames_over_ipv4_fare_as_documented() -> Result<()> {
    conforms(OVER_IPV4)
}

#[test]
fn frames_over_ipv6_fare_as_documented() -> Result<()> {
    conforms(OVER_IPV6)
}
