//! Flows that the programs learn of.

use bytemuck::{Pod, Zeroable};

/// [`FlowKey`] → one of [`translated`] or [`peer_ways`], least recently used first to go: flows
/// that the kernel translates, and where it matters, peers whose checksums it has to verify. The
/// programs write it.
pub const FLOWS: &str = "FLOWS";
/// [`FlowKey`] → nanoseconds of the monotonic clock: when a packet of a peer was last left to the
/// kernel that it delivers to an endpoint as it is. The programs write it.
pub const ENTERED: &str = "ENTERED";
/// Slot 0 → 1, once there was a row in [`FLOWS`]: until then, nobody needs to look.
pub const FLOWS_IN_USE: &str = "FLOWS_IN_USE";

/// Flows that the kernel translates.
pub const MAX_FLOWS: usize = 131_072;
/// Flows of which packets are on their way through the kernel to an endpoint.
pub const MAX_ENTERED: usize = 16_384;

/// Packets of both directions between two sockets, or of one kind between two addresses.
///
/// The ends stand in an order of their own, so that both directions have one key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct FlowKey {
    /// VXLAN network identifier.
    pub vni: u32,
    /// Address of the first end; IPv4 is [`mapped`](super::mapped).
    pub first: [u8; 16],
    /// Address of the second end.
    pub second: [u8; 16],
    /// Port of the first end, network order; the identifier of an ICMP echo, 0 without either.
    pub first_port_be: [u8; 2],
    /// The same of the second end.
    pub second_port_be: [u8; 2],
    /// IP protocol number.
    pub protocol: u8,
    /// 0.
    pub reserved: [u8; 3],
}

impl FlowKey {
    /// The key of what goes between two ends, each an address and a port in network order, and
    /// which of its directions, one of [`translated`], leads from the first to the second.
    pub fn between(
        vni: u32,
        protocol: u8,
        source: ([u8; 16], [u8; 2]),
        destination: ([u8; 16], [u8; 2]),
    ) -> (Self, u32) {
        // As the programs compare them, which read two words of this machine's order.
        let number = |(address, port): ([u8; 16], [u8; 2])| {
            let [head, tail]: [u64; 2] = bytemuck::cast(address);
            (head, tail, u16::from_ne_bytes(port))
        };
        let (direction, [first, second]) = if number(source) <= number(destination) {
            (translated::FORTH, [source, destination])
        } else {
            (translated::BACK, [destination, source])
        };
        let key = Self {
            vni,
            first: first.0,
            second: second.0,
            first_port_be: first.1,
            second_port_be: second.1,
            protocol,
            reserved: [0; 3],
        };
        (key, direction)
    }
}

/// Values of [`FLOWS`] for a peer: the key's first address is its VTEP's, and all others are 0.
pub mod peer_ways {
    /// What it sends needs no verification by the kernel.
    pub const FAST: u32 = 3;
    /// The kernel has to verify checksums of what it sends.
    pub const KERNEL: u32 = 4;
}

/// Values of [`FLOWS`]: in which direction packets left the kernel as what they had not come as.
/// What goes the other way is what the kernel has to translate back.
pub mod translated {
    /// In none, any more: one came as it was.
    pub const NOT: u32 = 0;
    /// From the first end to the second.
    pub const FORTH: u32 = 1;
    /// From the second end to the first.
    pub const BACK: u32 = 2;
}
