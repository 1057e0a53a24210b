//! A packet in one program: run by copies of it, one as it is attached and one that tells.

use std::net::IpAddr;

use overlay_common::{
    journal::{Sighting, Step, Watch, outcomes},
    reasons::{DropReason, PassReason},
    wire::{OVERHEAD_V4, OVERHEAD_V6},
};
use overlay_control::explain::{Action, Attached, Decision, End, Packet, Stage, Verdict};
use overlay_core::objects::Hook;
use overlay_kernel::{
    KernelError, PROGRAMS, WATCHED,
    bpf::{self, Build, Event, Trial},
};

use super::{
    case::{Case, Place},
    cures::{self, rule},
    headers,
};

/// How often a program is run to see how long it takes.
const RUNS: usize = 2001;

/// The outcome of a packet in a program.
pub(super) struct Seen {
    pub(super) stage: Stage,
    pub(super) hook: Hook,
    /// Of the device.
    pub(super) ifindex: u32,
    pub(super) outcome: Outcome,
    /// The packet as it came,
    pub(super) arrived: Vec<u8>,
    /// and as it went on.
    pub(super) frame: Vec<u8>,
}

impl Seen {
    pub(super) const fn is_dropped(&self) -> bool {
        matches!(self.outcome, Outcome::Dropped)
    }
}

/// The same in few words.
pub(super) enum Outcome {
    Dropped,
    /// Left to the kernel; the guard gives no reason.
    Passed(Option<PassReason>),
    Delivered(End),
}

/// Runs a frame through the program of a place.
pub(super) fn run(case: &Case, place: Place, frame: &[u8]) -> Result<Seen, String> {
    let text = |error: KernelError| error.to_string();
    let Place {
        hook,
        device,
        ifindex,
    } = place;
    let load = |object, watch| Trial::load(&case.pins, object, case.rx, hook, watch).map_err(text);
    let mut plain = load(PROGRAMS, None)?;
    let mut telling = load(WATCHED, Some(Watch::EVERYTHING))?;
    let mut ran = plain.run(frame, ifindex).map_err(text)?;
    let told = telling.run(frame, ifindex).map_err(text)?;
    if (ran.action, ran.bytes.len()) != (told.action, told.bytes.len()) {
        return Err(format!(
            "explain what {hook} does: the program and its copy that tells do not agree ({} and {}); build the agent anew",
            ran.action, told.action
        ));
    }
    if hook.is_xdp() {
        ran.bytes.drain(..note(frame, &ran.bytes));
    }
    let time = plain.time(frame, ifindex, RUNS).map_err(text)?;
    let build = plain.build().map_err(text)?;
    let watched = telling.build().map_err(text)?;
    let running = bpf::running(&case.pins, device, ifindex, hook).map_err(text)?;
    let attached = match running.and_then(Build::of_program) {
        None => Attached::Nothing,
        Some(other) if other == build => Attached::Same,
        Some(other) if [build.tag, watched.tag].contains(&other.tag) => Attached::Watched,
        Some(other) => Attached::Other(format!("{:016x}", other.tag)),
    };
    let (verdict, outcome) = judge(case, hook, &told.events, &ran.bytes);
    let changed = ran.bytes != frame;
    let leaves = matches!(outcome, Outcome::Delivered(End::Underlay { .. }));
    let arrives = !matches!(hook, Hook::FromEndpoint | Hook::FromHost);
    let unknown_before: &[&str] = if arrives { &["source"] } else { &[] };
    let unknown_after: &[&str] = if leaves {
        &["source", "destination"]
    } else {
        &[]
    };
    let stage = Stage {
        program: hook.counted_as().to_owned(),
        device,
        // As bpftool prints it.
        tag: format!("{:016x}", build.tag),
        instructions: build.instructions,
        attached,
        before: packet(case, frame, unknown_before),
        decisions: decisions(case, &told.events),
        verdict,
        after: changed.then(|| packet(case, &ran.bytes, unknown_after)),
        ns: u64::try_from(time.as_nanos()).unwrap_or(u64::MAX),
    };
    Ok(Seen {
        stage,
        hook,
        ifindex,
        outcome,
        arrived: frame.to_vec(),
        frame: ran.bytes,
    })
}

/// What the underlay's neighbours are called, which is written by the kernel behind the programs.
const WRITTEN_LATER: &str = "(written by the kernel)";

/// A frame in words. The MACs of its outermost header that are named are none of the frame's own.
fn packet(case: &Case, frame: &[u8], written_later: &[&str]) -> Packet {
    let mut headers = headers::with_ports(frame, &[case.port()]);
    if let Some(ethernet) = headers.first_mut().filter(|it| it.name == "Ethernet") {
        for (name, value) in &mut ethernet.fields {
            if written_later.contains(&name.as_str()) {
                WRITTEN_LATER.clone_into(value);
            }
        }
    }
    Packet {
        length: frame.len(),
        headers,
        bytes: hex::encode(frame),
    }
}

