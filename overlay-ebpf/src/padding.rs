//! What stands behind an IP packet in its frame: short frames are filled up, and some senders leave
//! bytes of their own. Whoever routes the packet takes them off.

use overlay_common::{maps::Network, reasons::PassReason};

use crate::{family::Family, flows, frame::Frame, packet::Packet, received::Received};

/// Takes off what stands behind a whole packet that is about to be routed, or leaves that to the
/// kernel.
#[inline(always)]
pub(crate) fn take_off<F: Family>(
    packet: &mut Packet,
    frame: &Frame<F>,
    network: &Network,
) -> Result<(), PassReason> {
    let bytes = packet.length();
    let is_done = bytes == frame.end()
        || is_longer_than_it_says(packet, frame)
        || packet.segment_size() == 0 && packet.trim(frame.end()).is_ok();
    if is_done {
        return Ok(());
    }
    flows::enters(packet, 0, frame, network);
    Err(PassReason::NotResizable)
}

/// Leaves a packet in a tunnel to the kernel if anything stands behind it, inside or outside: if then
/// the headers of the tunnel could not be taken off, the kernel would find them cut off.
#[inline(always)]
pub(crate) fn must_be_none<P: Received, F: Family>(
    packet: &P,
    offset: usize,
    frame: &Frame<F>,
    network: &Network,
) -> Result<(), PassReason> {
    if packet.length() == offset + frame.end() || is_longer_than_it_says(packet, frame) {
        return Ok(());
    }
    flows::enters(packet, offset, frame, network);
    Err(PassReason::NotResizable)
}

/// An aggregate whose length its header has no room for: IPv6 leaves it 0 then.
#[inline(always)]
fn is_longer_than_it_says<F: Family>(packet: &impl Received, frame: &Frame<F>) -> bool {
    packet.segment_size() != 0 && frame.length == F::HEADER
}
