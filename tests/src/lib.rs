//! The lab: topologies of network namespaces, defined once and used by `cargo xtask lab`,
//! by the end-to-end tests and by the benchmark.
//!
//! ```text
//!   lab-n1c1  lab-n1c2            lab-n2c1  lab-n2c2      containers: eth0
//!       └────┬────┘                   └────┬────┘
//!         lab-n1  eth1 ────────── eth1  lab-n2            nodes: what the scenario is about
//! ```
//!
//! More than two nodes meet at a bridge in `lab-net`. A [`topology`] is pure arithmetic;
//! a [`scenario`] turns it into a [`script`], which is what `--explain` prints and what
//! [`lab::up`] runs; [`check`] pings every pair.

pub mod agent;
pub mod assembly;
pub mod bpf;
pub mod check;
pub mod config;
pub mod cores;
pub mod counters;
pub mod drawing;
pub mod error;
pub mod families;
pub mod faults;
pub mod frames;
pub mod guard;
pub mod kernel;
pub mod lab;
pub mod load;
pub mod machines;
pub mod means;
pub mod names;
pub mod netns;
pub mod offload;
pub mod packages;
pub mod poll;
pub mod processes;
pub mod raw;
pub mod run;
pub mod run_time;
pub mod scenario;
pub mod schema;
pub mod script;
pub mod shape;
pub mod snapshot;
pub mod state;
pub mod terminal;
pub mod told;
pub mod topology;
pub mod traffic;
pub mod uplink;
pub mod wire;

pub use error::{Error, Result};
