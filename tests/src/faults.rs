//! Faults of the wire between nodes, made by small programs in its switch.
//!
//! A fault is on the switch's port to a node, and meets what the switch sends there. The node
//! sees what it would see of a bad cable, before XDP and everything else.

use std::io;

use nix::net::if_::if_nametoindex;
use overlay_common::wire;

use crate::{
    assembly::{EXIT, Instruction, call, copy, helper, instruction, load, set, store},
    bpf::{Hook, Link, Program},
    error::{Error, Result},
    netns, run,
    script::inside,
    topology::{Node, Topology},
};

/// `TC_ACT_UNSPEC` and `TC_ACT_SHOT`
const NEXT: i32 = -1;
const SHOT: i32 = 2;
/// Where programs find these of a packet.
const MARK: i16 = 8;
const PROTOCOL: i16 = 16;
const PRIORITY: i16 = 32;
/// The mark of a packet that was duplicated: its copy passes the same program.
const DUPLICATED: i32 = 0x6475_706c;
/// The class of packets that wait.
const SLOW: i32 = 0x1_0002;
/// The destination port's place in a frame with an IPv4 header.
const DESTINATION_PORT: i32 = 14 + 20 + 2;

/// A fault of the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing passes.
    Partition,
    /// One tunnel packet in so many is lost.
    Loss(u32),
    /// Each tunnel packet arrives twice.
    Duplication,
    /// All bits of this byte of each tunnel packet are inverted.
    Corruption(u16),
    /// The same for one tunnel packet in so many.
    RareCorruption(u16, u32),
    /// One tunnel packet in so many waits while others overtake it.
    Reordering(u32),
}

/// A fault, until it is dropped.
pub struct Faulty {
    _link: Link,
    queue: Option<(String, String)>,
}

impl Faulty {
    /// Makes the wire to a node faulty; the underlay is IPv4, the tunnel's port IANA's.
    pub fn towards(topology: &Topology, node: &Node, fault: Fault) -> Result<Self> {
        let port = format!("n{}", node.number);
        let switch = topology.switch().ok_or_else(|| {
            Error::output(
                format!("put {fault:?} on the wire"),
                "two nodes have a cable and no switch: raise three",
            )
        })?;
        let queue = matches!(fault, Fault::Reordering(_)).then(|| (switch.clone(), port.clone()));
        if queue.is_some() {
            slow_class(&switch, &port)?;
        }
        let link = netns::inside(&switch, || {
            let device = if_nametoindex(port.as_str()).map_err(|errno| Error::Kernel {
                operation: format!("find {port} of {switch}"),
                source: errno.into(),
            })?;
            let program = Program::load(&fault.instructions(device)?)?;
            program.attach(device, Hook::Egress)
        })??;
        Ok(Self { _link: link, queue })
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        if let Some((switch, port)) = &self.queue
            && let Err(error) = run::checked(format!("tc -n {switch} qdisc del dev {port} root"))
        {
            eprintln!("the queue of {port} in {switch} was not removed: {error}");
        }
    }
}

/// Gives a port a second queue that lets a packet wait for some milliseconds.
fn slow_class(switch: &str, port: &str) -> Result<()> {
    for line in [
        format!("qdisc add dev {port} root handle 1: htb default 1"),
        format!("class add dev {port} parent 1: classid 1:1 htb rate 10gbit quantum 60000"),
        format!("class add dev {port} parent 1: classid 1:2 htb rate 8mbit burst 1600 cburst 1600"),
    ] {
        run::checked(format!("tc -n {switch} {line}"))?;
    }
    Ok(())
}

