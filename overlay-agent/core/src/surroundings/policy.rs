//! Policies of `IPsec` (XFRM).

use std::net::IpAddr;

use ipnet::IpNet;

/// `IPPROTO_UDP`.
const UDP: u8 = 17;

/// Whose packets a policy is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Those that this node gets.
    In,
    /// Those that it sends.
    Out,
}

/// A policy that does something: it encrypts, or it blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Whose packets it is about.
    pub direction: Direction,
    /// The addresses that they are from,
    pub source: IpNet,
    /// and for.
    pub destination: IpNet,
    /// IP protocol; 0: any.
    pub protocol: u8,
    /// UDP or TCP destination port; 0: any.
    pub port: u16,
    /// Whether it blocks.
    pub blocks: bool,
}

impl Policy {
    /// Whether what leaves is encrypted by it.
    pub fn encrypts(&self) -> bool {
        self.direction == Direction::Out && !self.blocks
    }

    /// Whether it is about what a tunnel between two addresses, of which `own` is this node's,
    /// carries to a UDP port.
    pub fn is_about(&self, own: IpAddr, other: IpAddr, port: u16) -> bool {
        let (source, destination) = match self.direction {
            Direction::In => (other, own),
            Direction::Out => (own, other),
        };
        matches!(self.protocol, 0 | UDP)
            && (self.port == 0 || self.port == port)
            && self.source.contains(&source)
            && self.destination.contains(&destination)
    }
}
