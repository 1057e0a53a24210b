//! The eBPF programs and their maps: loading, pinning, filling, attaching.
//!
//! Below the folder of an instance, which is on a bpffs:
//!
//! ```text
//! v11/PEERS4 …                 maps, by ABI number
//! links/from_underlay-eth1     TCX and XDP links
//! made/1234/                   no pin but a note: the map with this id is ours
//! clsact/eth1/from_underlay/   no pins but notes: a filter of ours is there,
//! clsact/eth1/qdisc/3/         and the qdisc that it is in was made by us, on the device with this index
//! ```
//!
//! Pins keep all of it running without the agent. Attaching where something of ours
//! is attached replaces the program in one step: no packet passes in between.

mod batch;
mod by_family;
mod clsact;
mod convert;
mod counters;
mod drift;
mod events;
mod failure;
mod flows;
mod hooks;
mod instance;
mod links;
mod load;
mod logs;
mod made;
mod maps;
mod others;
mod pins;
mod row;
mod rows;
mod specs;
mod table;
mod tcx;
mod trial;
mod variant;
mod watch;
mod whose;
mod xdp;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::Path,
};

use aya::{Ebpf, util::KernelVersion};
use overlay_core::{
    model::{IfName, Rx},
    objects::{AttachmentState, Hook},
};
use tokio::sync::mpsc::UnboundedReceiver;

use self::{logs::Logs, made::Notes, pins::Pins, whose::Ours};
use super::{KernelError, Result};

pub use self::{
    counters::Counters,
    drift::{DriftDetector, Sums},
    events::{Event, Events},
    flows::{Flows, Kept},
    hooks::{AtDevice, hooked_in, tcx_programs},
    instance::{
        attachments, detach, is_pinned, other_layouts, pinned, qdiscs, remove_all, remove_layout,
        remove_qdisc, running,
    },
    maps::Maps,
    others::{Attachment, Other, before, foreign_xdp},
    trial::{Build, Ran, Trial},
    variant::Variant,
    watch::PinWatch,
};

/// Whether TC programs of this kernel can strip a tunnel's headers around a packet of the other family
/// than the tunnel's: from Linux 6.3 on (`BPF_F_ADJ_ROOM_DECAP_L3_IPV4` of `bpf_skb_adjust_room()`).
/// `false` where the kernel's version cannot be read.
pub fn strips_other_family() -> bool {
    KernelVersion::current().is_ok_and(|kernel| kernel >= KernelVersion::new(6, 3, 0))
}

/// How programs are attached to devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AttachMode {
    /// TCX where the kernel has it (6.6), else clsact.
    #[default]
    Auto,
    /// TCX links.
    Tcx,
    /// Filters of a clsact qdisc.
    Clsact,
}

/// The loaded programs with their maps.
///
/// Dropping it changes no forwarding: what is attached stays attached.
pub struct DataPlane {
    pins: Pins,
    mode: AttachMode,
    rx: Rx,
    variant: Variant,
    maps: Maps,
    drift: DriftDetector,
    ebpf: Ebpf,
    /// Ids of the loaded programs, by name.
    programs: BTreeMap<&'static str, u32>,
    /// Ids of their maps, by name.
    ids: BTreeMap<&'static str, u32>,
    /// Devices, by name and index, whose clsact qdisc is ours.
    qdiscs: BTreeSet<(IfName, u32)>,
    /// The programs of others that come before ours.
    before: BTreeMap<Target, Vec<u32>>,
    logs: Option<Logs>,
}

impl DataPlane {
    /// Loads the programs of `object` onto the maps that are pinned in the instance's
    /// folder, making those that are missing, with counters for at least so many `peers`.
    /// Attaches nothing.
    ///
    /// When it fails, nothing that it made stays. The error for a program that the
    /// kernel refuses ends with the verifier's last lines.
    pub fn open(dir: &Path, object: &[u8], mode: AttachMode, rx: Rx, peers: usize) -> Result<Self> {
        Self::open_as(dir, object, mode, rx, peers, Variant::default())
    }

