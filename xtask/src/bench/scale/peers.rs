//! Configurations with many peers.

use std::{fmt::Write as _, net::Ipv4Addr};

/// Name of the node and of its instance.
pub(super) const NAME: &str = "bench-scale";
/// The node's own address on its underlay, whose other addresses are the peers'.
pub(super) const UNDERLAY: &str = "172.31.255.254/12";

/// The address before the first peer's, and its subnet.
const BEFORE_VTEPS: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 0);
const FIRST_SUBNET: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 0);

/// A node with so many peers; every `changed`-th has another outer address.
pub(in crate::bench) fn config(peers: u32, changed: Option<u32>) -> String {
    let mut text = format!(
        "[node]\nname = \"{NAME}\"\nunderlay = \"eth1\"\n\n\
         [[networks]]\nname = \"lab\"\nvni = 1\ncidr = [\"10.0.0.0/8\"]\nsubnet = [\"10.255.0.0/20\"]\n"
    );
    for number in 0..peers {
        let moved = changed.is_some_and(|every| number % every == 0);
        let vtep = 1 + number + if moved { peers } else { 0 };
        let vtep = Ipv4Addr::from_bits(BEFORE_VTEPS.to_bits() + vtep);
        let subnet = Ipv4Addr::from_bits(FIRST_SUBNET.to_bits() + number * 128);
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "\n[[networks.peers]]\nname = \"n{number}\"\nvtep = \"{vtep}\"\nsubnet = [\"{subnet}/25\"]\n"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::config;

    fn vteps(text: &str) -> Vec<&str> {
        text.lines()
            .filter(|line| line.starts_with("vtep"))
            .collect()
    }

    #[test]
    fn peers_have_addresses_of_their_own_and_a_change_changes_its_share() {
        let (before, after) = (config(100_000, None), config(100_000, Some(100)));
        let (before, after) = (vteps(&before), vteps(&after));
        assert_eq!(before.iter().collect::<BTreeSet<_>>().len(), 100_000);
        assert_eq!(after.iter().collect::<BTreeSet<_>>().len(), 100_000);
        let changed = before.iter().zip(&after).filter(|(old, new)| old != new);
        assert_eq!(changed.count(), 1_000);
    }
}
