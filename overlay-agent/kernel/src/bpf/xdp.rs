//! XDP links: attached to a device, pinned, and replaced in place.
//!
//! Made without aya, which falls back to an attachment that cannot be pinned, and would go
//! with the agent, when the kernel refuses a link.

use std::{
    fs,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
};

use aya::programs::Xdp;
use nix::{errno::Errno, net::if_::if_nametoindex};
use overlay_core::objects::Hook;
use rtnetlink::packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkMessage, LinkXdp},
};

use super::{Target, failure::failed, links, pins::Pins, whose::Ours};
use crate::{KernelError, Result, netlink::blocking};

/// `XDP_FLAGS_UPDATE_IF_NOEXIST`, `_SKB_MODE`, `_DRV_MODE` and `_REPLACE` of `linux/if_link.h`.
const ONLY_IF_NONE: u32 = 1;
const GENERIC: u32 = 1 << 1;
const NATIVE: u32 = 1 << 2;
const ONLY_THIS: u32 = 1 << 4;

/// Attaches a program, or puts it in the place of an earlier one of ours.
pub(super) fn attach(
    pins: &Pins,
    target: Target,
    ifindex: u32,
    program: &Xdp,
    ours: &mut Ours,
) -> Result<()> {
    let operation = || format!("attach {target}");
    let pin = pins.link(target);
    let fd = program.fd().map_err(|error| failed(operation(), &error))?;
    match links::read_place(&pin, ours, &operation())? {
        Some(link) if link.ifindex == ifindex => {
            return links::replace(&pin, fd.as_fd())
                .map_err(|errno| KernelError::os(operation(), errno));
        }
        // Of another device, which had this name before.
        Some(_) => links::remove(&pin, ours)?,
        None => {}
    }
    let (mode, other) = match target.hook {
        Hook::GuardNative => (NATIVE, Hook::GuardGeneric),
        _ => (GENERIC, Hook::GuardNative),
    };
    // A device takes programs in one mode only.
    let other = Target {
        hook: other,
        ..target
    };
    links::remove(&pins.link(other), ours)?;
    fs::create_dir_all(pins.links()).map_err(|error| KernelError::io(operation(), &error))?;
    links::attach_xdp(fd.as_fd(), ifindex, mode, &pin)
        .map_err(|errno| explain(errno, target, ifindex, fd.as_fd()))
}

fn explain(errno: Errno, target: Target, ifindex: u32, program: BorrowedFd<'_>) -> KernelError {
    let operation = format!("attach {target}");
    // To the kernel, a device that has just gone is an invalid one.
    if if_nametoindex(target.device.as_str()) != Ok(ifindex) {
        return KernelError::os(operation, Errno::ENODEV);
    }
    let error = KernelError::os(operation, errno);
    match errno {
        Errno::EBUSY | Errno::EEXIST => {
            error
                .because("another XDP program is there")
                .with_cure(format!(
                    "remove it with \"ip link set dev {} xdp off\", or set guard = \"off\"",
                    target.device
                ))
        }
        _ if target.hook == Hook::GuardNative => error
            .because(
                why_not_native(program, ifindex)
                    .as_deref()
                    .unwrap_or("its driver, or its MTU, does not allow it"),
            )
            .with_cure("set guard = \"generic\""),
        _ => error,
    }
}

/// The kernel's own sentence, or its driver's: links are refused by a number alone, and netlink, to
/// which the same is done, says more.
fn why_not_native(program: BorrowedFd<'_>, ifindex: u32) -> Option<String> {
    let set = |attributes: Vec<LinkXdp>| {
        let mut message = LinkMessage::default();
        message.header.index = ifindex;
        message.attributes.push(LinkAttribute::Xdp(attributes));
        blocking::change(RouteNetlinkMessage::SetLink(message), 0)
    };
    let put = vec![
        LinkXdp::Fd(program.as_raw_fd()),
        LinkXdp::Flags(NATIVE | ONLY_IF_NONE),
    ];
    if let Err(refusal) = set(put) {
        return refusal.into_text();
    }
    // It has changed its mind. Nothing of ours stays there that is no link, and nothing of others
    // goes that has come to its place meanwhile.
    let take_off = vec![
        LinkXdp::Fd(-1),
        LinkXdp::ExpectedFd(program.as_raw_fd().cast_unsigned()),
        LinkXdp::Flags(NATIVE | ONLY_THIS),
    ];
    set(take_off).err().map(|refusal| {
        let error = refusal.during("take the program off that was tried");
        format!("it is refused as a link alone, and {error}")
    })
}
