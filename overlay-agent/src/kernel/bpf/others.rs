//! Programs of others that packets meet where ours are.

use std::{collections::BTreeMap, path::Path};

use aya::programs::loaded_programs;
use nix::{errno::Errno, libc};
use rtnetlink::packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkMessage, LinkXdp, XdpAttached},
};

use super::{
    Target, clsact,
    failure::failed,
    links::{self, bpf},
    pins::Pins,
};
use crate::{
    kernel::{KernelError, Result, netlink::blocking},
    model::IfName,
    objects::Hook,
};

/// `BPF_PROG_QUERY` of `enum bpf_cmd`.
const BPF_PROG_QUERY: libc::c_long = 16;
/// `BPF_TCX_INGRESS` and `BPF_TCX_EGRESS` of `enum bpf_attach_type`.
const TCX_INGRESS: u32 = 46;
const TCX_EGRESS: u32 = 47;
/// Programs of one place that are told; the kernel allows as many.
const MOST: usize = 64;

/// A program of somebody else on a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Other {
    /// Its id.
    pub program: u32,
    /// Its name.
    pub name: String,
    /// How it is attached.
    pub by: Attachment,
}

/// How a program is attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// By a link with this id.
    Link(u32),
    /// By a filter of a clsact qdisc, with this preference.
    Filter(u16),
    /// To XDP, as `ip link` calls that.
    Xdp(&'static str),
    /// Without either.
    Bare,
}

/// The programs of others that see a device's packets before ours does; `None` where ours does
/// not run.
pub fn before(dir: &Path, device: IfName, ifindex: u32, hook: Hook) -> Result<Option<Vec<Other>>> {
    let pins = Pins::new(dir);
    let target = Target { device, hook };
    let mut before = attached(target, ifindex)?;
    let ours = links::read(&pins.link(target))?.filter(|link| link.ifindex == ifindex);
    if let Some(ours) = ours {
        let Some(place) = before.iter().position(|(id, _)| *id == ours.program) else {
            return Ok(None);
        };
        before.truncate(place);
    } else {
        let Some(filters) = clsact::before(&pins, target, ifindex)? else {
            return Ok(None);
        };
        let filters = filters.into_iter();
        before.extend(filters.map(|(id, preference)| (id, Attachment::Filter(preference))));
    }
    if before.is_empty() {
        return Ok(Some(Vec::new()));
    }
    let names = names()?;
    let other = |(program, by): (u32, Attachment)| Other {
        program,
        name: names.get(&program).cloned().unwrap_or_default(),
        by,
    };
    Ok(Some(before.into_iter().map(other).collect()))
}

/// The XDP program of somebody else on a device.
pub fn foreign_xdp(dir: &Path, device: IfName, ifindex: u32) -> Result<Option<Other>> {
    let pins = Pins::new(dir);
    let Some((program, mode)) = xdp_of(ifindex)? else {
        return Ok(None);
    };
    for hook in [Hook::GuardNative, Hook::GuardGeneric] {
        let ours = links::read(&pins.link(Target { device, hook }))?;
        if ours.is_some_and(|ours| ours.program == program) {
            return Ok(None);
        }
    }
    let link = links::id_of(program, ifindex)
        .map_err(|errno| KernelError::os(format!("find the XDP link of {device}"), errno))?;
    Ok(Some(Other {
        program,
        name: names()?.remove(&program).unwrap_or_default(),
        by: link.map_or(Attachment::Xdp(mode), Attachment::Link),
    }))
}

/// The id of a device's XDP program, and its mode as `ip link` calls it.
fn xdp_of(ifindex: u32) -> Result<Option<(u32, &'static str)>> {
    let mut message = LinkMessage::default();
    message.header.index = ifindex;
    let answers = blocking::dump(RouteNetlinkMessage::GetLink(message))
        .map_err(|refusal| refusal.during("list devices with their XDP programs"))?;
    let attributes = answers.into_iter().find_map(|answer| match answer {
        RouteNetlinkMessage::NewLink(link) if link.header.index == ifindex => Some(link.attributes),
        _ => None,
    });
    let xdp = attributes
        .into_iter()
        .flatten()
        .find_map(|attribute| match attribute {
            LinkAttribute::Xdp(xdp) => Some(xdp),
            _ => None,
        })
        .unwrap_or_default();
    let mode = xdp.iter().find_map(|of| match of {
        LinkXdp::Attached(XdpAttached::Driver) => Some("xdpdrv"),
        LinkXdp::Attached(XdpAttached::SocketBuffer) => Some("xdpgeneric"),
        LinkXdp::Attached(XdpAttached::Hardware) => Some("xdpoffload"),
        _ => None,
    });
    let id = xdp.iter().find_map(|of| match of {
        LinkXdp::ProgId(id) => Some(*id),
        _ => None,
    });
    Ok(id.zip(mode.or(Some("xdp"))))
}

/// All programs of a target and how they are attached, in their order; none without TCX.
fn attached(target: Target, ifindex: u32) -> Result<Vec<(u32, Attachment)>> {
    let mut programs = [0_u32; MOST];
    let mut links = [0_u32; MOST];
    let mut query = Query {
        ifindex,
        attach_type: if target.hook == Hook::FromHost {
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
        // Before 6.6 there is none, and a device can have gone.
        Err(Errno::EINVAL | Errno::ENODEV) => return Ok(Vec::new()),
        Err(errno) => {
            let operation = format!("list the programs of {target}");
            return Err(KernelError::os(operation, errno));
        }
    }
    let both = programs.into_iter().zip(links).take(query.count as usize);
    let attachment = |(program, link)| {
        let by = if link == 0 {
            Attachment::Bare
        } else {
            Attachment::Link(link)
        };
        (program, by)
    };
    Ok(both.map(attachment).collect())
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

/// The names of all programs that are loaded, by id.
fn names() -> Result<BTreeMap<u32, String>> {
    let named = loaded_programs().map(|program| {
        let program = program.map_err(|error| failed("list the loaded programs", &error))?;
        let name = program.name_as_str().unwrap_or_default().to_owned();
        Ok((program.id(), name))
    });
    named.collect()
}
