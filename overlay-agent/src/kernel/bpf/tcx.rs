//! TCX links: attached to a device, pinned, and replaced in place.

use std::fs;

use aya::programs::{
    LinkOrder, SchedClassifier, TcAttachType,
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

/// Attaches a program before all others, or in the place of an earlier one.
pub(super) fn attach(
    pins: &Pins,
    target: Target,
    ifindex: u32,
    program: &mut SchedClassifier,
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
    let first = TcAttachOptions::TcxOrder(LinkOrder::first());
    let link = program
        .attach_with_options(target.device.as_str(), direction(target.hook), first)
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
