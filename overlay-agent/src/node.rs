//! The handles to the kernel that observing and applying share.

use std::{collections::BTreeMap, path::PathBuf};

use crate::{
    kernel::{
        self,
        bpf::{self, DataPlane, Maps},
        netlink::Netlink,
        netns::{self, NetnsId},
    },
    model::IfName,
    objects::{AttachmentState, Hook},
};

/// The node that this process works on: the network namespace it runs in.
pub struct Node {
    /// Its netlink socket.
    pub netlink: Netlink,
    /// Its namespace.
    pub netns: NetnsId,
    /// Folder of the instance's pins.
    pub pins: PathBuf,
    /// The programs, once they are loaded.
    pub dataplane: Option<DataPlane>,
}

impl Node {
    /// Opens the namespace that this thread is in; loads nothing.
    pub fn open(pins: PathBuf) -> kernel::Result<Self> {
        let netns = netns::own()?;
        Ok(Self {
            netlink: Netlink::open()?,
            netns,
            pins,
            dataplane: None,
        })
    }

    /// Runs a function on the maps: those of the loaded programs, else those that are pinned.
    pub(crate) fn with_maps<T>(
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

    /// What is attached where; devices by name and index.
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
