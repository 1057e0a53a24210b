//! Handing out addresses.

use std::{collections::BTreeMap, net::IpAddr};

use foldhash::HashSet;
use ipnet::{IpAddrRange, Ipv4AddrRange, Ipv6AddrRange};

use super::Allocation;
use crate::model::{Endpoint, Model, Name, Network, Range};

type Allocations = BTreeMap<Name, Allocation>;

/// The addresses of a model's endpoints, of which some had addresses before.
///
/// Those of the configuration go before remembered ones, and these before new ones.
pub(super) fn allocate(model: &Model, before: &Allocations) -> Allocations {
    let mut given = Given::default();
    let attached: Vec<(&Endpoint, &Network)> = model
        .endpoints
        .iter()
        .filter_map(|endpoint| Some((endpoint, model.network(&endpoint.network)?)))
        .collect();
    for (endpoint, _) in &attached {
        given.give_configured(endpoint);
    }
    for kept in [true, false] {
        for (endpoint, network) in &attached {
            for range in &network.ranges {
                if given.has(endpoint, range) {
                    continue;
                }
                let address = if kept {
                    given.kept(endpoint, range, before)
                } else {
                    given.next_free(range)
                };
                if let Some(address) = address {
                    given.give(endpoint, address);
                }
            }
        }
    }
    attached
        .iter()
        .map(|(endpoint, _)| (endpoint.name.clone(), given.allocation(endpoint)))
        .collect()
}

/// The addresses of an endpoint that comes to others, which keep theirs.
pub(super) fn allocate_one(
    endpoint: &Endpoint,
    network: &Network,
    others: &Allocations,
) -> Allocation {
    let mut given = Given::default();
    let taken = others.values().flat_map(|other| &other.addresses);
    given.taken.extend(taken);
    given.give_configured(endpoint);
    for range in &network.ranges {
        if !given.has(endpoint, range)
            && let Some(address) = given.next_free(range)
        {
            given.give(endpoint, address);
        }
    }
    given.allocation(endpoint)
}

/// Whether an endpoint more would get an address of each family.
pub(super) fn has_room(network: &Network, others: &Allocations) -> bool {
    let mut given = Given::default();
    let taken = others.values().flat_map(|other| &other.addresses);
    given.taken.extend(taken);
    let mut ranges = network.ranges.iter();
    ranges.all(|range| given.next_free(range).is_some())
}

/// The last address of a range that nobody has and nobody keeps. Others get the first, so that one which
/// is told before it is given out stays free meanwhile.
pub(super) fn last_free(
    range: &Range,
    others: &Allocations,
    is_kept: impl Fn(IpAddr) -> bool,
) -> Option<IpAddr> {
    let taken: HashSet<IpAddr> = others
        .values()
        .flat_map(|other| other.addresses.iter().copied())
        .collect();
    usable(range)?.rfind(|address| !taken.contains(address) && !is_kept(*address))
}

/// All addresses for endpoints, in their order.
fn usable(range: &Range) -> Option<IpAddrRange> {
    match range.endpoints() {
        (IpAddr::V4(first), IpAddr::V4(last)) => {
            Some(IpAddrRange::V4(Ipv4AddrRange::new(first, last)))
        }
        (IpAddr::V6(first), IpAddr::V6(last)) => {
            Some(IpAddrRange::V6(Ipv6AddrRange::new(first, last)))
        }
        // Both ends are of one subnet.
        _ => None,
    }
}

/// The addresses that have been handed out so far.
#[derive(Default)]
struct Given {
    by_endpoint: BTreeMap<Name, Vec<IpAddr>>,
    taken: HashSet<IpAddr>,
}

impl Given {
    fn give(&mut self, endpoint: &Endpoint, address: IpAddr) {
        let addresses = self.by_endpoint.entry(endpoint.name.clone()).or_default();
        addresses.push(address);
        addresses.sort();
        self.taken.insert(address);
    }

    fn of(&self, endpoint: &Endpoint) -> &[IpAddr] {
        self.by_endpoint
            .get(&endpoint.name)
            .map_or(&[], Vec::as_slice)
    }

    /// The addresses that it asks for.
    fn give_configured(&mut self, endpoint: &Endpoint) {
        for &address in &endpoint.addresses {
            self.give(endpoint, address);
        }
    }

    fn allocation(&self, endpoint: &Endpoint) -> Allocation {
        Allocation {
            network: endpoint.network.clone(),
            addresses: self.of(endpoint).to_vec(),
        }
    }

    fn has(&self, endpoint: &Endpoint, range: &Range) -> bool {
        self.of(endpoint)
            .iter()
            .any(|address| range.cidr.contains(address))
    }

    fn kept(&self, endpoint: &Endpoint, range: &Range, before: &Allocations) -> Option<IpAddr> {
        let old = before.get(&endpoint.name)?;
        let (first, last) = range.endpoints();
        let address = old.address(range.family())?;
        let usable = old.network == endpoint.network
            && (first..=last).contains(&address)
            && !self.taken.contains(&address);
        usable.then_some(address)
    }

    fn next_free(&self, range: &Range) -> Option<IpAddr> {
        usable(range)?.find(|address| !self.taken.contains(address))
    }
}
