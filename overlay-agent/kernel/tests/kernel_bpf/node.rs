//! The place that each test has for itself.

#[path = "../common/namespace.rs"]
mod common;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use aya::{
    maps::MapInfo,
    programs::{ProgramInfo, SchedClassifier, TcAttachType},
};
use common::Namespace;
use nix::net::if_::if_nametoindex;
use overlay_core::{
    model::{IfName, Name, Rx},
    objects::{AttachmentState, Hook},
};
use overlay_kernel::{
    PROGRAMS,
    bpf::{self, AttachMode, DataPlane},
};

/// A namespace with two veth devices, `v0` and `v1.5`, and a folder for pins. Both go
/// when the test ends, however it ends.
pub(crate) struct Node {
    pub(crate) name: Name,
    pub(crate) pins: PathBuf,
    namespace: Namespace,
}

impl Node {
    pub(crate) fn new() -> Self {
        // With a dot in its name: bpffs takes none.
        let namespace = Namespace::named("ovl-bpf-");
        let name = namespace.name.clone();
        let pins =
            Path::new("/sys/fs/bpf").join(format!("test-{}", name.as_str().replace('.', "-")));
        let node = Self {
            pins: pins.join(name.as_str()),
            name,
            namespace,
        };
        node.run("ip link add v0 type veth peer name v1.5");
        node
    }

    pub(crate) fn run(&self, command: &str) -> String {
        self.namespace.run(command)
    }

    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.namespace.inside(work)
    }

    pub(crate) fn open(&self, mode: AttachMode) -> DataPlane {
        self.inside(|| DataPlane::open(&self.pins, PROGRAMS, mode, Rx::Tc, 1))
            .unwrap()
    }

    pub(crate) fn attach(&self, dataplane: &mut DataPlane, device: &str, hook: Hook) {
        let attached = self.inside(|| dataplane.attach(ifname(device), index(device), hook));
        attached.unwrap();
    }

    /// The folder under its name on bpffs, which takes no dots.
    pub(crate) fn escaped_pins(&self) -> PathBuf {
        self.escaped(&self.pins)
    }

    pub(crate) fn escaped(&self, pins: &Path) -> PathBuf {
        pins.with_file_name(self.name.as_str().replace('.', "%2e"))
    }

    /// Notes that a pinned map is ours, as who makes one does.
    pub(crate) fn note(&self, pin: &Path) {
        let id = MapInfo::from_pin(pin).unwrap().id();
        let note = self.escaped_pins().join("made").join(id.to_string());
        std::fs::create_dir_all(note).unwrap();
    }

    /// The pins of somebody else whose filters and pins are called as ours.
    pub(crate) fn namesake(&self, mode: AttachMode) -> (PathBuf, DataPlane) {
        let folder = self.pins.parent().unwrap();
        let pins = PathBuf::from(format!("{}-others", folder.display())).join(self.name.as_str());
        let open = || DataPlane::open(&pins, PROGRAMS, mode, Rx::Tc, 1);
        let theirs = self.inside(open).unwrap();
        (pins, theirs)
    }

    pub(crate) fn detach(&self, device: &str, hook: Hook) {
        let ifindex = self.ifindex(device);
        self.inside(|| bpf::detach(&self.pins, ifname(device), ifindex, hook))
            .unwrap();
    }

    pub(crate) fn remove_qdisc(&self, device: &str) {
        let ifindex = self.ifindex(device);
        self.inside(|| bpf::remove_qdisc(&self.pins, ifname(device), ifindex))
            .unwrap();
    }

    /// The devices that got a clsact qdisc of us.
    pub(crate) fn qdiscs(&self) -> Vec<String> {
        let devices = bpf::qdiscs(&self.pins).unwrap();
        devices.iter().map(ToString::to_string).collect()
    }

    fn ifindex(&self, device: &str) -> Option<u32> {
        let devices = self.devices();
        let found = devices.iter().find(|(name, _)| *name == ifname(device));
        found.map(|(_, index)| *index)
    }

    pub(crate) fn devices(&self) -> Vec<(IfName, u32)> {
        self.inside(|| {
            let names = ["v0", "v1.5", "v2"];
            let known = names
                .iter()
                .filter_map(|name| Some((name, if_nametoindex(*name).ok()?)));
            known.map(|(name, index)| (ifname(name), index)).collect()
        })
    }

    pub(crate) fn states(
        &self,
        dataplane: Option<&DataPlane>,
    ) -> BTreeMap<(String, Hook), AttachmentState> {
        let devices = self.devices();
        let states = self.inside(|| match dataplane {
            Some(dataplane) => dataplane.attachments(&devices),
            None => bpf::attachments(&self.pins, &devices),
        });
        let states = states.unwrap().into_iter();
        states
            .map(|((device, hook), state)| ((device.to_string(), hook), state))
            .collect()
    }

    /// Ids of the programs that TCX runs on a device, in their order.
    pub(crate) fn tcx_ids(&self, device: &str, direction: TcAttachType) -> Vec<u32> {
        let query = || SchedClassifier::query_tcx(device, direction);
        let (_, programs) = self.inside(query).unwrap();
        programs.iter().map(ProgramInfo::id).collect()
    }

    /// Names of the programs that TCX runs on a device, in their order.
    pub(crate) fn tcx(&self, device: &str, direction: TcAttachType) -> Vec<String> {
        let (_, programs) = self
            .inside(|| SchedClassifier::query_tcx(device, direction))
            .unwrap();
        programs
            .iter()
            .map(|program| program.name_as_str().unwrap().to_owned())
            .collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Err(error) = bpf::remove_all(&self.pins) {
            eprintln!("{error}");
        }
    }
}

pub(crate) fn ifname(name: &str) -> IfName {
    name.parse().unwrap()
}

pub(crate) fn index(name: &str) -> u32 {
    if_nametoindex(name).unwrap()
}

pub(crate) fn states<const N: usize>(
    states: [(&str, Hook, AttachmentState); N],
) -> BTreeMap<(String, Hook), AttachmentState> {
    states
        .into_iter()
        .map(|(name, hook, state)| ((name.to_owned(), hook), state))
        .collect()
}
