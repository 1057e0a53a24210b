//! Packets that the programs have reported, with names.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};
use overlay_common::{
    journal::{Sighting, outcomes},
    programs::Program,
    reasons::{DropReason, PassReason},
};
use overlay_control::{
    capture::{Bytes, Captured, Seen},
    explain::Action,
};
use overlay_insight::explain::Names;
use overlay_kernel::bpf::{Event, Events};

pub(super) fn captured(names: &Names, events: &Events, seen: &[Event]) -> Result<Captured, String> {
    let lost = events.lost().map_err(|error| error.to_string())?;
    let boot = boot();
    let packets = seen.iter().filter_map(|event| match event {
        Event::Packet {
            sighting,
            before,
            after,
        } => Some(packet(names, boot, sighting, before, after)),
        Event::Decision { .. } => None,
    });
    Ok(Captured {
        packets: packets.collect(),
        over_budget: lost.over_budget,
        ring_full: lost.ring_full,
    })
}

pub(in super::super) fn packet(
    names: &Names,
    boot: u64,
    sighting: &Sighting,
    before: &[u8],
    after: &[u8],
) -> Seen {
    let program = Program::ALL.get(sighting.program as usize);
    let number = sighting.reason as usize;
    let (action, reason, text) = match sighting.outcome {
        outcomes::DROPPED => {
            let reason = DropReason::ALL.get(number);
            let text = reason.map_or("", |reason| reason.text());
            (Action::Dropped, reason.map(|reason| reason.name()), text)
        }
        outcomes::PASSED => {
            let reason = PassReason::ALL.get(number);
            let text = reason.map_or("", |reason| reason.text());
            (Action::Passed, reason.map(|reason| reason.name()), text)
        }
        _ => (Action::Forwarded, None, ""),
    };
    let bytes = |length, bytes: &[u8]| Bytes {
        length,
        hex: hex::encode(bytes),
    };
    let device = names.device(sighting.interface);
    Seen {
        time_ns: boot.saturating_add(sighting.time_ns),
        program: program.map_or("", |program| program.name()).to_owned(),
        device: device.map_or_else(
            || format!("ifindex {}", sighting.interface),
            |device| device.to_string(),
        ),
        action,
        reason: reason.map(str::to_owned),
        text: text.to_owned(),
        peer: names.peer(sighting.peer).cloned(),
        endpoint: names
            .endpoint(sighting.interface)
            .or_else(|| names.endpoint(sighting.handed_to))
            .cloned(),
        handed_to: names.device(sighting.handed_to),
        before: bytes(sighting.length_before, before),
        after: (action == Action::Forwarded).then(|| bytes(sighting.length_after, after)),
    }
}

/// When the programs' clock began, in nanoseconds since 1970.
pub(in super::super) fn boot() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let since = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from);
    let boot = now
        .unwrap_or_default()
        .saturating_sub(since.unwrap_or_default());
    u64::try_from(boot.as_nanos()).unwrap_or(u64::MAX)
}
