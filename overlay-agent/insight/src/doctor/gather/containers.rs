//! Observes containers from inside.

use std::net::IpAddr;

use overlay_core::{
    model::{Endpoint, Family, Network, Range},
    objects::ROUTE_PROTOCOL,
    surroundings::EndpointPlace,
};
use overlay_kernel::{
    self as kernel,
    netlink::{LinkInfo, Netlink, RouteInfo},
};

use super::Look;
use crate::doctor::facts::{Astray, Container, PeerFacts};

/// Containers that are looked into.
const CONTAINERS: usize = 256;
/// Peers that each of them is to reach.
const PEERS: usize = 8;
/// `RT_TABLE_MAIN`
const MAIN_TABLE: u32 = 254;

/// Looks into the containers; one that vanishes meanwhile is none.
pub(super) async fn look(look: &Look<'_>, peers: &[PeerFacts]) -> Vec<Container> {
    let mut found = Vec::new();
    let there = look.model.endpoints.iter().filter(|endpoint| {
        matches!(
            look.observed.around.endpoints.get(&endpoint.name),
            Some(EndpointPlace::There {
                interface_taken: false,
                ..
            })
        )
    });
    for endpoint in there.take(CONTAINERS) {
        let Some(network) = look.model.network(&endpoint.network) else {
            continue;
        };
        match look_inside(look, endpoint, network, peers).await {
            Ok(container) => found.push(container),
            Err(error) => tracing::debug!("examine endpoint {}: {error}", endpoint.name),
        }
    }
    found
}

async fn look_inside(
    look: &Look<'_>,
    endpoint: &Endpoint,
    network: &Network,
    peers: &[PeerFacts],
) -> kernel::Result<Container> {
    let netns = endpoint.netns.path();
    let netlink = Netlink::open_in(&netns)?;
    let links = netlink.links().await?;
    let interface = links.iter().find(|link| link.name == endpoint.interface);
    let mut container = Container {
        name: endpoint.name.clone(),
        network: network.name.clone(),
        netns,
        interface: endpoint.interface,
        mtu: interface.map(|link| link.mtu),
        more_addresses: Vec::new(),
        astray: Vec::new(),
    };
    let name_of = |index: u32| {
        let link = links.iter().find(|link| link.index == index);
        link.map_or_else(|| "no device".to_owned(), |link| link.name.to_string())
    };
    let own = look.content.allocations.get(&endpoint.name);
    let is_own = |address: &IpAddr| {
        endpoint.addresses.contains(address)
            || own.is_some_and(|own| own.addresses.contains(address))
    };
    for address in netlink.addresses().await? {
        let ip = address.net.addr();
        let in_network = network.ranges.iter().any(|range| range.cidr.contains(&ip));
        if in_network && !is_own(&ip) {
            container
                .more_addresses
                .push((address.net, name_of(address.index)));
        }
    }
    if let Some(interface) = interface {
        let inside = Inside {
            netlink: &netlink,
            interface,
            network,
            mtu: look
                .networks
                .iter()
                .find(|facts| facts.name == network.name)
                .and_then(|facts| facts.mtu),
        };
        let names = |index: Option<u32>| index.map_or_else(|| "no device".to_owned(), name_of);
        container.astray = inside.astray(peers, names).await?;
    }
    Ok(container)
}

struct Inside<'a> {
    netlink: &'a Netlink,
    interface: &'a LinkInfo,
    network: &'a Network,
    mtu: Option<u16>,
}

impl Inside<'_> {
    /// Ways to peers that do not begin at the gateway, or are narrower than the network.
    async fn astray(
        &self,
        peers: &[PeerFacts],
        name_of: impl Fn(Option<u32>) -> String,
    ) -> kernel::Result<Vec<Astray>> {
        let mut astray = Vec::new();
        let peers = peers
            .iter()
            .filter(|peer| peer.network == self.network.name);
        for destination in peers.filter_map(|peer| peer.inner).take(PEERS) {
            let family = Family::of(destination);
            let Some(gateway) = self.network.range(family).map(Range::gateway) else {
                continue;
            };
            let hop = self.netlink.route_to(destination).await?;
            let oif = hop.as_ref().map(|hop| hop.oif);
            let via = hop.as_ref().and_then(|hop| hop.gateway);
            let mtu = hop.as_ref().and_then(|hop| hop.mtu);
            let narrow = mtu.filter(|mtu| self.mtu.is_some_and(|of| *mtu < u32::from(of)));
            if oif == Some(self.interface.index) && via == Some(gateway) && narrow.is_none() {
                continue;
            }
            let routes = self.netlink.routes(family).await?;
            astray.push(Astray {
                destination,
                route: route_of(&routes, destination, oif),
                device: name_of(oif),
                via,
                gateway,
                mtu: narrow,
            });
        }
        Ok(astray)
    }
}

/// The route of somebody else that a destination takes.
fn route_of(routes: &[RouteInfo], to: IpAddr, oif: Option<u32>) -> Option<ipnet::IpNet> {
    let routes = routes.iter().filter(|route| {
        route.table == MAIN_TABLE
            && route.protocol != ROUTE_PROTOCOL
            && route.oif == oif
            && route.destination.contains(&to)
    });
    routes
        .map(|route| route.destination)
        .max_by_key(ipnet::IpNet::prefix_len)
}
