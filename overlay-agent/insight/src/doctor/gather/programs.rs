//! Programs of others.

use overlay_core::{
    model::IfName,
    objects::{AttachmentState, Hook},
};
use overlay_kernel::bpf::{self, Attachment, Other};

use super::{Look, told};
use crate::doctor::facts::{Ahead, Device, ForeignXdp, OtherProgram, Seen};

/// Places that are looked at; of the endpoints of a large node not all.
const PLACES: usize = 256;

/// Places of ours where nothing runs any more.
pub(super) fn detached(look: &Look<'_>) -> Vec<(IfName, Hook)> {
    let attachments = look.observed.objects.attachments.iter();
    attachments
        .filter(|(_, state)| **state == AttachmentState::Broken)
        .map(|(place, _)| *place)
        .collect()
}

/// Programs that have their turn before ours.
pub(super) fn ahead(look: &Look<'_>) -> Seen<Vec<Ahead>> {
    let attachments = look.observed.objects.attachments.iter();
    let ours = attachments
        .filter(|((_, hook), state)| !hook.is_xdp() && **state != AttachmentState::Broken);
    let mut found = Vec::new();
    for (&(device, hook), _) in ours.take(PLACES) {
        let Some(link) = look.observed.around.links.get(&device) else {
            continue;
        };
        let before = told(bpf::before(&look.node.pins, device, link.index, hook))?;
        let before = before.unwrap_or_default();
        if !before.is_empty() {
            let programs = before.into_iter().map(|other| program(other, device, hook));
            found.push(Ahead {
                device,
                hook,
                programs: programs.collect(),
            });
        }
    }
    Ok(found)
}

fn program(other: Other, device: IfName, hook: Hook) -> OtherProgram {
    let side = if hook.is_egress() {
        "egress"
    } else {
        "ingress"
    };
    let removal = match other.by {
        Attachment::Link(id) => Some(format!("bpftool link detach id {id}")),
        Attachment::Filter(preference) => Some(format!(
            "tc filter del dev {device} {side} pref {preference}"
        )),
        Attachment::Xdp(mode) => Some(format!("ip link set dev {device} {mode} off")),
        Attachment::Bare => None,
    };
    OtherProgram {
        id: other.program,
        name: other.name,
        removal,
    }
}

/// XDP programs on the underlay.
pub(super) fn foreign_xdp(look: &Look<'_>, underlay: &[Device]) -> Seen<Vec<ForeignXdp>> {
    let mut found = Vec::new();
    for device in underlay.iter().map(|device| device.name) {
        let Some(link) = look.observed.around.links.get(&device) else {
            continue;
        };
        let foreign = told(bpf::foreign_xdp(&look.node.pins, device, link.index))?;
        found.extend(foreign.map(|other| ForeignXdp {
            device,
            program: program(other, device, Hook::GuardGeneric),
        }));
    }
    Ok(found)
}
