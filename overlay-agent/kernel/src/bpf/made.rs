//! Records of the objects that an instance has made, by the kernel's ids.
//!
//! The name of a program, a filter, a map or a pin proves nothing: anybody can give theirs the same. So
//! the maps that our programs are loaded onto are noted by id before a program is attached: empty
//! folders on the bpffs, which outlive the agent and end with the boot, as the ids do. The kernel
//! gives an id again only once it has given all others (`idr_alloc_cyclic`). A map gets its id when
//! it has been pinned, so before that there is a note of where it is about to be pinned.
//!
//! ```text
//! made/1234/           this map is ours
//! made/v11-PEERS4/     what gets pinned here is about to be
//! ```

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use aya::maps::MapInfo;
use overlay_common::maps::PEER_STATS;

use super::{
    failure::failed,
    pins::{Pins, SET_ASIDE, children, note, remove_empty},
};
use crate::{KernelError, Result};

/// The last layout of builds that made no notes: of these, a map is ours that is pinned in the folder of
/// the layout and known to the kernel by its pin's name.
const LAST_WITHOUT_NOTES: u32 = 10;
/// Bytes of a map's name that the kernel keeps.
const KERNEL_NAME: usize = 15;

/// The notes of an instance.
#[derive(Clone, Copy)]
pub(super) struct Notes<'p>(pub(super) &'p Pins);

impl Notes<'_> {
    /// The folder that the notes are in.
    pub(super) fn folder(self) -> PathBuf {
        self.0.folder().join("made")
    }

    /// The note that a map of a layout is about to be pinned.
    pub(super) fn announcement(self, abi: u32, name: &str) -> PathBuf {
        self.folder().join(format!("v{abi}-{name}"))
    }

    /// Ids of all maps that are ours: the noted ones, and those that builds without notes have pinned.
    pub(super) fn maps(self) -> Result<BTreeSet<u32>> {
        let mut maps: BTreeSet<u32> = self.ids()?.collect();
        for abi in self.0.layouts()? {
            if abi > LAST_WITHOUT_NOTES {
                continue;
            }
            let names = children(&self.0.layout(abi))?;
            maps.extend(names.iter().filter_map(|name| self.pinned(abi, name)));
        }
        Ok(maps)
    }

    /// Whether what is pinned by a name in a layout is a map of ours.
    pub(super) fn is_ours(self, abi: u32, name: &str) -> bool {
        self.pinned(abi, name).is_some()
    }

    /// Whether a map, by its id, is noted.
    pub(super) fn has(self, id: u32) -> bool {
        self.folder().join(id.to_string()).is_dir()
    }

    /// Notes maps, and forgets those that are gone and what was announced.
    pub(super) fn note(self, ids: impl IntoIterator<Item = u32>) -> Result<()> {
        for id in ids {
            note(&self.folder().join(id.to_string()))?;
        }
        for name in children(&self.folder())? {
            let is_over = match name.parse() {
                Ok(id) => is_gone(id)?,
                Err(_) => is_announcement(&name),
            };
            if is_over {
                remove_empty(&self.folder().join(name))?;
            }
        }
        Ok(())
    }

    /// Removes the notes, and their folder if nothing else is in it.
    pub(super) fn remove(self) -> Result<()> {
        let folder = self.folder();
        for name in children(&folder)? {
            if name.parse::<u32>().is_ok() || is_announcement(&name) {
                remove_empty(&folder.join(name))?;
            }
        }
        remove_empty(&folder).map(drop)
    }

    /// Where there are no notes at all, why nothing that is pinned counts as ours: this instance has made
    /// nothing, or somebody has removed them.
    pub(super) fn lacking(self) -> Result<Option<String>> {
        let mut ids = self.ids()?;
        let folder = self.folder();
        Ok(ids.next().is_none().then(|| {
            format!(
                "{} has no notes of what this instance has made, so nothing proves that it is its own",
                folder.display()
            )
        }))
    }

    fn ids(self) -> Result<impl Iterator<Item = u32>> {
        let notes = children(&self.folder())?.into_iter();
        Ok(notes.filter_map(|name| name.parse().ok()))
    }

    /// The id of the map of ours that is pinned there.
    pub(super) fn pinned(self, abi: u32, name: &str) -> Option<u32> {
        let id = id_by_name(&self.0.layout(abi).join(name), name)?;
        let is_ours = abi <= LAST_WITHOUT_NOTES
            || self.has(id)
            || self.announcement(abi, name).is_dir()
            // It was pinned by that name before.
            || name == SET_ASIDE && self.announcement(abi, PEER_STATS).is_dir();
        is_ours.then_some(id)
    }
}

/// The id of a map that is pinned under the name by which the kernel knows it.
fn id_by_name(pin: &Path, name: &str) -> Option<u32> {
    let name = if name == SET_ASIDE { PEER_STATS } else { name };
    let known = name.get(..KERNEL_NAME).unwrap_or(name);
    let is_file = fs::symlink_metadata(pin).is_ok_and(|there| there.is_file());
    // Of a program something else would be told in the place of its name.
    let info = is_file.then(|| MapInfo::from_pin(pin).ok()).flatten()?;
    (info.name_as_str() == Some(known)).then(|| info.id())
}

fn is_announcement(name: &str) -> bool {
    let layout = name.strip_prefix('v').and_then(|name| name.split_once('-'));
    layout.is_some_and(|(abi, _)| abi.parse::<u32>().is_ok())
}

/// Whether the kernel has no such map any more.
fn is_gone(id: u32) -> Result<bool> {
    match MapInfo::from_id(id) {
        Ok(_) => Ok(false),
        Err(error) => {
            let error = failed(format!("look at map {id}"), &error);
            if error.not_there() {
                Ok(true)
            } else {
                Err(error)
            }
        }
    }
}

/// The error of what is at the place of a map and is none of ours.
pub(super) fn in_the_way(operation: String, pins: &Pins, pin: &Path) -> KernelError {
    let pin = pin.display();
    match Notes(pins).lacking() {
        Ok(None) => KernelError::new(
            operation,
            format!("something is pinned at {pin} that this instance did not make"),
        )
        .with_cure("see whose it is, and have it pinned elsewhere"),
        Ok(Some(lacking)) => KernelError::new(
            operation,
            format!("something is pinned at {pin}, and {lacking}"),
        )
        .with_cure(format!(
            "if nobody else has pinned it, remove it with \"rm {pin}\""
        )),
        Err(error) => error,
    }
}
