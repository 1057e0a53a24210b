//! The agent of an overlay node, as a library for its command line and its tests.
//!
//! Read it in the order of its work: [`config`] → [`model`] is what people want,
//! [`desired`] turns it into kernel [`objects`], [`observe`] reads the objects that
//! are there, [`plan`] is the difference, [`apply`] carries it out through
//! [`kernel`], and [`daemon`] does all that whenever something changes.

pub mod api;
pub mod apply;
mod ascending;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod desired;
pub mod dirs;
pub mod doctor;
mod explain;
pub mod filter;
mod fnv;
pub mod hooks;
pub mod identity;
pub mod kernel;
mod metrics;
pub mod model;
pub mod node;
pub mod objects;
pub mod observe;
pub mod plan;
mod plural;
pub mod preview;
pub mod probe;
mod progress;
pub mod shared;
pub mod state;
pub mod stats;
pub mod store;
pub mod surroundings;
mod text_file;
mod top;
pub mod trouble;

/// The eBPF programs as an ELF object with BTF, built by `build.rs` from `overlay-ebpf`.
pub static PROGRAMS: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/overlay"));

/// The same programs with what tells of a packet's journey (`overlay_common::journal`).
pub static WATCHED: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/watched"));
