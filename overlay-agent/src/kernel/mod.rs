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
mod error;
pub mod ethtool;
pub mod helper;
pub mod managers;
pub mod memory;
pub mod netlink;
pub mod netns;
pub mod nft;
pub mod privileges;
pub mod statistics;
pub mod sysctl;
pub mod udp;
pub mod xfrm;

pub use error::{KernelError, Result, watch_limit};