fn decisions(case: &Case, events: &[Event]) -> Vec<Decision> {
    let decisions = events.iter().filter_map(|event| match event {
        Event::Decision { step, value, more } => Some(Decision {
            step: step.name().to_owned(),
            text: step.text().to_owned(),
            by: case.names.by(*step, *value, *more),
        }),
        Event::Packet { .. } => None,
    });
    decisions.collect()
}

fn judge(case: &Case, hook: Hook, events: &[Event], bytes: &[u8]) -> (Verdict, Outcome) {
    let sighting = events.iter().find_map(|event| match event {
        Event::Packet { sighting, .. } => Some(sighting),
        Event::Decision { .. } => None,
    });
    let Some(sighting) = sighting else {
        return guarded(case, events, bytes);
    };
    let peer = case.names.peer(sighting.peer).cloned();
    let number = sighting.reason as usize;
    match sighting.outcome {
        outcomes::DROPPED => {
            let reason = DropReason::ALL.get(number).copied();
            let verdict = Verdict {
                action: Action::Dropped,
                reason: reason.map(|reason| reason.name().to_owned()),
                rule: reason.and_then(rule).map(str::to_owned),
                text: reason.map_or("dropped", DropReason::text).to_owned(),
                cure: reason.map(|reason| cures::cure(reason).to_owned()),
                peer,
            };
            (verdict, Outcome::Dropped)
        }
        outcomes::PASSED => {
            let reason = PassReason::ALL.get(number).copied();
            let verdict = Verdict {
                action: Action::Passed,
                reason: reason.map(|reason| reason.name().to_owned()),
                rule: None,
                text: reason.map_or("passed", PassReason::text).to_owned(),
                cure: None,
                peer,
            };
            (verdict, Outcome::Passed(reason))
        }
        _ => sent(case, hook, sighting, bytes),
    }
}

fn sent(case: &Case, hook: Hook, sighting: &Sighting, bytes: &[u8]) -> (Verdict, Outcome) {
    let verdict = |text: &str| Verdict {
        action: Action::Forwarded,
        reason: None,
        rule: None,
        text: text.to_owned(),
        cure: None,
        peer: case.names.peer(sighting.peer).cloned(),
    };
    if let Some(endpoint) = case.names.endpoint(sighting.handed_to) {
        let end = End::Delivered {
            endpoint: endpoint.clone(),
            ttl: ttl(bytes),
        };
        return (verdict("to the endpoint"), Outcome::Delivered(end));
    }
    let text = if hook == Hook::FromUnderlay {
        "to a device that is not an endpoint's"
    } else {
        "to the peer"
    };
    match vtep(bytes) {
        Some(vtep) => {
            let end = End::Underlay {
                device: case.names.device(sighting.handed_to),
                vtep,
                frame: hex::encode(bytes),
            };
            (verdict(text), Outcome::Delivered(end))
        }
        None => (verdict(text), Outcome::Dropped),
    }
}

/// The guard tells of packets only that it drops: the others are for the next program, but for
/// those that it has stripped.
fn guarded(case: &Case, events: &[Event], bytes: &[u8]) -> (Verdict, Outcome) {
    let value_of = |wanted| {
        events.iter().find_map(|event| match event {
            Event::Decision { step, value, .. } if *step == wanted => Some(*value),
            _ => None,
        })
    };
    let verdict = |action, text: &str| Verdict {
        action,
        reason: None,
        rule: None,
        text: text.to_owned(),
        cure: None,
        peer: None,
    };
    let endpoint = value_of(Step::Stripped)
        .and_then(|_| u32::try_from(value_of(Step::Endpoint)?).ok())
        .and_then(|index| case.names.endpoint(index));
    match endpoint {
        Some(endpoint) => {
            let end = End::Delivered {
                endpoint: endpoint.clone(),
                ttl: ttl(bytes),
            };
            let text = "stripped, with a note by which from_underlay delivers it to the endpoint";
            (verdict(Action::Forwarded, text), Outcome::Delivered(end))
        }
        None => (
            verdict(
                Action::Passed,
                "nothing against it: the next program's turn",
            ),
            Outcome::Passed(None),
        ),
    }
}

/// Bytes of the note that stands before a packet which the guard has stripped.
fn note(frame: &[u8], left: &[u8]) -> usize {
    let overhead = match vtep(frame) {
        Some(IpAddr::V4(_)) => OVERHEAD_V4,
        Some(IpAddr::V6(_)) => OVERHEAD_V6,
        None => 0,
    };
    let stripped = frame.len().saturating_sub(overhead.into());
    if left.len() == frame.len() {
        return 0;
    }
    left.len().saturating_sub(stripped)
}

/// TTL or hop limit of a frame's first IP header.
fn ttl(frame: &[u8]) -> Option<u8> {
    let headers = headers::of(frame);
    let mut values = headers
        .iter()
        .filter_map(|header| header.field("ttl").or_else(|| header.field("hop limit")));
    values.next()?.parse().ok()
}

/// The destination of a frame's first IP header.
pub(super) fn vtep(frame: &[u8]) -> Option<IpAddr> {
    let headers = headers::of(frame);
    let ip = headers
        .iter()
        .find(|header| matches!(&*header.name, "IPv4" | "IPv6"))?;
    ip.field("destination")?.parse().ok()
}
