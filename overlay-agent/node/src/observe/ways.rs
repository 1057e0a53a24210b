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
use overlay_core::{
    model::{Family, Model, Peers},
    shared::Shared,
    state::Content,
    surroundings::{Asked, Hop, NextHop, Question, Surroundings, Way, WayHop},
};
use overlay_kernel::{self as kernel, netlink::Bulk};

use super::{nodes::Nodes, tables::Tables};

/// The ways, and what they follow from besides the routes.
#[derive(Default)]
pub(super) struct Ways {
    peers: Vec<Peers>,
    learned: BTreeSet<(IpNet, Option<u32>)>,
    /// The outer addresses that tunnels leave from.
    sources: BTreeMap<Family, IpAddr>,
    pub(super) found: Shared<BTreeMap<IpAddr, Way>>,
    /// The route look-ups that were made for it.
    pub(super) asked: Shared<Vec<Asked>>,
    /// The answers, shared by all peers that no rule or route tells apart.
    answers: Answers,
}

/// The kernel's answers.
#[derive(Default)]
struct Answers {
    prefixes: Prefixes,
    /// Where addresses have to be asked for one by one.
    singles: Vec<IpNet>,
    /// The way of each class that has one, and whether that leads through a router.
    ways: HashMap<(Class, u16), (Way, bool)>,
}

impl Answers {
    /// The way to an address, if it is one like others that were asked for.
    fn to(&self, vtep: IpAddr, port: u16) -> Option<Way> {
        if self.singles.iter().any(|net| net.contains(&vtep)) {
            return None;
        }
        let class = Class::Prefix(Family::of(vtep), self.prefixes.longest(vtep));
        let (way, is_routed) = self.ways.get(&(class, port))?;
        let next_hop = if *is_routed { way.next_hop } else { vtep };
        let way = way.clone();
        // Of several next hops each may be the address itself.
        way.hops.is_empty().then_some(Way { next_hop, ..way })
    }
}

impl Ways {
    /// Looks again, if anything has changed.
    pub(super) fn update(
        &mut self,
        bulk: &mut Bulk,
        model: &Model,
        sources: BTreeMap<Family, IpAddr>,
        tables: &mut Tables,
        nodes: &Nodes<'_>,
    ) -> kernel::Result<()> {
        let peers: Vec<Peers> = model
            .networks
            .iter()
            .map(|network| network.peers.clone())
            .collect();
        let learned = learned(bulk, &peers)?;
        let same = self.peers == peers && self.learned == learned && self.sources == sources;
        if same && !tables.others_changed {
            return Ok(());
        }
        let (found, asked, answers) = find(bulk, model, tables, &learned, &sources, nodes)?;
        self.answers = answers;
        if *self.found != found {
            self.found = found.into();
        }
        self.asked = asked.into();
        if self.peers != peers || tables.vteps.is_empty() {
            let all = peers.iter().flat_map(|peers| peers.iter());
            tables.vteps = all.map(|peer| peer.vtep).collect();
        }
        (self.peers, self.learned, self.sources) = (peers, learned, sources);
        tables.others_changed = false;
        Ok(())
    }

    /// The way to an address without a question, if it is known all the same: as one that a peer
    /// has that goes, or like others.
    pub(super) fn to(&self, vtep: IpAddr, port: u16, goes: bool) -> Option<Way> {
        match self.found.get(&vtep) {
            Some(way) if goes => Some(way.clone()),
            // Of another network, whose port may lead elsewhere.
            Some(_) => None,
            None => self.answers.to(vtep, port),
        }
    }

    /// Takes in that these peers are those of the networks now, and the ways that come with it.
    pub(super) fn change(&mut self, model: &Model, gone: &[IpAddr], come: &BTreeMap<IpAddr, Way>) {
        let networks = model.networks.iter();
        self.peers = networks.map(|network| network.peers.clone()).collect();
        for vtep in gone {
            self.found.remove(vtep);
        }
        let come = come.iter().map(|(vtep, way)| (*vtep, way.clone()));
        self.found.extend(come);
    }
}

/// The addresses that tunnels leave from: as configured or remembered, or a device's from before
/// there was a memory. One that is away is none: the kernel refuses questions from it.
pub(super) fn sources(
    model: &Model,
    store: &Content,
    locals: &[IpAddr],
    around: &Surroundings,
) -> BTreeMap<Family, IpAddr> {
    let is_here = |address: &IpAddr| {
        let mut others = around.links.values().filter(|link| !link.ours);
        others.any(|link| link.has(*address))
    };
    let of = |family: Family| {
        let mut remembered = store.vteps.iter().map(|vtep| vtep.address);
        let mut locals = locals.iter().copied();
        let of_family = |address: &IpAddr| Family::of(*address) == family;
        let address = model
            .node
            .configured_vtep(family)
            .or_else(|| remembered.find(of_family))
            .or_else(|| locals.find(of_family));
        address.filter(is_here).map(|address| (family, address))
    };
    Family::ALL.into_iter().filter_map(of).collect()
}

