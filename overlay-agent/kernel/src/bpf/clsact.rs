//! Filters of a clsact qdisc, for kernels without TCX.
//!
//! A filter lives as long as its device and needs no pin. What bpffs holds are
//! empty folders, as notes that outlive the agent: on which devices filters of ours
//! are, and which qdiscs we made. Only those may be removed.

mod qdisc;

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::{AsFd, AsRawFd},
};

use aya::programs::SchedClassifier;
use overlay_core::{model::IfName, objects::Hook};
use rtnetlink::{
    packet_core::{NLM_F_CREATE, NLM_F_EXCL},
    packet_route::{
        RouteNetlinkMessage,
        tc::{
            TcAttribute, TcBpfFlags, TcFilterBpf, TcFilterBpfOption, TcHandle, TcHeader, TcMessage,
            TcOption,
        },
    },
};

use super::{
    Found, Target,
    failure::failed,
    pins::{Pins, children, note, parse_device, parse_hook, remove_note},
    whose::Ours,
};
use crate::{Result, netlink::blocking};

pub(super) use self::qdisc::{qdiscs, remove_qdisc};

/// Preference of our filters: nothing comes before it.
const PRIORITY: u16 = 1;
/// `ETH_P_ALL`.
const EVERY_PROTOCOL: u16 = 3;

/// Attaches a program before all others, or in the place of an earlier one; whether the
/// qdisc is ours, which is `remembered` for when somebody has removed the note.
pub(super) fn attach(
    pins: &Pins,
    target: Target,
    ifindex: u32,
    program: &SchedClassifier,
    remembered: bool,
    ours: &mut Ours,
) -> Result<bool> {
    let operation = || format!("attach {target}");
    let notes = pins.clsact_device(target.device);
    note(&notes.join(target.hook.name()))?;
    let name = filter_name(pins, target.hook);
    let old = find(ifindex, target.hook, &name, ours)?;
    qdisc::make(&notes, target, ifindex)?;
    // With the qdisc, our filter would have gone: it is still the one that we made.
    if remembered && old.is_some() {
        qdisc::note_it(&notes, ifindex)?;
    }
    let fd = program.fd().map_err(|error| failed(operation(), &error))?;
    let options = [
        TcFilterBpfOption::ProgFd(fd.as_fd().as_raw_fd().cast_unsigned()),
        TcFilterBpfOption::ProgName(name),
        TcFilterBpfOption::Flags(TcBpfFlags::DirectAction),
    ];
    let (handle, priority, flags) = match old {
        Some(filter) => (filter.handle, filter.priority, 0),
        None => (TcHandle::UNSPEC, PRIORITY, NLM_F_CREATE | NLM_F_EXCL),
    };
    let mut message = filter(ifindex, target.hook, handle, priority);
    message.attributes = vec![
        TcAttribute::Kind(TcFilterBpf::KIND.to_owned()),
        TcAttribute::Options(options.into_iter().map(TcOption::Bpf).collect()),
    ];
    blocking::change(RouteNetlinkMessage::NewTrafficFilter(message), flags)
        .map_err(|refusal| refusal.during(operation()))?;
    Ok(qdisc::is_noted(&notes, ifindex))
}

/// Removes our filter; nothing there is fine.
///
/// The qdisc stays: while one comes or goes, the kernel drops what the device sends
/// (`qdisc_graft` deactivates it).
pub(super) fn detach(
    pins: &Pins,
    target: Target,
    ifindex: Option<u32>,
    ours: &mut Ours,
) -> Result<()> {
    let notes = pins.clsact_device(target.device);
    if !notes.exists() {
        return Ok(());
    }
    if let Some(ifindex) = ifindex {
        remove_filter(pins, target, ifindex, ours)?;
    }
    remove_note(&notes.join(target.hook.name()))?;
    if children(&notes)?.is_empty() {
        remove_note(&notes)?;
    }
    Ok(())
}

/// Whether a filter of ours must be there.
pub(super) fn is_noted(pins: &Pins, target: Target) -> bool {
    let notes = pins.clsact_device(target.device);
    notes.join(target.hook.name()).exists()
}

/// The programs of the filters that come before ours, with their preferences; `None` where ours
/// is not.
pub(super) fn before(
    pins: &Pins,
    target: Target,
    ifindex: u32,
    ours: &mut Ours,
) -> Result<Option<Vec<(u32, u16)>>> {
    if !is_noted(pins, target) {
        return Ok(None);
    }
    let name = filter_name(pins, target.hook);
    // The kernel lists them in the order in which they are asked; each preference comes once
    // more, without a program.
    let filters: Vec<Filter> = filters(ifindex, target.hook)?
        .into_iter()
        .filter_map(parse)
        .filter(|filter| filter.program != 0)
        .collect();
    let mut place = None;
    for (at, filter) in filters.iter().enumerate() {
        if filter.is(&name, ours)? {
            place = Some(at);
            break;
        }
    }
    Ok(place.map(|place| {
        let before = filters.iter().take(place);
        before
            .map(|filter| (filter.program, filter.priority))
            .collect()
    }))
}

