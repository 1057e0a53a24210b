//! The clsact qdiscs that we made, which only then we may remove.
//!
//! The note tells the index of the device: one that has its name later is another one. Builds with layouts
//! up to 10 noted no index.

use std::{collections::BTreeSet, path::Path};

use overlay_core::{model::IfName, objects::Hook};
use rtnetlink::{
    packet_core::{NLM_F_CREATE, NLM_F_EXCL},
    packet_route::{
        RouteNetlinkMessage,
        tc::{TcAttribute, TcHandle, TcHeader, TcMessage},
    },
};

use super::{
    super::{
        Target,
        pins::{Pins, QDISC_NOTE, children, note, parse_device, remove_note},
    },
    filters,
};
use crate::{Result, netlink::blocking};

const QDISC: &str = "clsact";

/// The devices whose qdisc we made.
pub(in super::super) fn qdiscs(pins: &Pins) -> Result<BTreeSet<IfName>> {
    let devices = children(&pins.clsact())?;
    let devices = devices.iter().filter_map(|name| parse_device(name));
    Ok(devices
        .filter(|&device| pins.clsact_device(device).join(QDISC_NOTE).exists())
        .collect())
}

/// Removes a qdisc that we made on the device with this index, unless somebody uses it; a device that is
/// gone, or another one by now, is fine.
pub(in super::super) fn remove_qdisc(
    pins: &Pins,
    device: IfName,
    ifindex: Option<u32>,
) -> Result<()> {
    let notes = pins.clsact_device(device);
    if let Some(ifindex) = ifindex
        && is_noted(&notes, ifindex)
        && !is_used(ifindex)?
    {
        blocking::change(RouteNetlinkMessage::DelQueueDiscipline(qdisc(ifindex)), 0)
            .map_err(|refusal| refusal.during(format!("delete the clsact qdisc of {device}")))
            .or_else(|error| {
                if error.not_there() {
                    Ok(())
                } else {
                    Err(error)
                }
            })?;
    }
    let note = notes.join(QDISC_NOTE);
    for index in children(&note)? {
        if index.parse::<u32>().is_ok() {
            remove_note(&note.join(index))?;
        }
    }
    remove_note(&note)?;
    if children(&notes)?.is_empty() {
        remove_note(&notes)?;
    }
    Ok(())
}

/// Makes the qdisc and notes it; one that is there is somebody else's.
pub(super) fn make(notes: &Path, target: Target, ifindex: u32) -> Result<()> {
    let message = RouteNetlinkMessage::NewQueueDiscipline(qdisc(ifindex));
    match blocking::change(message, NLM_F_CREATE | NLM_F_EXCL) {
        Ok(()) => note_it(notes, ifindex),
        Err(refusal) => {
            let error = refusal.during(format!("add a clsact qdisc to {}", target.device));
            if error.already_there() {
                Ok(())
            } else {
                Err(error)
            }
        }
    }
}

fn is_used(ifindex: u32) -> Result<bool> {
    for hook in [Hook::FromUnderlay, Hook::FromHost] {
        if !filters(ifindex, hook)?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Notes that the qdisc of the device with this index is ours.
pub(super) fn note_it(notes: &Path, ifindex: u32) -> Result<()> {
    note(&notes.join(QDISC_NOTE).join(ifindex.to_string()))
}

/// Whether that is noted.
pub(super) fn is_noted(notes: &Path, ifindex: u32) -> bool {
    let note = notes.join(QDISC_NOTE);
    note.join(ifindex.to_string()).is_dir()
        || note.is_dir() && children(&note).is_ok_and(|indices| indices.is_empty())
}

fn qdisc(ifindex: u32) -> TcMessage {
    let header = TcHeader {
        index: ifindex.cast_signed(),
        handle: TcHandle {
            major: TcHandle::CLSACT.major,
            minor: 0,
        },
        parent: TcHandle::CLSACT,
        ..TcHeader::default()
    };
    TcMessage::from_parts(header, vec![TcAttribute::Kind(QDISC.to_owned())])
}
