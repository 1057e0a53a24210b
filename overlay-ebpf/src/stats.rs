//! Counting: each packet once, under the one way in which it left, and for those whose it is.

use bytemuck::checked;
use overlay_common::{
    maps::{Count, LOCAL_INDEX, PassedKey, SenderKey, SenderKind},
    programs::Program,
    reasons::{DropReason, PassReason},
};

use crate::{
    tables,
    verdict::{Sender, Sent, Way},
    verifier::forget_range,
};

/// A packet went where it should, on the fast path.
#[inline(always)]
pub(crate) fn sent(sent: &Sent) {
    let bytes = sent.bytes as u64;
    match sent.way {
        Way::ToPeer { from, peer } => {
            tables::count_for_peer(peer, |stats| add(&mut stats.tx, bytes));
            tables::count_for_endpoint(from, |stats| add(&mut stats.tx, bytes));
        }
        Way::Here { from, to } => {
            tables::count_for_peer(LOCAL_INDEX, |stats| add(&mut stats.tx, bytes));
            tables::count_for_endpoint(from, |stats| add(&mut stats.tx_local, bytes));
            tables::count_for_endpoint(to, |stats| add(&mut stats.rx_local, bytes));
        }
        Way::FromPeer { peer, to } => {
            tables::count_for_peer(peer, |stats| add(&mut stats.rx, bytes));
            tables::count_for_endpoint(to, |stats| add(&mut stats.rx, bytes));
        }
    }
}

/// A packet that entered at `interface` was left to the kernel; it is charged to its sender, likewise.
pub(crate) fn passed(
    program: Program,
    interface: u32,
    reason: PassReason,
    peer: Sender,
    bytes: usize,
) {
    count_pass(
        program as u32,
        interface,
        reason as u32,
        peer.0,
        bytes as u64,
    );
}

/// A packet that entered at `interface` was dropped, charged to its sender: the endpoint, or
/// the peer if there is one.
pub(crate) fn dropped(
    program: Program,
    interface: u32,
    reason: DropReason,
    peer: Sender,
    bytes: usize,
) {
    count_drop(
        program as u32,
        interface,
        reason as u32,
        peer.0,
        bytes as u64,
    );
}

// A global function, which returns a number because it must: the verifier looks at it once, and
// not once for every reason on every way there.
#[cfg_attr(target_arch = "bpf", unsafe(no_mangle))]
#[inline(never)]
extern "C" fn count_pass(program: u32, interface: u32, reason: u32, peer: u32, bytes: u64) -> u32 {
    tables::count_pass(program, |passes| {
        if let Some(count) = passes.counts_mut().get_mut(forget_range(reason as usize)) {
            add(count, bytes);
        }
    });
    if let Some(slot) = endpoint_at(program, interface) {
        tables::count_for_endpoint(slot, |stats| add(&mut stats.passed, bytes));
    } else if peer != Sender::UNKNOWN.0
        && let Ok(key) = checked::try_cast::<[u32; 2], PassedKey>([peer, reason])
    {
        tables::count_pass_of(key, |count| add(count, bytes));
    }
    0
}

// As `count_pass`.
#[cfg_attr(target_arch = "bpf", unsafe(no_mangle))]
#[inline(never)]
extern "C" fn count_drop(program: u32, interface: u32, reason: u32, peer: u32, bytes: u64) -> u32 {
    tables::count_drop(program, |drops| {
        if let Some(count) = drops.counts_mut().get_mut(forget_range(reason as usize)) {
            add(count, bytes);
        }
    });
    let (kind, slot) = if let Some(slot) = endpoint_at(program, interface) {
        tables::count_for_endpoint(slot, |stats| add(&mut stats.dropped, bytes));
        (SenderKind::Endpoint, slot)
    } else if peer != Sender::UNKNOWN.0 {
        tables::count_for_peer(peer, |stats| add(&mut stats.dropped, bytes));
        (SenderKind::Peer, peer)
    } else {
        return 0;
    };
    let key = [kind as u32, slot, reason];
    if let Ok(key) = checked::try_cast_ref::<[u32; 3], SenderKey>(&key) {
        tables::count_drop_of(key, |count| add(count, bytes));
    }
    0
}

/// The slot of the endpoint that sends through a device, or of the node. Looked up once more:
/// what goes the fast way brings it along.
#[inline(always)]
fn endpoint_at(program: u32, interface: u32) -> Option<u32> {
    const FROM_ENDPOINT: u32 = Program::FromEndpoint as u32;
    const FROM_HOST: u32 = Program::FromHost as u32;
    match program {
        FROM_ENDPOINT | FROM_HOST => tables::port(interface).map(|port| port.slot),
        _ => None,
    }
}

#[inline(always)]
fn add(count: &mut Count, bytes: u64) {
    count.packets += 1;
    count.bytes += bytes;
}
