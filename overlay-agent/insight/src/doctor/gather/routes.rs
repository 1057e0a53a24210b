//! Where the node sends what is for its networks.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use overlay_core::{
    model::{Family, IfName},
    objects::ROUTE_PROTOCOL,
    surroundings::NextHop,
};
use overlay_kernel::{
    self as kernel,
    netlink::{RouteInfo, RouteKind, RuleInfo},
};

use super::{Look, NetworkFacts};
use crate::doctor::facts::{Diversion, Diverted, PeerFacts};

/// `RT_TABLE_MAIN`, and the priority of the rule that leads there.
const MAIN_TABLE: u32 = 254;
const MAIN_RULE: u32 = 32_766;
/// Routes of others inside a network that are looked at.
const ROUTES: usize = 64;

struct Tables<'a> {
    look: &'a Look<'a>,
    names: BTreeMap<u32, IfName>,
    routes: Vec<RouteInfo>,
    rules: Vec<RuleInfo>,
}

/// Addresses of the networks whose packets do not leave by the network's own devices.
pub(super) async fn diverted(
    look: &Look<'_>,
    peers: &[PeerFacts],
) -> kernel::Result<Vec<Diverted>> {
    let mut found = Vec::new();
    let links = look.observed.around.links.iter();
    let names: BTreeMap<u32, IfName> = links.map(|(name, link)| (link.index, *name)).collect();
    for family in Family::ALL {
        let in_use = look.networks.iter().any(|network| {
            network
                .cidrs
                .iter()
                .any(|net| Family::of(net.addr()) == family)
        });
        if !in_use {
            continue;
        }
        let tables = Tables {
            look,
            names: names.clone(),
            routes: passable(look.node.netlink.routes(family).await?),
            rules: look.node.netlink.rules(family).await?,
        };
        for (network, address, by) in tables.candidates(family, peers) {
            found.extend(tables.judge(network, address, by).await?);
        }
    }
    Ok(found)
}

impl Tables<'_> {
    /// An address of each peer, and one of each route that somebody has inside a network.
    fn candidates(
        &self,
        family: Family,
        peers: &[PeerFacts],
    ) -> Vec<(&NetworkFacts, IpAddr, Option<IpNet>)> {
        let mut candidates = Vec::new();
        let there = |network: &&NetworkFacts| !network.tunnels.is_empty();
        for network in self.look.networks.iter().filter(there) {
            let mine = |net: &&IpNet| Family::of(net.addr()) == family;
            for cidr in network.cidrs.iter().filter(mine) {
                let foreign = self.routes.iter().filter(|route| {
                    route.table == MAIN_TABLE
                        && cidr.contains(&route.destination)
                        && !self.is_own(network, route.oif)
                });
                let routes = foreign.take(ROUTES).map(|route| route.destination);
                candidates.extend(routes.map(|route| (network, first_host(route), Some(route))));
            }
            let peers = peers.iter().filter(|peer| peer.network == network.name);
            let inner = peers.filter_map(|peer| peer.inner);
            let inner = inner.filter(|address| Family::of(*address) == family);
            candidates.extend(inner.map(|address| (network, address, None)));
        }
        candidates
    }

    fn is_own(&self, network: &NetworkFacts, oif: Option<u32>) -> bool {
        let device = oif.and_then(|index| self.names.get(&index));
        device.is_some_and(|device| *device == network.bridge || network.tunnels.contains(device))
    }

    async fn judge(
        &self,
        network: &NetworkFacts,
        address: IpAddr,
        route: Option<IpNet>,
    ) -> kernel::Result<Option<Diverted>> {
        let hop = self.look.node.netlink.route_to(address).await?;
        let is_here = network
            .subnets
            .iter()
            .any(|subnet| subnet.contains(&address));
        let expected = if is_here {
            vec![network.bridge]
        } else {
            network.tunnels.clone()
        };
        let device = hop.as_ref().and_then(|hop| self.names.get(&hop.oif));
        if hop.as_ref().is_some_and(|hop| !hop.local)
            && device.is_some_and(|device| expected.contains(device))
        {
            return Ok(None);
        }
        Ok(Some(Diverted {
            network: network.name.clone(),
            address,
            expected,
            device: match (&hop, device) {
                (Some(hop), _) if hop.local => "this node itself".to_owned(),
                (_, Some(device)) => device.to_string(),
                _ => "no device".to_owned(),
            },
            by: self.culprit(address, hop.as_ref(), route),
        }))
    }

    /// The first rule whose table has such a way, or the longest route of somebody else.
    fn culprit(&self, address: IpAddr, hop: Option<&NextHop>, route: Option<IpNet>) -> Diversion {
        let oif = hop.map(|hop| hop.oif);
        let leads = |route: &&RouteInfo, table: u32| {
            route.table == table
                && route.destination.contains(&address)
                && match oif {
                    Some(_) => route.oif == oif,
                    // Nothing leaves: no route that leads anywhere is to blame.
                    None => route.kind != RouteKind::Unicast,
                }
        };
        let before = self
            .rules
            .iter()
            .filter(|rule| rule.priority > 0 && rule.priority < MAIN_RULE);
        let mut rules = before.filter(|rule| {
            let concerns = rule.destination.is_none_or(|net| net.contains(&address));
            concerns && self.routes.iter().any(|route| leads(&route, rule.table))
        });
        if let Some(rule) = rules.next() {
            return Diversion::Rule {
                priority: rule.priority,
                table: rule.table,
            };
        }
        let main = self.routes.iter().filter(|route| leads(route, MAIN_TABLE));
        let longest = main
            .map(|route| route.destination)
            .max_by_key(IpNet::prefix_len);
        route
            .or(longest)
            .map_or(Diversion::Unknown, Diversion::Route)
    }
}

/// All routes but those of last resort, which lead nowhere on purpose.
fn passable(mut routes: Vec<RouteInfo>) -> Vec<RouteInfo> {
    routes.retain(|route| (route.kind, route.protocol) != (RouteKind::Unreachable, ROUTE_PROTOCOL));
    routes
}

/// An address in a prefix that a packet can have.
fn first_host(net: IpNet) -> IpAddr {
    match net {
        IpNet::V4(net) if net.prefix_len() < 31 => {
            Ipv4Addr::from_bits(net.network().to_bits() | 1).into()
        }
        IpNet::V6(net) if net.prefix_len() < 127 => {
            Ipv6Addr::from_bits(net.network().to_bits() | 1).into()
        }
        net => net.network(),
    }
}
