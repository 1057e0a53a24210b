//! What is wrong on a node, why that matters, and the command that cures it.
//!
//! [`gather`] looks: at the kernel, at what peers answer, and for a moment at counters. It
//! changes nothing. [`checks`] judge what was seen; they are pure functions, one for each
//! fault. An agent repairs much by itself; what is found here it cannot repair, or is somebody
//! else's.

mod checks;
mod commands;
mod facts;
mod gather;
mod leftovers;

pub use checks::names;
pub use facts::Health;
pub use gather::{Agent, ExamineError, Patient, examine};