/// What others have at one side of a device, by kind and preference: what stands before a filter of
/// ours only where `before` is asked for, too. And whether there is one of ours.
pub(super) fn foreign(
    pins: &Pins,
    target: Target,
    ifindex: u32,
    ours: &mut Ours,
    before: bool,
) -> Result<(BTreeSet<String>, bool)> {
    let names = Hook::ALL.map(|hook| filter_name(pins, hook));
    let mut others = BTreeSet::new();
    let mut own = BTreeSet::new();
    for message in filters(ifindex, target.hook)? {
        let preference = (message.header.info >> 16) as u16;
        let kind = message.attributes.iter().find_map(|of| match of {
            TcAttribute::Kind(kind) => Some(kind.clone()),
            _ => None,
        });
        let kind = kind.unwrap_or_default();
        let filter = parse(message);
        let mut is_ours = false;
        if let Some(filter) = &filter {
            for name in &names {
                is_ours |= filter.is(name, ours)?;
            }
        }
        if is_ours {
            own.insert(preference);
            if !before {
                others.clear();
            }
        } else {
            others.insert((preference, kind));
        }
    }
    // Each preference of ours comes once more, without a program.
    others.retain(|(preference, _)| !own.contains(preference));
    let told = others
        .into_iter()
        .map(|(preference, kind)| format!("{kind} pref {preference}"));
    Ok((told.collect(), !own.is_empty()))
}

/// Where filters of ours must be, and what is there.
pub(super) fn found(
    pins: &Pins,
    devices: &BTreeMap<IfName, u32>,
    ours: &mut Ours,
) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    for device in children(&pins.clsact())?
        .iter()
        .filter_map(|name| parse_device(name))
    {
        let hooks = children(&pins.clsact_device(device))?;
        for hook in hooks.iter().filter_map(|name| parse_hook(name)) {
            let filter = match devices.get(&device) {
                Some(&ifindex) => find(ifindex, hook, &filter_name(pins, hook), ours)?,
                None => None,
            };
            let program = filter.map(|filter| filter.program);
            found.push(Found {
                target: Target { device, hook },
                program,
            });
        }
    }
    Ok(found)
}

fn remove_filter(pins: &Pins, target: Target, ifindex: u32, ours: &mut Ours) -> Result<()> {
    let name = filter_name(pins, target.hook);
    let Some(old) = find(ifindex, target.hook, &name, ours)? else {
        return Ok(());
    };
    let mut message = filter(ifindex, target.hook, old.handle, old.priority);
    message.attributes = vec![TcAttribute::Kind(TcFilterBpf::KIND.to_owned())];
    blocking::change(RouteNetlinkMessage::DelTrafficFilter(message), 0)
        .map_err(|refusal| refusal.during(format!("detach {target}")))
}

/// A filter with a program.
struct Filter {
    handle: TcHandle,
    priority: u16,
    name: Option<String>,
    program: u32,
}

impl Filter {
    /// Whether it is ours: others can give theirs the same name.
    fn is(&self, name: &str, ours: &mut Ours) -> Result<bool> {
        Ok(self.name.as_deref() == Some(name) && ours.made(self.program)?)
    }
}

fn find(ifindex: u32, hook: Hook, name: &str, ours: &mut Ours) -> Result<Option<Filter>> {
    for filter in filters(ifindex, hook)?.into_iter().filter_map(parse) {
        if filter.is(name, ours)? {
            return Ok(Some(filter));
        }
    }
    Ok(None)
}

/// Every filter at the hook's side of a device.
fn filters(ifindex: u32, hook: Hook) -> Result<Vec<TcMessage>> {
    let mut message = filter(ifindex, hook, TcHandle::UNSPEC, 0);
    // With a protocol, the kernel leaves out filters of others (`tc_dump_tfilter`).
    message.header.info = 0;
    let answers = blocking::dump(RouteNetlinkMessage::GetTrafficFilter(message))
        .map_err(|refusal| refusal.during(format!("list filters of ifindex {ifindex}")))?;
    let filters = answers.into_iter().filter_map(|answer| match answer {
        RouteNetlinkMessage::NewTrafficFilter(filter) => Some(filter),
        _ => None,
    });
    Ok(filters.collect())
}

fn parse(message: TcMessage) -> Option<Filter> {
    let mut filter = Filter {
        handle: message.header.handle,
        priority: (message.header.info >> 16) as u16,
        name: None,
        program: 0,
    };
    let options = message
        .attributes
        .into_iter()
        .find_map(|attribute| match attribute {
            TcAttribute::Options(options) => Some(options),
            _ => None,
        })?;
    for option in options {
        match option {
            TcOption::Bpf(TcFilterBpfOption::ProgName(name)) => filter.name = Some(name),
            TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => filter.program = id,
            _ => {}
        }
    }
    Some(filter)
}

/// As `tc filter show` prints it; it tells our filters from those of other instances.
fn filter_name(pins: &Pins, hook: Hook) -> String {
    format!("overlay/{}/{hook}", pins.instance())
}

fn filter(ifindex: u32, hook: Hook, handle: TcHandle, priority: u16) -> TcMessage {
    let minor = if hook.is_egress() {
        TcHandle::MIN_EGRESS
    } else {
        TcHandle::MIN_INGRESS
    };
    let header = TcHeader {
        index: ifindex.cast_signed(),
        handle,
        parent: TcHandle {
            major: TcHandle::CLSACT.major,
            minor,
        },
        info: u32::from(priority) << 16 | u32::from(EVERY_PROTOCOL.to_be()),
        ..TcHeader::default()
    };
    TcMessage::from_parts(header, Vec::new())
}