impl Fault {
    fn instructions(self, device: u32) -> Result<Vec<Instruction>> {
        if self == Self::Partition {
            return Ok(vec![set(0, SHOT), EXIT]);
        }
        let action = self.action(device)?;
        let chance = match self {
            Self::Loss(one_in) | Self::Reordering(one_in) | Self::RareCorruption(_, one_in) => {
                one_in
            }
            _ => 1,
        };
        // r6 = the packet; what is not IPv4 for the tunnel's port is left alone.
        let ipv4 = i32::from(0x0800_u16.to_be());
        let mut program = vec![
            copy(6, 1),
            load(7, 6, PROTOCOL),
            skip(0x55, 7, ipv4),
            instruction(0x28, 0, 0, 0, DESTINATION_PORT),
            skip(0x55, 0, wire::IANA_PORT.into()),
        ];
        if chance > 1 {
            // r0 = random; if r0 > all numbers / chance, leave it alone.
            program.push(call(helper::RANDOM));
            program.push(skip(0x26, 0, (u32::MAX / chance).cast_signed()));
        }
        program.extend(action);
        program.extend([set(0, NEXT), EXIT]);
        land(&mut program);
        Ok(program)
    }

    /// The instructions for a chosen packet; they fall through when the packet goes on.
    fn action(self, device: u32) -> Result<Vec<Instruction>> {
        Ok(match self {
            Self::Partition | Self::Loss(_) => vec![set(0, SHOT), EXIT],
            Self::Duplication => vec![
                load(7, 6, MARK),
                skip(0x15, 7, DUPLICATED),
                // packet->mark = DUPLICATED; clone_redirect(packet, device, to its egress)
                set(7, DUPLICATED),
                store(6, MARK, 7),
                copy(1, 6),
                set(2, number(device)?),
                set(3, 0),
                call(helper::CLONE_REDIRECT),
            ],
            Self::Corruption(place) | Self::RareCorruption(place, _) => vec![
                // stack[-8] = !packet[place]; store_bytes(packet, place, stack - 8, 1, 0)
                instruction(0x30, 0, 0, 0, place.into()),
                instruction(0xa7, 0, 0, 0, 0xff),
                instruction(0x73, 10, 0, -8, 0),
                copy(1, 6),
                set(2, place.into()),
                copy(3, 10),
                instruction(0x07, 3, 0, 0, -8),
                set(4, 1),
                set(5, 0),
                call(helper::STORE_BYTES),
            ],
            Self::Reordering(_) => vec![set(7, SLOW), store(6, PRIORITY, 7)],
        })
    }
}

/// A jump whose target [`land`] fills in: to where the packet is left alone.
const fn skip(operation: u8, register: u8, immediate: i32) -> Instruction {
    instruction(operation, register, 0, i16::MAX, immediate)
}

/// Points all jumps at the last two instructions.
fn land(program: &mut [Instruction]) {
    let target = program.len() - 2;
    for (index, instruction) in program.iter_mut().enumerate() {
        if instruction[2..4] == i16::MAX.to_ne_bytes() {
            // A program has far fewer instructions than a jump can pass over.
            let offset = i16::try_from(target - index - 1).unwrap_or(i16::MAX);
            instruction[2..4].copy_from_slice(&offset.to_ne_bytes());
        }
    }
}

fn number(device: u32) -> Result<i32> {
    i32::try_from(device).map_err(|error| Error::Kernel {
        operation: format!("name device {device}"),
        source: io::Error::other(error),
    })
}

/// Has the nodes' cards hand on frames as they are on a wire: no larger than the MTU, with all
/// checksums in place.
pub fn plain_frames(topology: &Topology, device: &str) -> Result<()> {
    for node in &topology.nodes {
        let line = format!("ethtool -K {device} tso off gso off tx off");
        run::checked(inside(&node.namespace, line))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jumps_end_where_packets_are_left_alone() {
        let mut program = vec![
            skip(0x55, 7, 1),
            call(helper::RANDOM),
            skip(0x15, 7, 2),
            set(0, NEXT),
            EXIT,
        ];
        land(&mut program);
        let offset = |index: usize| i16::from_ne_bytes([program[index][2], program[index][3]]);
        assert_eq!((offset(0), offset(2)), (2, 0));
    }
}
