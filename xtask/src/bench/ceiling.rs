//! What no tunnel between containers behind veths can beat.
//!
//! Two programs of a dozen instructions sit where overlay's do. They redirect the packets
//! between two containers as fast as the hooks allow, and do nothing else: no tunnel, no
//! check, no counter. The nodes route to each other's containers, so the packets need none.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};
use nix::net::if_::if_nametoindex;
use overlay_tests::{
    assembly::{EXIT, Instruction, call, copy, helper, instruction, load, set},
    bpf::{Hook, Link, Program},
    netns,
    topology::{Node, UNDERLAY},
};

use super::labs::container;

/// The node's side of its first container's veth, and the bridge that it is a port of.
const VETH: &str = "veth1";
/// The bridge that packets pass which are not redirected.
pub(crate) const BRIDGE: &str = "br0";

/// The programs of both nodes, until it is dropped.
pub(crate) struct Ceiling {
    _links: Vec<Link>,
}

impl Ceiling {
    /// Attaches the programs between the first containers of two nodes.
    pub(crate) fn raise(one: &Node, two: &Node) -> Result<Self> {
        let (here, there) = (container(one, 0)?.address, container(two, 0)?.address);
        let mut links = redirect(&one.namespace, here, there)?;
        links.extend(redirect(&two.namespace, there, here)?);
        Ok(Self { _links: links })
    }
}

/// What a node's container sends to the other one goes straight to the underlay, and what
/// arrives for it straight into it.
fn redirect(node: &str, own: Ipv4Addr, other: Ipv4Addr) -> Result<Vec<Link>> {
    netns::inside(node, || {
        let index = |name| if_nametoindex(name).with_context(|| format!("find {name} of {node}"));
        let (veth, underlay) = (index(VETH)?, index(UNDERLAY)?);
        let sends = Program::load(&to(other, helper::REDIRECT_NEIGH, underlay)?)?;
        let receives = Program::load(&to(own, helper::REDIRECT_PEER, veth)?)?;
        Ok(vec![
            sends.attach(veth, Hook::Ingress)?,
            receives.attach(underlay, Hook::Ingress)?,
        ])
    })?
}

/// Redirects IPv4 packets with this destination, and leaves all others alone.
fn to(address: Ipv4Addr, helper: i32, device: u32) -> Result<[Instruction; 13]> {
    /// `skb->protocol` as TC programs see it, and IPv4's number in network order.
    const PROTOCOL: i16 = 16;
    const IPV4: i32 = 0x0800_u16.to_be() as i32;
    /// The destination's place in an Ethernet frame.
    const DESTINATION: i32 = 14 + 16;
    /// `TC_ACT_UNSPEC`
    const NEXT: i32 = -1;
    Ok([
        // The load of a word below takes the packet from register 6.
        copy(6, 1),
        // If its protocol is not IPv4, leave it.
        load(7, 6, PROTOCOL),
        instruction(0x55, 7, 0, 8, IPV4),
        // r0 = the destination, in host order; if another one, leave it.
        instruction(0x20, 0, 0, 0, DESTINATION),
        instruction(0x56, 0, 0, 6, address.to_bits().cast_signed()),
        // return helper(device, no parameters, no flags)
        set(1, device.try_into()?),
        set(2, 0),
        set(3, 0),
        set(4, 0),
        call(helper),
        EXIT,
        set(0, NEXT),
        EXIT,
    ])
}
