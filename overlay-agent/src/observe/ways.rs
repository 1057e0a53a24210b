//! The way to every VTEP that the underlay has a route to.
//!
//! The kernel is asked once for all VTEPs that no route and no rule tells apart: those that
//! have the same longest prefix of all that there are, in any table.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use foldhash::HashMap;
use ipnet::IpNet;

use super::{nodes::Nodes, tables::Tables};
use crate::{
    kernel::{
        self,
        netlink::{Bulk, NextHop},
    },
    model::{Family, Model, Peers},
    shared::Shared,
    surroundings::Way,
};

/// The ways, and what they follow from besides the routes.
#[derive(Default)]
pub(super) struct Ways {
    peers: Vec<Peers>,
    learned: BTreeSet<(IpNet, Option<u32>)>,
    pub(super) found: Shared<BTreeMap<IpAddr, Way>>,
}

impl Ways {
    /// Looks again, if anything has changed.
    pub(super) fn update(
        &mut self,
        bulk: &mut Bulk,
        model: &Model,
        tables: &mut Tables,
        nodes: &Nodes<'_>,
    ) -> kernel::Result<()> {
        let peers: Vec<Peers> = model
            .networks
            .iter()
            .map(|network| network.peers.clone())
            .collect();
        let learned = learned(bulk, &peers)?;
        if self.peers == peers && self.learned == learned && !tables.others_changed {
            return Ok(());
        }
        let found = find(bulk, model, tables, &learned, nodes)?;
        if *self.found != found {
            self.found = found.into();
        }
        (self.peers, self.learned) = (peers, learned);
        tables.others_changed = false;
        Ok(())
    }
}

/// What routers have told of paths. Only over IPv6 it matters: there they do not fragment.
fn learned(bulk: &mut Bulk, peers: &[Peers]) -> kernel::Result<BTreeSet<(IpNet, Option<u32>)>> {
    let is_used = |peers: &Peers| peers.vtep_families().contains(&Family::V6);
    if !peers.iter().any(is_used) {
        return Ok(BTreeSet::new());
    }
    let learned = bulk.exceptions(Family::V6)?.into_iter();
    Ok(learned
        .map(|route| (route.destination, route.mtu))
        .collect())
}

fn find(
    bulk: &mut Bulk,
    model: &Model,
    tables: &Tables,
    learned: &BTreeSet<(IpNet, Option<u32>)>,
    nodes: &Nodes<'_>,
) -> kernel::Result<BTreeMap<IpAddr, Way>> {
    let mut prefixes = Prefixes::default();
    for route in &tables.others {
        prefixes.add(route.destination);
    }
    for family in Family::ALL {
        for destination in bulk.rules(family)? {
            prefixes.add(destination);
        }
    }
    let ranges = model.networks.iter().flat_map(|network| &network.ranges);
    let many = tables.others.iter().filter(|route| route.many);
    let singles: Vec<IpNet> = many
        .map(|route| route.destination)
        .chain(learned.iter().map(|(destination, _)| *destination))
        // The peers' own routes are not among those that tell VTEPs apart.
        .chain(ranges.map(|range| range.cidr))
        .collect();
    let vteps: BTreeSet<IpAddr> = model
        .networks
        .iter()
        .flat_map(|network| &network.peers)
        .map(|peer| peer.vtep)
        .collect();

    let mut classes: HashMap<Class, usize> = HashMap::default();
    let mut asked = Vec::new();
    let mut answers = Vec::with_capacity(vteps.len());
    for vtep in vteps {
        let single = singles.iter().any(|net| net.contains(&vtep));
        let class = if single {
            Class::Single(vtep)
        } else {
            Class::Prefix(Family::of(vtep), prefixes.longest(vtep))
        };
        let number = *classes.entry(class).or_insert_with(|| {
            asked.push(vtep);
            asked.len() - 1
        });
        answers.push((vtep, number));
    }
    let hops = bulk.routes_to(&asked)?;
    let way = |(vtep, number): (IpAddr, usize)| {
        let hop = hops.get(number)?.as_ref()?;
        Some((vtep, way(vtep, hop, nodes)?))
    };
    Ok(answers.into_iter().filter_map(way).collect())
}

fn way(vtep: IpAddr, hop: &NextHop, nodes: &Nodes<'_>) -> Option<Way> {
    let link = *nodes.names.get(&hop.oif).filter(|_| !hop.local)?;
    Some(Way {
        link,
        next_hop: hop.gateway.unwrap_or(vtep),
        path_mtu: hop.mtu,
    })
}

#[derive(PartialEq, Eq, Hash)]
enum Class {
    Single(IpAddr),
    Prefix(Family, Option<IpNet>),
}

/// Prefixes by family and length.
#[derive(Default)]
struct Prefixes(BTreeMap<(Family, u8), BTreeSet<IpNet>>);

impl Prefixes {
    fn add(&mut self, prefix: IpNet) {
        let of = (Family::of(prefix.addr()), prefix.prefix_len());
        self.0.entry(of).or_default().insert(prefix);
    }

    fn longest(&self, address: IpAddr) -> Option<IpNet> {
        let family = Family::of(address);
        let mut lengths = self.0.range((family, 0)..=(family, u8::MAX)).rev();
        lengths.find_map(|(&(_, length), prefixes)| {
            let prefix = IpNet::new(address, length).ok()?.trunc();
            prefixes.contains(&prefix).then_some(prefix)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Prefixes;

    #[test]
    fn the_longest_prefix_tells_addresses_apart() {
        let mut prefixes = Prefixes::default();
        for prefix in [
            "0.0.0.0/0",
            "10.0.0.0/8",
            "10.1.0.0/16",
            "10.1.1.1/32",
            "fd00::/8",
        ] {
            prefixes.add(prefix.parse().unwrap());
        }
        for (address, expected) in [
            ("10.1.1.1", Some("10.1.1.1/32")),
            ("10.1.1.2", Some("10.1.0.0/16")),
            ("10.2.0.1", Some("10.0.0.0/8")),
            ("192.0.2.1", Some("0.0.0.0/0")),
            ("fd01::1", Some("fd00::/8")),
            ("2001:db8::1", None),
        ] {
            let expected = expected.map(|prefix| prefix.parse().unwrap());
            assert_eq!(
                prefixes.longest(address.parse().unwrap()),
                expected,
                "{address}"
            );
        }
    }
}