    /// The same with programs that say more: `object` has to be one that can.
    pub fn open_as(
        dir: &Path,
        object: &[u8],
        mode: AttachMode,
        rx: Rx,
        peers: usize,
        variant: Variant,
    ) -> Result<Self> {
        let mode = match mode {
            AttachMode::Auto | AttachMode::Tcx if tcx::is_supported()? => AttachMode::Tcx,
            AttachMode::Auto | AttachMode::Clsact => AttachMode::Clsact,
            AttachMode::Tcx => {
                return Err(KernelError::new("use TCX", "this kernel has none")
                    .with_cure("boot 6.6 or newer, or use clsact"));
            }
        };
        let pins = Pins::new(dir);
        let load::Loaded {
            ebpf,
            programs,
            maps,
            logs,
        } = load::load(&pins, object, rx, peers, &variant)?;
        Ok(Self {
            drift: DriftDetector::open(&pins)?,
            ids: load::map_ids(&pins)?,
            qdiscs: BTreeSet::new(),
            before: BTreeMap::new(),
            pins,
            mode,
            rx,
            variant,
            maps,
            ebpf,
            programs,
            logs,
        })
    }

    /// How it attaches: [`AttachMode::Tcx`] or [`AttachMode::Clsact`].
    pub fn mode(&self) -> AttachMode {
        self.mode
    }

    /// Where its programs strip the tunnel's headers.
    pub fn rx(&self) -> Rx {
        self.rx
    }

    /// The variant of its programs.
    pub fn variant(&self) -> &Variant {
        &self.variant
    }

    /// The events of its programs; can be taken once.
    pub fn take_events(&mut self) -> Result<Events> {
        Events::of(&mut self.ebpf)
    }

    /// The log messages of its programs; can be taken once.
    pub fn take_messages(&mut self) -> Option<UnboundedReceiver<Event>> {
        self.logs.as_mut().and_then(Logs::take)
    }

    /// The maps, to read.
    pub fn maps(&self) -> &Maps {
        &self.maps
    }

    /// The maps, to change.
    pub fn maps_mut(&mut self) -> &mut Maps {
        &mut self.maps
    }

    /// Whether our program can run where it was attached. Notes whose turn comes before ours,
    /// to take the same place again should somebody take us off.
    pub fn runs(&mut self, device: IfName, ifindex: u32, hook: Hook) -> Result<bool> {
        let target = Target { device, hook };
        let ours = self.programs.get(hook.program());
        let Some(&ours) = ours.filter(|_| self.mode == AttachMode::Tcx && !hook.is_xdp()) else {
            return may_run(&self.pins, target, ifindex);
        };
        let Some(before) = tcx::before(target, ifindex, ours)? else {
            return Ok(false);
        };
        if before.is_empty() {
            self.before.remove(&target);
        } else {
            self.before.insert(target, before);
        }
        Ok(true)
    }

    /// The sums that tell whether others have changed the maps.
    pub fn drift(&mut self) -> &mut DriftDetector {
        &mut self.drift
    }

