//! The handles to the kernel that observing and applying share.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use overlay_control::progress::Progress;
use overlay_core::{
    identity::NetnsId,
    model::IfName,
    objects::{AttachmentState, Hook},
    surroundings::NodeLink,
};
use overlay_kernel::{
    self as kernel,
    bpf::{self, AtDevice, DataPlane, Maps},
    netlink::Netlink,
    netns,
    nft::GuardTable,
};

use crate::key::KeyFile;

/// The node that this process works on: the network namespace it runs in.
pub struct Node {
    /// Its netlink socket.
    pub netlink: Netlink,
    /// Its namespace.
    pub netns: NetnsId,
    /// Folder of the instance's pins.
    pub pins: PathBuf,
    /// Its private key.
    pub key: KeyFile,
    /// The programs, once they are loaded.
    pub dataplane: Option<DataPlane>,
    /// The table that guards the tunnels' ports.
    pub guard: GuardTable,
    /// The listener to progress.
    pub progress: Progress,
    /// Indices of the devices that carried our mark at the last look, and of those made since.
    marked: BTreeSet<u32>,
}

impl Node {
    /// Opens the namespace that this thread is in; loads nothing.
    pub fn open(pins: PathBuf, key: KeyFile) -> kernel::Result<Self> {
        let netns = netns::own()?;
        Ok(Self {
            netlink: Netlink::open()?,
            netns,
            pins,
            key,
            dataplane: None,
            guard: GuardTable::default(),
            progress: Progress::default(),
            marked: BTreeSet::new(),
        })
    }

    /// Notes which devices are ours: somebody can change their mark, but not their index.
    pub fn recognise(&mut self, links: &BTreeMap<IfName, NodeLink>) {
        let ours = links.values().filter(|link| link.ours);
        self.marked = ours.map(|link| link.index).collect();
    }

    /// Notes that a device is ours that nobody has looked at yet.
    pub(crate) fn remember(&mut self, index: u32) {
        self.marked.insert(index);
    }

    /// Whether a device was ours at the last look, or has been made since.
    pub(crate) fn knows(&self, index: u32) -> bool {
        self.marked.contains(&index)
    }

    /// Names of the maps whose pins are there: those of the loaded programs, else any.
    pub(crate) fn pinned_maps(&self) -> kernel::Result<BTreeSet<&'static str>> {
        match &self.dataplane {
            Some(dataplane) => dataplane.pinned(),
            None => bpf::pinned(&self.pins),
        }
    }

    /// Hooks of others at devices, by name and index.
    pub(crate) fn hooked_in(
        &self,
        devices: &[(IfName, u32)],
    ) -> kernel::Result<BTreeMap<(IfName, u32), AtDevice>> {
        match &self.dataplane {
            Some(dataplane) => dataplane.hooked_in(devices),
            None => bpf::hooked_in(&self.pins, devices),
        }
    }

    /// Runs a function on the maps: those of the loaded programs, else those that are pinned.
    pub fn with_maps<T>(
        &self,
        use_maps: impl FnOnce(&Maps) -> kernel::Result<T>,
    ) -> kernel::Result<Option<T>> {
        match &self.dataplane {
            Some(dataplane) => use_maps(dataplane.maps()).map(Some),
            None => Maps::open(&self.pins)?.as_ref().map(use_maps).transpose(),
        }
    }

    /// As [`Node::with_maps`], to change them.
    pub(crate) fn with_maps_mut<T>(
        &mut self,
        use_maps: impl FnOnce(&mut Maps) -> kernel::Result<T>,
    ) -> kernel::Result<Option<T>> {
        match &mut self.dataplane {
            Some(dataplane) => use_maps(dataplane.maps_mut()).map(Some),
            None => Maps::open(&self.pins)?.as_mut().map(use_maps).transpose(),
        }
    }

    /// The attachments; devices by name and index.
    pub(crate) fn attachments(
        &self,
        devices: &[(IfName, u32)],
    ) -> kernel::Result<BTreeMap<(IfName, Hook), AttachmentState>> {
        match &self.dataplane {
            Some(dataplane) => dataplane.attachments(devices),
            None => bpf::attachments(&self.pins, devices),
        }
    }
}
