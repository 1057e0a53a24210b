//! What the kernel's connection tracking has to see.
//!
//! A connection that is translated, or that rules accept by its state, has to pass the kernel
//! in both directions. What the node itself sends has passed it before its VXLAN device.

use overlay_common::{
    maps::{Network, network_flags},
    reasons::PassReason,
};

/// Leaves what would be forwarded to the kernel, where its rules follow connections.
#[inline(always)]
pub(crate) fn must_not_follow(network: &Network) -> Result<(), PassReason> {
    if network.flags & network_flags::TRACKED != 0 {
        return Err(PassReason::Tracked);
    }
    Ok(())
}
