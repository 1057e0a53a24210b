//! The programs: whether they are wanted, and how they get into the kernel.

use std::path::Path;

use overlay_common::maps::MAX_PEERS;
use overlay_core::{
    model::{FastPath, Rx},
    objects::Capacity,
};
use overlay_kernel::{
    self as kernel,
    bpf::{AttachMode, DataPlane, Variant},
};
use tracing::warn;

use super::Reconciler;

impl Reconciler {
    /// Whether any network wants the programs.
    pub(super) fn wants_programs(&self) -> bool {
        self.model
            .networks
            .iter()
            .any(|network| network.fastpath != FastPath::Off)
    }

    /// Loads the programs, as the configuration wants them, and takes over the maps that are
    /// pinned.
    pub(super) fn load_programs(&mut self) {
        let rx = self.model.node.rx;
        let peers = self.model.peer_count();
        let fits = |dataplane: &DataPlane| {
            dataplane.rx() == rx
                && *dataplane.variant() == self.variant
                && dataplane.maps().counters().slots() > peers.min(MAX_PEERS)
        };
        if self.node.dataplane.as_ref().is_some_and(fits) || !self.wants_programs() {
            return;
        }
        match load(&self.node.pins, rx, peers, self.variant) {
            Ok(dataplane) => {
                self.wish();
                self.node.dataplane = Some(dataplane);
                self.unavailable = None;
                self.known.forget_programs();
                self.listen();
            }
            Err(error) => {
                if self.unavailable.as_ref() != Some(&error) {
                    warn!(
                        "the fast path is unavailable, the kernel's VXLAN device carries everything: {error}"
                    );
                }
                self.unavailable = Some(error);
            }
        }
    }

    /// How much the maps hold.
    pub(super) fn capacity(&self) -> Capacity {
        let dataplane = self.node.dataplane.as_ref();
        dataplane.map_or_else(Capacity::default, |dataplane| dataplane.maps().capacity())
    }
}

/// Loads the programs into the kernel.
pub(super) fn load(
    pins: &Path,
    rx: Rx,
    peers: usize,
    variant: Variant,
) -> kernel::Result<DataPlane> {
    let object = if variant.is_watched() {
        overlay_kernel::WATCHED
    } else {
        overlay_kernel::PROGRAMS
    };
    DataPlane::open_as(pins, object, attach_mode(), rx, peers, variant)
}

/// TCX where the kernel has it; tests of the older way force it.
fn attach_mode() -> AttachMode {
    match std::env::var("OVERLAY_ATTACH").as_deref() {
        Ok("clsact") => AttachMode::Clsact,
        Ok("tcx") => AttachMode::Tcx,
        _ => AttachMode::Auto,
    }
}
