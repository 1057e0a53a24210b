//! What a node should be, and what follows from that: values, and functions of them.
//!
//! Read it in the order of the agent's work: [`config`] → [`model`] is what people want,
//! [`desired`] turns it into kernel [`objects`], [`surroundings`] is what else there is at a node,
//! and [`plan`] is the difference between what should be and what is. Nothing here knows netlink,
//! eBPF or a runtime: the crates that do depend on this one.

mod ascending;
pub mod config;
pub mod desired;
pub mod dirs;
pub mod filter;
mod fnv;
pub mod identity;
pub mod model;
pub mod objects;
pub mod plan;
pub mod plural;
pub mod shared;
pub mod state;
pub mod surroundings;
pub mod text_file;
pub mod trouble;
