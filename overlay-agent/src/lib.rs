//! The agent of an overlay node, as a library for its command line and its tests.
//!
//! What a node should be is decided in [`overlay_core`]; [`overlay_node`] looks at it and changes
//! it through [`overlay_kernel`]; [`daemon`] does all that whenever something changes, and [`cli`]
//! is how people ask for it.

pub mod cli;
pub mod daemon;
mod top;