    /// Names of the maps that are pinned where they should be, and noted as ours.
    pub fn pinned(&self) -> Result<BTreeSet<&'static str>> {
        let pinned = load::map_ids(&self.pins)?;
        let same = pinned
            .into_iter()
            .filter(|(name, id)| self.ids.get(name) == Some(id) && Notes(&self.pins).has(*id));
        Ok(same.map(|(name, _)| name).collect())
    }

    /// Pins a map again, in the place of what is there.
    pub fn pin(&mut self, map: &str) -> Result<()> {
        let id = self.ids.get(map).copied();
        load::pin_again(&self.ebpf, &self.pins, map, id)
    }

    /// Puts the hook's program before all others on a device, or in the place of an
    /// earlier one of ours.
    pub fn attach(&mut self, device: IfName, ifindex: u32, hook: Hook) -> Result<()> {
        let target = Target { device, hook };
        if hook.is_xdp() {
            if !self.programs.contains_key(hook.program()) {
                let id = load::load_xdp(&mut self.ebpf, hook)?;
                self.programs.insert(hook.program(), id);
            }
            let mut ours = self.ours();
            let program = load::xdp_program(&mut self.ebpf, hook)?;
            return xdp::attach(&self.pins, target, ifindex, program, &mut ours);
        }
        let mut ours = self.ours();
        let program = load::program(&mut self.ebpf, hook)?;
        // What another mode has attached goes last, so that there always is one.
        if self.mode == AttachMode::Clsact {
            let remembered = self.qdiscs.contains(&(device, ifindex));
            if clsact::attach(&self.pins, target, ifindex, program, remembered, &mut ours)? {
                self.qdiscs.insert((device, ifindex));
            }
            links::detach(&self.pins, target, &mut ours)
        } else {
            let before = self.before.get(&target).map_or(&[][..], Vec::as_slice);
            tcx::attach(&self.pins, target, ifindex, program, before, &mut ours)?;
            clsact::detach(&self.pins, target, Some(ifindex), &mut ours)
        }
    }

    /// As [`hooked_in`](fn@hooked_in): what this process has attached is ours, whatever has become of the notes.
    pub fn hooked_in(
        &self,
        devices: &[(IfName, u32)],
    ) -> Result<BTreeMap<(IfName, u32), AtDevice>> {
        hooks::beside(self.pins.clone(), self.ours(), devices)
    }

    /// The means to tell our programs from those of others.
    fn ours(&self) -> Ours {
        Ours::of(&self.pins, self.ids.values().copied())
    }

    /// Our attachments by device, given by name and index.
    ///
    /// Remains of devices that are not among `devices` are [`AttachmentState::Broken`].
    pub fn attachments(
        &self,
        devices: &[(IfName, u32)],
    ) -> Result<BTreeMap<(IfName, Hook), AttachmentState>> {
        observe(&self.pins, devices, self.ours(), |mode, hook, program| {
            (hook.is_xdp() || mode == self.mode)
                && self.programs.get(hook.program()) == Some(&program)
        })
    }
}

impl fmt::Debug for DataPlane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataPlane")
            .field("mode", &self.mode)
            .field("programs", &self.programs)
            .finish_non_exhaustive()
    }
}

/// Whether a program can run where it was attached, as far as its link tells; filters announce
/// their end.
fn may_run(pins: &Pins, target: Target, ifindex: u32) -> Result<bool> {
    match links::read(&pins.link(target))? {
        Some(link) => Ok(link.ifindex == ifindex),
        None => Ok(clsact::is_noted(pins, target)),
    }
}

/// A device and what is attached to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Target {
    device: IfName,
    hook: Hook,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} dev {}", self.hook, self.device)
    }
}

/// An attachment of ours; `program` is the id of what runs there, if anything does.
#[derive(Debug)]
struct Found {
    target: Target,
    program: Option<u32>,
}

fn observe(
    pins: &Pins,
    devices: &[(IfName, u32)],
    mut ours: Ours,
    is_current: impl Fn(AttachMode, Hook, u32) -> bool,
) -> Result<BTreeMap<(IfName, Hook), AttachmentState>> {
    let devices: BTreeMap<IfName, u32> = devices.iter().copied().collect();
    let mut states = BTreeMap::new();
    for (mode, found) in [
        (AttachMode::Tcx, links::found(pins, &devices, &mut ours)?),
        (
            AttachMode::Clsact,
            clsact::found(pins, &devices, &mut ours)?,
        ),
    ] {
        for Found { target, program } in found {
            let state = match program {
                None => AttachmentState::Broken,
                Some(id) if is_current(mode, target.hook, id) => AttachmentState::Current,
                Some(_) => AttachmentState::Outdated,
            };
            // In both modes at once: attaching anew makes it one.
            states
                .entry((target.device, target.hook))
                .and_modify(|state| *state = AttachmentState::Outdated)
                .or_insert(state);
        }
    }
    Ok(states)
}
