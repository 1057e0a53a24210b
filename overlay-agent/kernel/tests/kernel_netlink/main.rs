//! The netlink layer, the packet filter, namespaces and sysctls against the running kernel,
//! each test in namespaces of its own.
//!
//! Needs root.

#[cfg(test)]
mod filter;
#[cfg(test)]
mod ipv6;
mod links;
#[cfg(test)]
mod namespace;
mod surroundings;
mod tables;
mod watch;
