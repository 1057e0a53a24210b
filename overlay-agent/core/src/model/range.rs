//! A network's addresses of one family.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::Family;

/// A network's addresses of one family, and this node's share of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// All of them; every subnet of the family is a part.
    pub cidr: IpNet,
    /// This node's share.
    pub subnet: IpNet,
}

impl Range {
    /// Its family.
    pub fn family(&self) -> Family {
        Family::of(self.subnet.addr())
    }

    /// The bridge's address: the first of the subnet.
    pub fn gateway(&self) -> IpAddr {
        Self::gateway_of(self.subnet)
    }

    /// The bridge's address on the node whose share a subnet is.
    pub fn gateway_of(subnet: IpNet) -> IpAddr {
        nth(subnet, 1)
    }

    /// The first and last address for endpoints: after the gateway, and in IPv4 before the
    /// broadcast address.
    pub fn endpoints(&self) -> (IpAddr, IpAddr) {
        let last = match self.subnet {
            IpNet::V4(net) => {
                Ipv4Addr::from_bits(net.broadcast().to_bits().saturating_sub(1)).into()
            }
            IpNet::V6(net) => net.broadcast().into(),
        };
        (nth(self.subnet, 2), last)
    }

    /// An address of this node with the length of the subnet, as a device carries it.
    pub fn on_link(&self, address: IpAddr) -> IpNet {
        let length = self.subnet.prefix_len();
        // The length is one of this family's; whole addresses have the longest.
        IpNet::new(address, length).unwrap_or_else(|_| address.into())
    }
}

/// The address that comes `n` after the first of a subnet.
fn nth(subnet: IpNet, n: u8) -> IpAddr {
    match subnet {
        IpNet::V4(net) => {
            Ipv4Addr::from_bits(net.network().to_bits().saturating_add(n.into())).into()
        }
        IpNet::V6(net) => {
            Ipv6Addr::from_bits(net.network().to_bits().saturating_add(n.into())).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Range;

    #[test]
    fn the_gateway_comes_first_and_broadcast_is_an_ipv4_matter() {
        let range = |subnet: &str| {
            let subnet = subnet.parse().unwrap();
            let range = Range {
                cidr: subnet,
                subnet,
            };
            let (first, last) = range.endpoints();
            [range.gateway(), first, last].map(|address| address.to_string())
        };
        assert_eq!(
            range("10.244.1.0/24"),
            ["10.244.1.1", "10.244.1.2", "10.244.1.254"]
        );
        assert_eq!(range("fd00::/126"), ["fd00::1", "fd00::2", "fd00::3"]);
        // Too small to be used; still no overflow.
        assert_eq!(range("255.255.255.255/32")[1], "255.255.255.255");
    }
}
