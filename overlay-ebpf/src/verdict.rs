//! How a packet leaves a program.

use overlay_common::reasons::{DropReason, PassReason};

/// It is redirected, and on its way.
pub(crate) struct Sent {
    /// Whose traffic it is.
    pub(crate) account: Account,
    /// Inner frame length.
    pub(crate) bytes: usize,
}

/// Whose traffic a delivered packet is. The number is a slot in `PEER_STATS`.
pub(crate) enum Account {
    /// Sent to a peer, or for slot [`overlay_common::maps::LOCAL_INDEX`] between endpoints here.
    To(u32),
    /// Received from a peer.
    From(u32),
}

/// It leaves the fast path.
pub(crate) enum Exit {
    /// Unchanged, into the kernel's own stack.
    Pass(PassReason),
    /// For good; charged to the peer with this slot in `PEER_STATS`, if it is known.
    Drop(DropReason, Option<u32>),
}

impl From<PassReason> for Exit {
    fn from(reason: PassReason) -> Self {
        Self::Pass(reason)
    }
}
