//! `doctor`: silent where all is well, and right about what is not.
//!
//! Each fault is made, found, cured by the command that was printed where there is one, and
//! gone. What a whole machine has one of, such as its kernel, is shown to `doctor` alone.

mod agents;
mod alone;
mod containers;
mod documented;
mod fault;
mod healthy;
mod machine;
mod node;
mod packets;
mod peers;
mod stand;
mod told;
