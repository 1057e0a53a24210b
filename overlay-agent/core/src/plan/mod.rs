//! The difference between what is and what should be, as ordered steps.
//!
//! Architecture Invariant: a plan is made from two [`Objects`](crate::objects::Objects)
//! alone. Nothing here knows netlink, eBPF or a runtime, so a plan can be printed,
//! compared and tested without a kernel.

mod diff;
mod entries;
mod lack;
mod peers;
mod returning;
mod step;
mod wireguard;

use std::fmt;

use serde::Serialize;

pub use diff::plan;
pub use returning::Returning;
pub use step::{Change, Dependency, Step};

/// Steps in the order in which they work. Only [`plan`] makes a plan.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Plan(Vec<Step>);

impl Plan {
    /// The steps.
    pub fn steps(&self) -> &[Step] {
        &self.0
    }

    /// Whether what is there is what should be.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.0 {
            writeln!(f, "{step}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
