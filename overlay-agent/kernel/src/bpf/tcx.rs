//! TCX links: attached to a device, pinned, and replaced in place.

use std::fs;

use aya::programs::{
    LinkOrder, ProgramId, SchedClassifier, TcAttachType,
    links::{FdLink, LinkError, PinnedLink},
    tc::{SchedClassifierLink, TcAttachOptions},
};
use nix::{errno::Errno, libc};
use overlay_core::objects::Hook;

use super::{
    Target,
    failure::failed,
    links::{self, bpf},
    pins::Pins,
    whose::Ours,
};
use crate::{KernelError, Result};

/// `BPF_PROG_QUERY` of `enum bpf_cmd`.
const BPF_PROG_QUERY: libc::c_long = 16;
/// `BPF_TCX_INGRESS` and `BPF_TCX_EGRESS` of `enum bpf_attach_type`.
const TCX_INGRESS: u32 = 46;
const TCX_EGRESS: u32 = 47;
/// Programs of one target that are told; the kernel allows as many.
const MOST: usize = 64;

/// Whether the kernel has TCX, found out by asking it about a device that every
/// namespace has.
pub(super) fn is_supported() -> Result<bool> {
    match SchedClassifier::query_tcx("lo", TcAttachType::Ingress) {
        Ok(_) => Ok(true),
        Err(error) => {
            let error = failed("ask the kernel for TCX", &error);
            if error.errno() == Some(Errno::EINVAL as i32) {
                Ok(false)
            } else {
                Err(error)
            }
        }
    }
}

/// Ids of the programs of others that have their turn before one of ours; `None` where ours
/// has none.
pub(super) fn before(target: Target, ifindex: u32, ours: u32) -> Result<Option<Vec<u32>>> {
    let mut all: Vec<u32> = programs(target, ifindex)?;
    let place = all.iter().position(|id| *id == ours);
    Ok(place.map(|place| {
        all.truncate(place);
        all
    }))
}

fn programs(target: Target, ifindex: u32) -> Result<Vec<u32>> {
    let attached = attached(target, ifindex)?.into_iter();
    Ok(attached.map(|(program, _)| program).collect())
}

/// All programs of a target in their order, each with the id of its link, which is 0 where it
/// has none. There are none without TCX, and none where the device is gone.
pub(super) fn attached(target: Target, ifindex: u32) -> Result<Vec<(u32, u32)>> {
    let mut programs = [0_u32; MOST];
    let mut links = [0_u32; MOST];
    let mut query = Query {
        ifindex,
        attach_type: if target.hook.is_egress() {
            TCX_EGRESS
        } else {
            TCX_INGRESS
        },
        program_ids: programs.as_mut_ptr() as u64,
        count: u32::try_from(MOST).unwrap_or(u32::MAX),
        link_ids: links.as_mut_ptr() as u64,
        ..Query::default()
    };
    // SAFETY: both arrays have room for `count` numbers, which is all that the kernel writes
    // besides the attributes; they outlive the call.
    match unsafe { bpf(BPF_PROG_QUERY, &mut query) } {
        Ok(_) => {}
        Err(Errno::EINVAL | Errno::ENODEV | Errno::ENOENT) => return Ok(Vec::new()),
        Err(errno) => {
            let operation = format!("list the programs of {target}");
            return Err(KernelError::os(operation, errno));
        }
    }
    let both = programs.into_iter().zip(links);
    Ok(both.take(query.count as usize).collect())
}

/// The members of `union bpf_attr` that `BPF_PROG_QUERY` uses.
#[repr(C)]
#[derive(Default)]
struct Query {
    ifindex: u32,
    attach_type: u32,
    flags: u32,
    attach_flags: u32,
    program_ids: u64,
    count: u32,
    padding: u32,
    program_flags: u64,
    link_ids: u64,
    link_flags: u64,
    revision: u64,
}

/// Attaches a program before all others but those that were `before` it, or in the place of
/// an earlier one.
pub(super) fn attach(
    pins: &Pins,
    target: Target,
    ifindex: u32,
    program: &mut SchedClassifier,
    before: &[u32],
    ours: &mut Ours,
) -> Result<()> {
    let pin = pins.link(target);
    let operation = || format!("attach {target}");
    match links::read_place(&pin, ours, &operation())? {
        Some(link) if link.ifindex == ifindex => {
            let link = PinnedLink::from_pin(&pin).map_err(|error| failed(operation(), &error))?;
            let link: SchedClassifierLink = FdLink::from(link)
                .try_into()
                .map_err(|error: LinkError| failed(operation(), &error))?;
            let replaced = program
                .attach_to_link(link)
                .and_then(|link| program.take_link(link))
                .map_err(|error| failed(operation(), &error))?;
            // The pin holds it; open descriptors would only add up.
            drop(replaced);
            return Ok(());
        }
        // Of another device, which had this name before.
        Some(_) => links::remove(&pin, ours)?,
        None => {}
    }

    fs::create_dir_all(pins.links()).map_err(|error| KernelError::io(operation(), &error))?;
    let there = programs(target, ifindex)?;
    let last = before.iter().rev().find(|id| there.contains(id));
    let order = match last {
        // SAFETY: no memory depends on it: of a program that has gone, or whose id another
        // one has by now, the kernel says that it is not there.
        Some(&id) => LinkOrder::after_program_id(unsafe { ProgramId::new(id) }),
        None => LinkOrder::first(),
    };
    let order = TcAttachOptions::TcxOrder(order);
    let link = program
        .attach_with_options(target.device.as_str(), direction(target.hook), order)
        .and_then(|link| program.take_link(link))
        .map_err(|error| failed(operation(), &error))?;
    let link: FdLink = link
        .try_into()
        .map_err(|error: LinkError| failed(operation(), &error))?;
    link.pin(&pin)
        .map_err(|error| failed(operation(), &error))?;
    if links::read(&pin)?.is_some_and(|link| link.ifindex == ifindex) {
        return Ok(());
    }
    links::remove(&pin, ours)?;
    Err(KernelError::os(operation(), Errno::ENODEV).because("another device took its name"))
}

fn direction(hook: Hook) -> TcAttachType {
    if hook.is_egress() {
        TcAttachType::Egress
    } else {
        TcAttachType::Ingress
    }
}
