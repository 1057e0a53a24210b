//! Which flows to a peer take which of several next hops.

use overlay_common::maps::{BUCKETS, MAX_NEXT_HOPS};

use crate::{
    objects::{LinkRef, Spread},
    surroundings::{Way, WayHop},
};

/// The spread over the next hops of a way, of which the first is the way's own; `None` where there
/// is no other. What is more than the map has room for is left out.
pub(super) fn of(way: &Way) -> Option<Box<Spread>> {
    let first = |hop: &&WayHop| (hop.link, hop.next_hop) == (way.link, way.next_hop);
    let others = way.hops.iter().filter(|hop| !first(hop));
    let others: Vec<&WayHop> = others.take(MAX_NEXT_HOPS - 1).collect();
    if others.is_empty() {
        return None;
    }
    let own = way.hops.iter().find(first).map_or(1, |hop| hop.weight);
    let weights: Vec<u16> = std::iter::once(own)
        .chain(others.iter().map(|hop| hop.weight))
        .collect();
    Some(Box::new(Spread {
        more: others
            .iter()
            .map(|hop| (hop.next_hop, LinkRef::Name(hop.link)))
            .collect(),
        buckets: buckets(&weights),
    }))
}

/// Deals the parts out, one after the other to whoever has got the least for his weight.
fn buckets(weights: &[u16]) -> [u8; BUCKETS] {
    let total: i64 = weights.iter().map(|weight| i64::from(*weight)).sum();
    let mut credit = vec![0; weights.len()];
    let mut buckets = [0; BUCKETS];
    for bucket in &mut buckets {
        for (credit, weight) in credit.iter_mut().zip(weights) {
            *credit += i64::from(*weight);
        }
        // Of those with most, the first one.
        let most = credit.iter().copied().max().unwrap_or_default();
        let next = credit.iter().position(|credit| *credit == most);
        if let Some(place) = next {
            credit[place] -= total;
            *bucket = u8::try_from(place).unwrap_or_default();
        }
    }
    buckets
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(hops: &[(&str, u16)]) -> Way {
        let hop = |(address, weight): &(&str, u16)| WayHop {
            link: "eth1".parse().unwrap(),
            next_hop: address.parse().unwrap(),
            weight: *weight,
        };
        Way {
            link: "eth1".parse().unwrap(),
            next_hop: "192.0.2.2".parse().unwrap(),
            path_mtu: None,
            hops: hops.iter().map(hop).collect(),
        }
    }

    /// How many parts each next hop has.
    fn shares(spread: &Spread) -> Vec<usize> {
        let mut shares = vec![0; spread.more.len() + 1];
        for number in spread.buckets {
            shares[usize::from(number)] += 1;
        }
        shares
    }

    #[test]
    fn flows_are_dealt_out_by_weight() {
        assert_eq!(of(&way(&[])), None);
        assert_eq!(of(&way(&[("192.0.2.2", 1)])), None);
        let spread = of(&way(&[("192.0.2.1", 3), ("192.0.2.2", 1)])).unwrap();
        assert_eq!(spread.more.len(), 1);
        assert_eq!(shares(&spread), [4, 12]);
        let spread = of(&way(&[
            ("192.0.2.1", 1),
            ("192.0.2.2", 1),
            ("192.0.2.3", 1),
        ]))
        .unwrap();
        assert_eq!(shares(&spread), [6, 5, 5]);
    }
}
