//! What becomes of a packet: the programs themselves are asked, and the kernel about what they
//! leave to it.
//!
//! A [`Case`] is a packet at a place of the node, with all that is needed to follow it; it is
//! made from what the agent knows, while nothing changes. [`Case::hop`] then runs copies of the
//! programs on it, which takes its time, and asks the kernel for its routes.

mod arriving;
mod case;
mod cures;
pub mod flow;
mod frames;
mod headers;
mod kernel;
mod leaving;
mod names;
mod ours;
mod packet_filter;
pub mod select;
mod slow;
mod stage;
mod underlay;

pub use case::{Case, Refusal, Scene};
pub use cures::{rule, rule_of};
pub use names::{Names, device_of};
