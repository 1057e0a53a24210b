//! The addresses of peers that there are not.

use std::net::Ipv4Addr;

/// Length of their subnets' prefixes: 131,072 of them fit beside the lab's own network.
pub(super) const LENGTH: u8 = 25;
/// A network that holds the VTEPs of all of them, shared address space (RFC 6598).
pub(super) const VTEPS: &str = "100.64.0.0/10";

/// First address of a peer's subnet.
pub(super) fn subnet(peer: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 0).to_bits() + (peer << (32 - u32::from(LENGTH))))
}

/// A container of a peer.
pub(super) fn container(peer: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(subnet(peer).to_bits() + 10)
}

/// A peer's outer address.
pub(super) fn vtep(peer: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(100, 64, 1, 0).to_bits() + peer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::metric::PEERS;

    #[test]
    fn subnets_are_apart_and_not_the_labs() {
        assert_eq!(subnet(0), Ipv4Addr::new(10, 0, 0, 0));
        assert_eq!(subnet(1), Ipv4Addr::new(10, 0, 0, 128));
        let last = PEERS[PEERS.len() - 1] - 1;
        assert!(container(last) < Ipv4Addr::new(10, 244, 0, 0));
        assert!(vtep(last) < Ipv4Addr::new(100, 128, 0, 0));
    }
}
