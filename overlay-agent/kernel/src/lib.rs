//! The kernel: netlink, namespaces, sysctls, nftables and eBPF, and nothing of what they are used for.
//!
//! Architecture invariant: this is the only place that knows rtnetlink, nftables and aya. It
//! does what it is told and reports what is there; what should be there, and whose
//! it is, is decided by its callers.
//!
//! [`netlink`] is asynchronous and bound to the namespace that it was opened in.
//! Everything else blocks for microseconds and acts in the namespace of the calling
//! thread.

pub mod bpf;
pub mod capability;
pub mod conntrack;
mod dump;
mod effort;
mod error;
pub mod ethtool;
pub mod helper;
pub mod hooks;
pub mod ipvs;
pub mod managers;
pub mod memory;
pub mod netlink;
pub mod netns;
pub mod nft;
pub mod privileges;
pub mod statistics;
pub mod sysctl;
pub mod udp;
pub mod wireguard;
pub mod xfrm;

pub use effort::effort;
pub use error::{KernelError, Result, watch_limit};

/// The eBPF programs as an ELF object with BTF, built by `build.rs` from `overlay-ebpf`.
pub static PROGRAMS: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/overlay"));

/// The same programs with what tells of a packet's journey (`overlay_common::journal`).
pub static WATCHED: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/watched"));
