//! The node that the agent works on.
//!
//! [`observe`] reads what is there, [`apply`] carries out a plan, [`store`] remembers what the
//! kernel does not, [`preview`] tells what would be done, and [`probe`] asks the peers through the
//! overlay how they are.

pub mod apply;
pub mod key;
pub mod node;
pub mod observe;
pub mod preview;
pub mod probe;
pub mod store;
