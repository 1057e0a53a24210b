//! How a packet leaves a program.

use overlay_common::{
    maps::{Network, network_flags},
    reasons::{DropReason, PassReason},
};

use crate::received::Received;

/// It is redirected, and on its way.
pub(crate) struct Sent {
    /// Whose traffic it is.
    pub(crate) way: Way,
    /// Inner frame length.
    pub(crate) bytes: usize,
}

/// From whom to whom a delivered packet is. Peers are slots in `PEER_STATS`, endpoints, and the
/// node itself, in `ENDPOINT_STATS`.
pub(crate) enum Way {
    /// Sent to a peer.
    ToPeer { from: u32, peer: u32 },
    /// Between endpoints here.
    Here { from: u32, to: u32 },
    /// Received from a peer.
    FromPeer { peer: u32, to: u32 },
}

/// It leaves the fast path.
pub(crate) enum Exit {
    /// Unchanged, into the kernel's own stack; from this peer, if it is known to be a peer's.
    Pass(PassReason, Sender),
    /// For good, and charged to the peer that sent it; what an endpoint sent, to that endpoint.
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

impl Exit {
    /// The same, of a packet that this peer sent.
    pub(crate) fn of(self, sender: Sender) -> Self {
        match self {
            Self::Pass(reason, _) => Self::Pass(reason, sender),
            Self::Drop(..) => self,
        }
    }
}

impl From<PassReason> for Exit {
    fn from(reason: PassReason) -> Self {
        Self::Pass(reason, Sender::UNKNOWN)
    }
}

/// A packet that is cut off, or whose lengths contradict each other.
///
/// Those of an aggregate are the kernel's, which leaves them 0 when they do not fit their
/// field.
pub(crate) fn malformed(packet: &impl Received, network: &Network, sender: Sender) -> Exit {
    if network.flags & network_flags::MALFORMED != 0 || packet.segment_size() != 0 {
        return Exit::Pass(PassReason::Malformed, sender);
    }
    Exit::Drop(DropReason::Malformed, sender)
}
