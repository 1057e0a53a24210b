//! Which subnet a node asks for.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
};

use ipnet::{Ipv4Net, Ipv6Net};

use crate::{network::Network, subnet::Subnet};

/// Among so many one is chosen by the node's name, so that nodes that start together seldom want
/// the same one.
const CHOICE: usize = 100;

/// A subnet that nobody has: one that nobody has had, or else the one that is longest unused.
///
/// `used` tells the revision at which a subnet was last taken or given back.
pub fn free(
    network: &Network,
    taken: &[Subnet],
    used: &BTreeMap<Subnet, i64>,
    seed: u64,
) -> Option<Subnet> {
    let v4 = Ranges::of(taken.iter().map(|subnet| v4_range(subnet.v4)));
    let v6 = Ranges::of(
        taken
            .iter()
            .filter_map(|subnet| subnet.v6.as_ref().map(v6_range)),
    );
    let is_free = |subnet: &Subnet| {
        !v4.meets(v4_range(subnet.v4))
            && !subnet.v6.is_some_and(|subnet| v6.meets(v6_range(&subnet)))
    };
    let all = (0..network.subnets()).filter_map(|number| network.subnet(number));
    let new: Vec<Subnet> = all
        .clone()
        .filter(|subnet| !used.contains_key(subnet) && is_free(subnet))
        .take(CHOICE)
        .collect();
    if !new.is_empty() {
        let count = u64::try_from(new.len()).unwrap_or(1);
        let at = usize::try_from(seed % count).unwrap_or(0);
        return new.get(at).copied();
    }
    all.filter(is_free)
        .min_by_key(|subnet| used.get(subnet).copied())
}

fn v4_range(net: Ipv4Net) -> (Ipv4Addr, Ipv4Addr) {
    (net.network(), net.broadcast())
}

fn v6_range(net: &Ipv6Net) -> (Ipv6Addr, Ipv6Addr) {
    (net.network(), net.broadcast())
}

/// Addresses from one to another, ascending and apart: thousands of subnets are asked about
/// thousands of others.
struct Ranges<A>(Vec<(A, A)>);

impl<A: Ord + Copy> Ranges<A> {
    fn of(ranges: impl Iterator<Item = (A, A)>) -> Self {
        let mut ranges: Vec<(A, A)> = ranges.collect();
        // Of two prefixes one is in the other, or they are apart; the wider one comes first here.
        ranges.sort_unstable_by_key(|&(first, last)| (first, std::cmp::Reverse(last)));
        ranges.dedup_by(|inner, outer| inner.0 <= outer.1);
        Self(ranges)
    }

    fn meets(&self, (first, last): (A, A)) -> bool {
        let next = self.0.partition_point(|range| range.1 < first);
        self.0.get(next).is_some_and(|range| range.0 <= last)
    }
}

/// A number that follows from a node's name (FNV-1a, 64 bits).
pub fn seed(node: &str) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    node.bytes().fold(0xcbf2_9ce4_8422_2325, step)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{free, seed};
    use crate::{network::Network, subnet::Subnet};

    /// Four bits of subnets, of which the first is left out.
    fn network() -> Network {
        let text = r#"{"Network":"10.5.0.0/20","Backend":{"Type":"vxlan"}}"#;
        Network::read(text.as_bytes()).unwrap()
    }

    fn subnet(number: u8) -> Subnet {
        format!("10.5.{number}.0-24").parse().unwrap()
    }

    #[test]
    fn what_nobody_has_had_goes_first_then_what_is_longest_unused() {
        let mut taken: Vec<Subnet> = (1..14).map(subnet).collect();
        let mut used = BTreeMap::from([(subnet(14), 3), (subnet(2), 1)]);
        assert_eq!(free(&network(), &taken, &used, 7), Some(subnet(15)));
        used.insert(subnet(15), 2);
        assert_eq!(free(&network(), &taken, &used, 7), Some(subnet(15)));
        taken.push(subnet(15));
        assert_eq!(free(&network(), &taken, &used, 7), Some(subnet(14)));
        taken.push(subnet(14));
        assert_eq!(free(&network(), &taken, &used, 7), None);
    }

    proptest::proptest! {
        #[test]
        fn free_is_what_overlaps_nothing(
            taken in proptest::collection::vec((0..16u32, 21..27u8, 0..4u32, 56..68u8), 0..12)
        ) {
            let text = r#"{"Network":"10.5.0.0/20","EnableIPv6":true,"IPv6Network":"fd00::/60","Backend":{"Type":"vxlan"}}"#;
            let network = Network::read(text.as_bytes()).unwrap();
            let taken: Vec<Subnet> = taken
                .into_iter()
                .map(|(v4, v4_length, v6, v6_length)| {
                    let v4 = std::net::Ipv4Addr::from_bits(0x0a05_0000 + (v4 << 8));
                    let v6 = std::net::Ipv6Addr::from_bits((0xfd00 << 112) + (u128::from(v6) << 64));
                    Subnet {
                        v4: ipnet::Ipv4Net::new(v4, v4_length).unwrap().trunc(),
                        v6: Some(ipnet::Ipv6Net::new(v6, v6_length).unwrap().trunc()),
                    }
                })
                .collect();
            let all = (0..network.subnets()).filter_map(|number| network.subnet(number));
            let left: Vec<Subnet> = all.filter(|one| !taken.iter().any(|other| other.overlaps(one))).collect();
            let chosen = free(&network, &taken, &BTreeMap::new(), 0);
            proptest::prop_assert_eq!(chosen, left.first().copied());
        }
    }

    #[test]
    fn a_wider_foreign_subnet_takes_all_that_is_in_it() {
        let taken = [
            "10.5.0.0-21".parse().unwrap(),
            "10.5.8.0-22".parse().unwrap(),
        ];
        let chosen = free(&network(), &taken, &BTreeMap::new(), seed("node01")).unwrap();
        assert!(chosen >= subnet(12), "{chosen}");
    }
}
