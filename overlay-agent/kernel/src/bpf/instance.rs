//! Pins and attachments of an instance, observed and removed without loading a program.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use overlay_core::{
    model::IfName,
    objects::{AttachmentState, Hook},
};

use super::{Target, clsact, links, load, observe, pins::Pins, whose::Ours};
use crate::Result;

/// As [`DataPlane::attachments`](super::DataPlane::attachments) without loading anything: every program of ours that
/// runs is [`AttachmentState::Current`].
pub fn attachments(
    dir: &Path,
    devices: &[(IfName, u32)],
) -> Result<BTreeMap<(IfName, Hook), AttachmentState>> {
    let pins = Pins::new(dir);
    let ours = Ours::of(&pins, []);
    observe(&pins, devices, ours, |_, _, _| true)
}

/// Id of the program of ours that runs at a hook of a device now.
pub fn running(dir: &Path, device: IfName, ifindex: u32, hook: Hook) -> Result<Option<u32>> {
    let pins = Pins::new(dir);
    let devices = BTreeMap::from([(device, ifindex)]);
    let target = Target { device, hook };
    let mut ours = Ours::of(&pins, []);
    let mut found = links::found(&pins, &devices, &mut ours)?;
    found.extend(clsact::found(&pins, &devices, &mut ours)?);
    let mut running = found.into_iter().filter(|found| found.target == target);
    Ok(running.find_map(|found| found.program))
}

/// Names of the maps that are pinned.
pub fn pinned(dir: &Path) -> Result<BTreeSet<&'static str>> {
    Ok(load::map_ids(&Pins::new(dir))?.into_keys().collect())
}

/// Takes the hook's program off a device, or clears away what is left of it when
/// the device is gone (`ifindex` is `None`). Nothing to take off is fine.
pub fn detach(dir: &Path, device: IfName, ifindex: Option<u32>, hook: Hook) -> Result<()> {
    let pins = Pins::new(dir);
    let target = Target { device, hook };
    let mut ours = Ours::of(&pins, []);
    links::detach(&pins, target, &mut ours)?;
    if hook.is_xdp() {
        return Ok(());
    }
    clsact::detach(&pins, target, ifindex, &mut ours)
}

/// Whether an instance has pins, or a folder for them.
pub fn is_pinned(dir: &Path) -> bool {
    Pins::new(dir).exist()
}

/// The layouts of other builds, of which maps of the instance are pinned.
pub fn other_layouts(dir: &Path) -> Result<BTreeSet<u32>> {
    Pins::new(dir).other_layouts()
}

/// Removes the pinned maps of a layout; none there is fine.
pub fn remove_layout(dir: &Path, abi: u32) -> Result<()> {
    Pins::new(dir).remove_layout(abi)
}

/// The devices that got a clsact qdisc of us.
pub fn qdiscs(dir: &Path) -> Result<BTreeSet<IfName>> {
    clsact::qdiscs(&Pins::new(dir))
}

/// Removes a clsact qdisc of ours, or clears away what is left of it when the device is gone
/// (`ifindex` is `None`). One that others use stays, as theirs.
pub fn remove_qdisc(dir: &Path, device: IfName, ifindex: Option<u32>) -> Result<()> {
    clsact::remove_qdisc(&Pins::new(dir), device, ifindex)
}

/// Removes all pins of an instance, its folder, and the folder above if these are empty then:
/// what others have pinned beside ours stays.
///
/// Links are detached by it. Filters must have been detached before. Returns what stays and why, in a sentence.
pub fn remove_all(dir: &Path) -> Result<Option<String>> {
    let pins = Pins::new(dir);
    links::detach_all(&pins, &mut Ours::of(&pins, []))?;
    pins.remove()
}
