//! Which subnet a node asks for.

use std::collections::BTreeMap;

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
    let mut taken = taken.to_vec();
    taken.sort_unstable();
    let is_free = |subnet: &Subnet| !taken.iter().any(|other| other.overlaps(subnet));
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
