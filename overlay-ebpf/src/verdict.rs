//! How a packet leaves a program.

use overlay_common::{
    maps::{Network, network_flags},
    reasons::{DropReason, PassReason},
};

use crate::received::Received;

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
    /// For good, and charged to its sender.
    Drop(DropReason, Sender),
}

/// The peer that sent a packet, by its slot in `PEER_STATS`.
// No `Option`: LLVM copies its number where there is none, too, and the verifier refuses
// to read what nobody has written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sender(pub(crate) u32);

impl Sender {
    /// Somebody who is no peer. No slot has this number.
    pub(crate) const UNKNOWN: Self = Self(u32::MAX);
}

impl From<PassReason> for Exit {
    fn from(reason: PassReason) -> Self {
        Self::Pass(reason)
    }
}

/// A packet that is cut off, or whose lengths contradict each other.
///
/// Those of an aggregate are the kernel's, which leaves them 0 when they do not fit their
/// field.
pub(crate) fn malformed(packet: &impl Received, network: &Network, sender: Sender) -> Exit {
    if network.flags & network_flags::MALFORMED != 0 || packet.segment_size() != 0 {
        return Exit::Pass(PassReason::Malformed);
    }
    Exit::Drop(DropReason::Malformed, sender)
}
