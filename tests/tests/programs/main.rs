//! The compiled programs, packet by packet: `BPF_PROG_TEST_RUN` on the object that the
//! agent embeds.
//!
//! A test run shows everything that a program decides and writes. It does not show what
//! the kernel does with a redirect: that is seen on the lab's wires.

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what fails in a helper fails the test that called it"
)]

mod counters;
mod exits;
mod frames;
mod fuzz;
mod guard;
mod headers;
mod node;
mod object;
mod summed;
mod sums;
mod traffic;
mod watched;
mod world;
