//! TCX links: attached to a device, pinned, and replaced in place.

use std::fs;

use aya::programs::{
    LinkOrder, ProgramId, ProgramInfo, SchedClassifier, TcAttachType,
    links::{FdLink, LinkError, PinnedLink},
    tc::{SchedClassifierLink, TcAttachOptions},
};
use nix::errno::Errno;

use super::{Target, failure::failed, links, pins::Pins};
use crate::{
    kernel::{KernelError, Result},
    objects::Hook,
};

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
pub(super) fn before(target: Target, ours: u32) -> Result<Option<Vec<u32>>> {
    let all = attached(target)?;
    let place = all.iter().position(|id| *id == ours);
    Ok(place.map(|place| all[..place].to_vec()))
}

/// Ids of all programs of a target, in their order; none where the device is gone.
fn attached(target: Target) -> Result<Vec<u32>> {
    match SchedClassifier::query_tcx(target.device.as_str(), direction(target.hook)) {
        Ok((_, programs)) => Ok(programs.iter().map(ProgramInfo::id).collect()),
        Err(error) => {
            let error = failed(format!("list the programs of {target}"), &error);
            if error.not_there() {
                Ok(Vec::new())
            } else {
                Err(error)
            }
        }
    }
}

/// Attaches a program before all others but those that were `before` it, or in the place of
/// an earlier one.
pub(super) fn attach(
    pins: &Pins,
    target: Target,
    ifindex: u32,
    program: &mut SchedClassifier,
    before: &[u32],
) -> Result<()> {
    let pin = pins.link(target);
    let operation = || format!("attach {target}");
    match links::read(&pin)? {
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
        Some(_) => links::remove(&pin)?,
        None => {}
    }

    fs::create_dir_all(pins.links()).map_err(|error| KernelError::io(operation(), &error))?;
    let there = attached(target)?;
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
    links::remove(&pin)?;
    Err(KernelError::os(operation(), Errno::ENODEV).because("another device took its name"))
}

fn direction(hook: Hook) -> TcAttachType {
    if hook == Hook::FromHost {
        TcAttachType::Egress
    } else {
        TcAttachType::Ingress
    }
}
