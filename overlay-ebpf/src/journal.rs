//! A packet's journey, told to whoever watches: decision by decision, or the packet itself as
//! it came and as it went.
//!
//! This is in the object that is built to be watched. In the one that carries the traffic
//! `journal/nobody.rs` stands in its place, and the calls leave no instruction. What is
//! watched is fixed when the programs are loaded: the verifier takes the rest out.

use core::{
    ptr::{addr_of_mut, from_mut, read_volatile},
    slice,
};

use aya_ebpf::{
    btf_maps::{PerCpuArray, RingBuf},
    helpers::bpf_ktime_get_ns,
    macros::btf_map,
};
use overlay_common::{
    journal::{
        Decision, Lost, MAX_SNAP, NONE, SAID, Sighting, Step, WINDOW_NS, Watch, kinds, outcomes,
    },
    maps::LOCAL_INDEX,
    programs::Program,
    reasons::{DropReason, PassReason},
};

use crate::{
    messages::{self, Level, level_enabled},
    received::Received,
    verdict::{Sender, Sent, Way},
    verifier::forget_range,
};

/// Bytes of the ring, unless the agent asks for another size.
const RING: usize = 1 << 20;

#[btf_map]
static EVENTS: RingBuf<Sighting, RING> = RingBuf::new();
#[btf_map]
static LOST: PerCpuArray<Lost, 1> = PerCpuArray::new();
#[btf_map]
static DESK: PerCpuArray<Desk, 1> = PerCpuArray::new();

/// The agent sets it before the kernel verifies.
#[unsafe(no_mangle)]
static WATCH: Watch = Watch::NOTHING;

/// What is written down of the packet that this CPU has in hand.
#[repr(C)]
struct Desk {
    sighting: Sighting,
    /// As it came, and behind it as it went.
    bytes: [u8; 2 * MAX_SNAP],
    /// The device of the endpoint that it is for, as far as that was found out.
    endpoint: u32,
    /// Packets that were told of in the present window,
    told: u32,
    /// and the number of that.
    window: u64,
}

macro_rules! watched {
    ($field:ident) => {{
        // SAFETY: a field of a static is valid to read; it is not the compiler that knows its
        // value.
        unsafe { read_volatile(&raw const WATCH.$field) }
    }};
}

/// A decision was made, by these values.
#[inline(always)]
pub(crate) fn tell<const N: usize>(step: Step, by: [u64; N]) {
    let at = |place| by.get(place).copied().unwrap_or_default();
    let (value, more) = (at(0), at(1));
    if watched!(decisions) != 0 {
        let decision = Decision {
            kind: kinds::DECISION,
            step: step as u32,
            value,
            more,
        };
        // A ring without room misses it, and whoever reads it, the end.
        let _missed = EVENTS.output_untyped::<Decision>(decision, 0);
    }
    if watched!(snap) != 0
        && let Some(desk) = desk()
    {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "slots and indices have 32 bits"
        )]
        let value = value as u32;
        match step {
            Step::Peer | Step::Vtep | Step::Sender => desk.sighting.peer = value,
            Step::Endpoint => desk.endpoint = value,
            Step::ToNeighbour | Step::ByRoute | Step::Delivered => {
                desk.sighting.handed_to = value;
            }
            _ => {}
        }
    }
}

/// A packet has come to a program.
#[inline(always)]
pub(crate) fn came(program: Program, packet: &(impl Received + Shown)) {
    if !is_looked_at(program) {
        return;
    }
    let Some(desk) = desk() else { return };
    // SAFETY: the helper takes no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    desk.endpoint = NONE;
    desk.sighting = Sighting {
        kind: kinds::SIGHTING,
        program: program as u32,
        time_ns: now,
        interface: packet.device(),
        handed_to: NONE,
        outcome: NONE,
        reason: NONE,
        peer: NONE,
        #[expect(clippy::cast_possible_truncation, reason = "16 bits in the kernel")]
        segment: packet.segment_size() as u32,
        length_before: length(packet),
        shown_before: 0,
        length_after: 0,
        shown_after: 0,
    };
    let window = now / WINDOW_NS;
    if desk.window != window {
        desk.window = window;
        desk.told = 0;
    }
    if desk.told < watched!(budget) {
        let shown = shown(packet);
        // SAFETY: `shown` is no more than one half of the bytes.
        if unsafe { packet.copy(addr_of_mut!(desk.bytes).cast(), shown) } {
            desk.sighting.shown_before = shown;
        }
    }
}

/// It was sent on.
#[inline(always)]
pub(crate) fn sent(program: Program, packet: &(impl Received + Shown), sent: &Sent) {
    if watched!(sent) == 0 {
        return;
    }
    let peer = match sent.way {
        Way::ToPeer { peer, .. } | Way::FromPeer { peer, .. } => peer,
        Way::Here { .. } => LOCAL_INDEX,
    };
    went(program, packet, outcomes::SENT, NONE, peer);
}

