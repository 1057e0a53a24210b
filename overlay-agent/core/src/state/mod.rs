//! State that must survive a restart, as plain values.
//!
//! Addresses that were handed out, endpoints that were added at run time, which
//! namespaces we made, and the kernel settings as they were before us.

mod addresses;
mod complete;
mod content;
mod upgrade;

pub use content::{Allocation, Change, Content, SubnetEnv, Vtep};
pub use upgrade::upgrade;
