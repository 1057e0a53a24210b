//! What no tunnel between containers behind veths can beat.
//!
//! Programs of a dozen instructions sit where overlay's do. They redirect the packets
//! between two containers as fast as the hooks allow, and do nothing else: no tunnel, no
//! check, no counter. The nodes route to each other's containers, so the packets need none.
//! Likewise between two containers of one node.

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

/// The node's sides of its first two containers' veths, and the bridge that they are ports of.
const VETHS: [&str; 2] = ["veth1", OTHER_VETH];
/// The second of them: what the bridge hands to that container leaves by it.
pub(crate) const OTHER_VETH: &str = "veth2";
/// The bridge that packets pass which are not redirected.
pub(crate) const BRIDGE: &str = "br0";

/// The programs of both nodes, until it is dropped.
pub(crate) struct Ceiling {
    _links: Vec<Link>,
}

impl Ceiling {
    /// Attaches the programs between the first containers of two nodes, and between the two
    /// of the first node.
    pub(crate) fn raise(one: &Node, two: &Node) -> Result<Self> {
        let (here, there) = (container(one, 0)?.address, container(two, 0)?.address);
        let mut links = redirect(&one.namespace, here, there)?;
        links.extend(redirect(&two.namespace, there, here)?);
        // After those between nodes, which do not wait for them then.
        links.extend(redirect_here(
            &one.namespace,
            [here, container(one, 1)?.address],
        )?);
        Ok(Self { _links: links })
    }
}

/// What a node's container sends to the other one goes straight to the underlay, and what
/// arrives for it straight into it.
fn redirect(node: &str, own: Ipv4Addr, other: Ipv4Addr) -> Result<Vec<Link>> {
    netns::inside(node, || {
        let (veth, underlay) = (index(node, VETHS[0])?, index(node, UNDERLAY)?);
        let sends = Program::load(&to(other, &[], helper::REDIRECT_NEIGH, underlay)?)?;
        let receives = Program::load(&to(own, &[], helper::REDIRECT_PEER, veth)?)?;
        Ok(vec![
            sends.attach(veth, Hook::Ingress)?,
            receives.attach(underlay, Hook::Ingress)?,
        ])
    })?
}

/// What a container of a node sends to its neighbour goes straight into it.
fn redirect_here(node: &str, addresses: [Ipv4Addr; 2]) -> Result<Vec<Link>> {
    /// `PACKET_HOST`: until Linux 6.15 a packet stays addressed to another machine, as it was
    /// when it came to the bridge.
    const TO_THIS_MACHINE: i32 = 0;
    let receivable = [
        copy(1, 6),
        set(2, TO_THIS_MACHINE),
        call(helper::CHANGE_TYPE),
    ];
    netns::inside(node, || {
        let [one, two] = VETHS;
        let (one, two) = (index(node, one)?, index(node, two)?);
        [(one, two, addresses[1]), (two, one, addresses[0])]
            .into_iter()
            .map(|(from, to_veth, address)| {
                let code = to(address, &receivable, helper::REDIRECT_PEER, to_veth)?;
                Ok(Program::load(&code)?.attach(from, Hook::Ingress)?)
            })
            .collect()
    })?
}

fn index(node: &str, name: &str) -> Result<u32> {
    if_nametoindex(name).with_context(|| format!("find {name} of {node}"))
}

/// Redirects IPv4 packets with this destination, after some other instructions, and leaves all
/// others alone.
fn to(
    address: Ipv4Addr,
    before: &[Instruction],
    helper: i32,
    device: u32,
) -> Result<Vec<Instruction>> {
    /// `skb->protocol` as TC programs see it, and IPv4's number in network order.
    const PROTOCOL: i16 = 16;
    const IPV4: i32 = 0x0800_u16.to_be() as i32;
    /// The destination's place in an Ethernet frame.
    const DESTINATION: i32 = 14 + 16;
    /// `TC_ACT_UNSPEC`
    const NEXT: i32 = -1;
    let mut redirect = before.to_vec();
    // return helper(device, no parameters, no flags)
    redirect.extend([
        set(1, device.try_into()?),
        set(2, 0),
        set(3, 0),
        set(4, 0),
        call(helper),
        EXIT,
    ]);
    let length = i16::try_from(redirect.len())?;
    let mut code = vec![
        // The load of a word below takes the packet from register 6.
        copy(6, 1),
        // If its protocol is not IPv4, leave it.
        load(7, 6, PROTOCOL),
        instruction(0x55, 7, 0, length + 2, IPV4),
        // r0 = the destination, in host order; if another one, leave it.
        instruction(0x20, 0, 0, 0, DESTINATION),
        instruction(0x56, 0, 0, length, address.to_bits().cast_signed()),
    ];
    code.extend(redirect);
    code.extend([set(0, NEXT), EXIT]);
    Ok(code)
}