/// It was left to the kernel.
#[inline(always)]
pub(crate) fn passed(program: Program, packet: &(impl Received + Shown), reason: PassReason) {
    if level_enabled(Level::Debug)
        && let Some(sighting) = to_be_said(outcomes::PASSED, reason as u32, NONE)
    {
        messages::passed(sighting);
    }
    if watched!(passes) >> (reason as u32) & 1 != 0 {
        went(program, packet, outcomes::PASSED, reason as u32, NONE);
    }
}

/// It was dropped.
#[inline(always)]
pub(crate) fn dropped(
    program: Program,
    packet: &(impl Received + Shown),
    reason: DropReason,
    sender: Sender,
) {
    if level_enabled(Level::Warn)
        && let Some(sighting) = to_be_said(outcomes::DROPPED, reason as u32, sender.0)
    {
        messages::dropped(sighting);
    }
    if watched!(drops) >> (reason as u32) & 1 != 0 {
        went(program, packet, outcomes::DROPPED, reason as u32, sender.0);
    }
}

/// What the log is told of the packet in hand, unless it was told enough in this window.
#[inline(always)]
fn to_be_said(outcome: u32, reason: u32, peer: u32) -> Option<&'static [u8; SAID]> {
    let desk = desk()?;
    if desk.told >= watched!(budget) {
        lose(|lost| lost.over_budget += 1);
        return None;
    }
    desk.told += 1;
    if peer != NONE {
        desk.sighting.peer = peer;
    }
    desk.sighting.outcome = outcome;
    desk.sighting.reason = reason;
    // SAFETY: a desk has more bytes than this, all of them initialised, as is all of a map's
    // value; nobody writes to them until the message is copied.
    Some(unsafe { &*from_mut(desk).cast::<[u8; SAID]>() })
}

#[inline(always)]
fn went(program: Program, packet: &(impl Received + Shown), outcome: u32, reason: u32, peer: u32) {
    if !is_watched(program) {
        return;
    }
    let Some(desk) = desk() else { return };
    if peer != NONE {
        desk.sighting.peer = peer;
    }
    let (endpoint, peer) = (watched!(endpoint), watched!(peer));
    if endpoint != NONE && desk.sighting.interface != endpoint && desk.endpoint != endpoint
        || peer != NONE && desk.sighting.peer != peer
    {
        return;
    }
    if desk.told >= watched!(budget) {
        lose(|lost| lost.over_budget += 1);
        return;
    }
    desk.told += 1;
    desk.sighting.outcome = outcome;
    desk.sighting.reason = reason;
    let before = bounded(desk.sighting.shown_before);
    let mut after = 0;
    if outcome == outcomes::SENT {
        desk.sighting.length_after = length(packet);
        let shown = shown(packet);
        // SAFETY: `before` is no more than one half of the bytes.
        let behind = unsafe { addr_of_mut!(desk.bytes).cast::<u8>().add(before as usize) };
        // SAFETY: nor is `shown` more than the other half.
        if unsafe { packet.copy(behind, shown) } {
            desk.sighting.shown_after = shown;
            after = shown;
        }
    }
    let size = size_of::<Sighting>() + before as usize + after as usize;
    // SAFETY: a desk has more bytes than this, all of them initialised, as is all of a map's
    // value; nobody writes to them until the event is copied.
    let event = unsafe { slice::from_raw_parts(from_mut(desk).cast::<u8>(), size) };
    if EVENTS.output_untyped::<[u8]>(event, 0).is_err() {
        lose(|lost| lost.ring_full += 1);
    }
}

/// Whether a program writes down what packets it has in hand.
fn is_looked_at(program: Program) -> bool {
    is_watched(program) || level_enabled(Level::Warn)
}

fn is_watched(program: Program) -> bool {
    watched!(snap) != 0 && watched!(programs) >> (program as u32) & 1 != 0
}

fn desk() -> Option<&'static mut Desk> {
    let desk = DESK.get_ptr_mut(0)?;
    // SAFETY: the value is this CPU's alone, our hooks run with softirqs off, and nobody keeps
    // a reference from one call to the next.
    Some(unsafe { &mut *desk })
}

fn lose(count: impl FnOnce(&mut Lost)) {
    if let Some(lost) = LOST.get_ptr_mut(0) {
        // SAFETY: as for `desk`.
        count(unsafe { &mut *lost });
    }
}

fn length(packet: &impl Received) -> u32 {
    u32::try_from(packet.length()).unwrap_or(u32::MAX)
}

/// How many bytes of a packet are shown.
#[inline(always)]
fn shown(packet: &impl Received) -> u32 {
    bounded(length(packet))
}

/// No more than is to be shown, in the verifier's eyes, too.
#[inline(always)]
fn bounded(length: u32) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "it is the same number")]
    let length = forget_range(length as usize) as u32;
    let snap = watched!(snap);
    if length > snap { snap } else { length }
}

/// A packet that can be copied as a whole.
pub(crate) trait Shown {
    /// Index of the device that it is at.
    fn device(&self) -> u32;

    /// Copies its first bytes, an Ethernet header at least; whether there were as many.
    ///
    /// # Safety
    /// `to` has room for `length` bytes, in the verifier's eyes, too.
    unsafe fn copy(&self, to: *mut u8, length: u32) -> bool;
}
