//! Programs of others that packets meet where ours are.

use std::{collections::BTreeMap, path::Path};

use aya::programs::loaded_programs;
use overlay_core::{model::IfName, objects::Hook};
use rtnetlink::packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkMessage, LinkXdp, XdpAttached},
};

use super::{Target, clsact, failure::failed, links, pins::Pins, tcx, whose::Ours};
use crate::{KernelError, Result, netlink::blocking};

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
    let mut ours = Ours::of(&pins, []);
    let link = links::read_ours(&pins.link(target), &mut ours)?;
    if let Some(link) = link.filter(|link| link.ifindex == ifindex) {
        let Some(place) = before.iter().position(|(id, _)| *id == link.program) else {
            return Ok(None);
        };
        before.truncate(place);
    } else {
        let Some(filters) = clsact::before(&pins, target, ifindex, &mut ours)? else {
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
    let mut ours = Ours::of(&pins, []);
    for hook in [Hook::GuardNative, Hook::GuardGeneric] {
        let link = links::read_ours(&pins.link(Target { device, hook }), &mut ours)?;
        if link.is_some_and(|link| link.program == program) {
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

/// All programs of a target and how they are attached, in their order.
fn attached(target: Target, ifindex: u32) -> Result<Vec<(u32, Attachment)>> {
    let attachment = |(program, link)| {
        let by = if link == 0 {
            Attachment::Bare
        } else {
            Attachment::Link(link)
        };
        (program, by)
    };
    let programs = tcx::attached(target, ifindex)?;
    Ok(programs.into_iter().map(attachment).collect())
}

/// The names of all programs that are loaded, by id.
pub(super) fn names() -> Result<BTreeMap<u32, String>> {
    let named = loaded_programs().map(|program| {
        let program = program.map_err(|error| failed("list the loaded programs", &error))?;
        let name = program.name_as_str().unwrap_or_default().to_owned();
        Ok((program.id(), name))
    });
    named.collect()
}
