//! Hooks of others at a device that packets pass on the kernel's path alone: a packet
//! that our programs redirect passes it by.
//!
//! At ingress that is what stands behind a program of ours. At egress of a device of ours it is
//! whatever is there: a packet that a program has redirected does not come that way at all.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use overlay_core::{
    model::IfName,
    surroundings::{ForeignHook, Side, TcxPrograms},
};

use super::{Target, clsact, others, pins::Pins, tcx, whose::Ours};
use crate::{
    Result,
    netlink::{self, Qdiscs},
};

/// The hooks at a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AtDevice {
    /// Hooks of others.
    pub foreign: Vec<ForeignHook>,
    /// Ids of the TCX programs, ours too: nobody announces when they change.
    pub programs: TcxPrograms,
}

/// The TCX programs of a device.
pub fn tcx_programs(device: IfName, ifindex: u32) -> Result<TcxPrograms> {
    let of = |side: Side| -> Result<Vec<u32>> {
        let hook = side.hook();
        let attached = tcx::attached(Target { device, hook }, ifindex)?;
        Ok(attached.into_iter().map(|(program, _)| program).collect())
    };
    Ok([of(Side::Ingress)?, of(Side::Egress)?])
}

/// The hooks at devices, which are given by name and index.
pub fn hooked_in(
    dir: &Path,
    devices: &[(IfName, u32)],
) -> Result<BTreeMap<(IfName, u32), AtDevice>> {
    let pins = Pins::new(dir);
    let ours = Ours::of(&pins, []);
    beside(pins, ours, devices)
}

/// The same beside what is `ours`.
pub(super) fn beside(
    pins: Pins,
    ours: Ours,
    devices: &[(IfName, u32)],
) -> Result<BTreeMap<(IfName, u32), AtDevice>> {
    if devices.is_empty() {
        return Ok(BTreeMap::new());
    }
    let look = Look {
        ours,
        qdiscs: netlink::qdiscs()?,
        pins,
        names: None,
    };
    look.at(devices)
}

struct Look {
    pins: Pins,
    ours: Ours,
    qdiscs: BTreeMap<u32, Qdiscs>,
    /// Of the programs that are loaded; they are asked for once somebody else's is there.
    names: Option<BTreeMap<u32, String>>,
}

impl Look {
    fn at(mut self, devices: &[(IfName, u32)]) -> Result<BTreeMap<(IfName, u32), AtDevice>> {
        let mut found = BTreeMap::new();
        for &(device, ifindex) in devices {
            found.insert((device, ifindex), self.at_one(device, ifindex)?);
        }
        Ok(found)
    }

    fn at_one(&mut self, device: IfName, ifindex: u32) -> Result<AtDevice> {
        let mut at = AtDevice {
            programs: tcx_programs(device, ifindex)?,
            foreign: Vec::new(),
        };
        let qdiscs = self.qdiscs.get(&ifindex).cloned().unwrap_or_default();
        for (side, programs) in Side::BOTH.into_iter().zip(at.programs.clone()) {
            let before = side == Side::Egress;
            let mut foreign = Vec::new();
            for program in programs {
                if !self.ours.made(program)? {
                    foreign.push(program);
                } else if !before {
                    foreign.clear();
                }
            }
            let has_filters = match qdiscs.filters.as_deref() {
                Some("clsact") => true,
                // The kernel would list those of the other side for this one.
                Some(_) => side == Side::Ingress,
                None => false,
            };
            if has_filters {
                let target = Target {
                    device,
                    hook: side.hook(),
                };
                let (filters, ours) =
                    clsact::foreign(&self.pins, target, ifindex, &mut self.ours, before)?;
                if ours && !before {
                    // Links come before all filters.
                    foreign.clear();
                }
                at.foreign
                    .extend(filters.into_iter().map(|filter| ForeignHook {
                        side,
                        what: format!("tc {} filter {filter}", side.name()),
                        spares_redirected: false,
                    }));
            }
            for program in foreign {
                let name = self.name_of(program)?;
                at.foreign.push(ForeignHook {
                    side,
                    what: format!("tc {} program {name}", side.name()),
                    spares_redirected: false,
                });
            }
        }
        if let Some(kind) = qdiscs.root {
            at.foreign.push(ForeignHook {
                side: Side::Egress,
                what: format!("qdisc {kind}"),
                spares_redirected: false,
            });
        }
        // Several filters of one kind are one thing to tell.
        let once: BTreeSet<ForeignHook> = at.foreign.into_iter().collect();
        at.foreign = once.into_iter().collect();
        Ok(at)
    }

    fn name_of(&mut self, program: u32) -> Result<String> {
        let names = match &mut self.names {
            Some(names) => names,
            none => none.insert(others::names()?),
        };
        Ok(match names.get(&program).map(String::as_str) {
            None | Some("") => format!("(id {program})"),
            Some(name) => format!("{name:?} (id {program})"),
        })
    }
}
