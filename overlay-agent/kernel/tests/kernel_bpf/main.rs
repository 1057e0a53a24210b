//! Loading, filling and attaching against the running kernel, each test in a
//! namespace and a folder of pins of its own.
//!
//! Needs root and a bpffs at `/sys/fs/bpf`.

mod clsact;
#[cfg(test)]
mod entries;
mod load;
mod maps;
#[cfg(test)]
mod node;
#[cfg(test)]
mod strangers;
mod tcx;
#[cfg(test)]
mod xdp;
