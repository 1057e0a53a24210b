//! Peers and subnets of an overlay network from etcd, in the format that flannel keeps there.
//!
//! ```text
//!  etcd ── client ──► Book ──► fragment (TOML) ──► agent, which validates it
//!            ▲          │
//!            └─ claim ◄─┘   whose is which subnet; which one this node asks for
//! ```
//!
//! All but [`client`] with its logins and failures, [`leave`](mod@leave), [`session`] and the program is
//! pure: it is told what the store says, and how late it is. So what a store can do is played through in tests.

pub mod access;
pub mod book;
pub mod changes;
pub mod choose;
pub mod claim;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "client")]
mod failure;
pub mod fragment;
pub mod keys;
pub mod lease;
#[cfg(feature = "client")]
pub mod leave;
#[cfg(feature = "client")]
mod login;
pub mod network;
pub mod problem;
#[cfg(feature = "client")]
pub mod proto;
#[cfg(feature = "client")]
pub mod session;
pub mod subnet;
pub mod talk;
