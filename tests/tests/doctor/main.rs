//! `doctor`: silent where all is well, and right about what is not.
//!
//! Each fault is made, found, cured by the command that was printed where there is one, and
//! gone. What cannot be made on a machine that others use, such as an old kernel, is tested
//! with given facts in `overlay-agent/src/doctor/checks`.

mod alone;
mod containers;
mod documented;
mod fault;
mod healthy;
mod node;
mod packets;
mod peers;
mod stand;