/// Path MTUs learned from routers. They matter over IPv6 alone: there routers do not fragment.
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
    sources: &BTreeMap<Family, IpAddr>,
    nodes: &Nodes<'_>,
) -> kernel::Result<(BTreeMap<IpAddr, Way>, Vec<Asked>, Answers)> {
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
    // Rules may tell by the port. Where two networks lead to one VTEP, the first one's decides.
    let mut vteps: BTreeMap<IpAddr, u16> = BTreeMap::new();
    for network in &model.networks {
        for peer in &network.peers {
            vteps.entry(peer.vtep).or_insert(network.outer_port());
        }
    }
    let mut classes: HashMap<(Class, u16), usize> = HashMap::default();
    let mut asked = Vec::new();
    let mut answers = Vec::with_capacity(vteps.len());
    for (vtep, port) in vteps {
        let single = singles.iter().any(|net| net.contains(&vtep));
        let class = if single {
            Class::Single(vtep)
        } else {
            Class::Prefix(Family::of(vtep), prefixes.longest(vtep))
        };
        let number = *classes.entry((class, port)).or_insert_with(|| {
            asked.push(Question {
                to: vtep,
                from: sources.get(&Family::of(vtep)).copied(),
                port,
            });
            asked.len() - 1
        });
        answers.push((vtep, number));
    }
    let hops = bulk.ways_of(&asked)?;
    let several = several(bulk, tables, &asked)?;
    let way = |(vtep, number): (IpAddr, usize)| {
        let hop = hops.get(number)?.as_ref()?;
        let several = several.get(&number).map(Vec::as_slice);
        Some((vtep, way(vtep, hop, several.unwrap_or_default(), nodes)?))
    };
    let of_class = |((class, port), number): ((Class, u16), usize)| {
        let (hop, to) = (hops.get(number)?.as_ref()?, asked.get(number)?.to);
        let (_, way) = way((to, number))?;
        Some(((class, port), (way, hop.gateway.is_some())))
    };
    let by_class = Answers {
        ways: classes.into_iter().filter_map(of_class).collect(),
        prefixes,
        singles,
    };
    let ways = answers.into_iter().filter_map(way).collect();
    let asked = asked.into_iter().zip(hops).enumerate();
    let asked = asked.map(|(number, (question, answer))| Asked {
        question,
        answer,
        hops: several.get(&number).cloned(),
    });
    Ok((ways, asked.collect(), by_class))
}

/// All next hops for those questions that a route with several may answer, by their numbers.
fn several(
    bulk: &mut Bulk,
    tables: &Tables,
    asked: &[Question],
) -> kernel::Result<BTreeMap<usize, Vec<Hop>>> {
    let many = tables.others.iter().filter(|route| route.many);
    let many: Vec<IpNet> = many.map(|route| route.destination).collect();
    let leads = |question: &Question| many.iter().any(|net| net.contains(&question.to));
    let (numbers, questions): (Vec<usize>, Vec<Question>) = asked
        .iter()
        .enumerate()
        .filter(|(_, question)| leads(question))
        .map(|(number, question)| (number, *question))
        .unzip();
    let hops = bulk.hops_of(&questions)?;
    Ok(numbers.into_iter().zip(hops).collect())
}

/// Those that flows can be spread over, where these are several; in an order of their own, not
/// that of a list whose first is another now and then.
fn spread(vtep: IpAddr, several: &[Hop], nodes: &Nodes<'_>) -> Vec<WayHop> {
    let hop = |hop: &Hop| {
        let link = nodes.names.get(&hop.oif).copied();
        Some(WayHop {
            link: link.filter(|_| !nodes.is_ours(hop.oif))?,
            next_hop: hop.gateway.unwrap_or(vtep),
            weight: hop.weight,
        })
    };
    let mut hops: Vec<WayHop> = several.iter().filter_map(hop).collect();
    hops.sort_unstable();
    hops.dedup_by_key(|hop| (hop.link, hop.next_hop));
    if hops.len() < 2 {
        hops.clear();
    }
    hops
}

fn way(vtep: IpAddr, hop: &NextHop, several: &[Hop], nodes: &Nodes<'_>) -> Option<Way> {
    // A device of ours leads to peers, and so cannot be the way to one.
    if hop.local || nodes.is_ours(hop.oif) {
        return None;
    }
    let link = *nodes.names.get(&hop.oif)?;
    Some(Way {
        link,
        next_hop: hop.gateway.unwrap_or(vtep),
        path_mtu: hop.mtu,
        hops: spread(vtep, several, nodes),
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
