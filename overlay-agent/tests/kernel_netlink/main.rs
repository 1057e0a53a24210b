//! The netlink layer, namespaces and sysctls against the running kernel, each test in
//! namespaces of its own.
//!
//! Needs root.

mod links;
#[cfg(test)]
mod namespace;
mod surroundings;
mod tables;
mod watch;
