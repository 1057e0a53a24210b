//! The node's networks, devices, addresses and maps.

use std::net::IpAddr;

use overlay_common::maps::{
    CIDRS, ENDPOINTS4, ENDPOINTS6, NETWORKS, PEER_STATS, PEERS4, PEERS6, PORTS, SOURCES, VTEPS4,
    VTEPS6,
};
use overlay_core::{
    desired::{self, bridge_name, underlay_devices, vxlan_name},
    model::{Family, IfName, Model},
    objects::Capacity,
    surroundings::Observed,
};
use overlay_kernel::{self as kernel, ethtool};

use super::{Look, NetworkFacts, told};
use crate::doctor::facts::{Device, MapUse, NodeAddress, Seen};

pub(super) fn networks(
    model: &Model,
    observed: &Observed,
    facts: &desired::Facts,
) -> Vec<NetworkFacts> {
    let is_there = |name: &IfName| {
        let link = observed.around.links.get(name);
        link.is_some_and(|link| link.ours)
    };
    let networks = model.networks.iter().filter_map(|network| {
        let tunnels = Family::ALL
            .into_iter()
            .filter_map(|family| vxlan_name(network.vni, family));
        Some(NetworkFacts {
            name: network.name.clone(),
            port: network.port,
            fastpath: network.fastpath,
            mtu: facts.mtus.get(&network.name).copied(),
            bridge: bridge_name(network.vni)?,
            tunnels: tunnels.filter(is_there).collect(),
            cidrs: network.ranges.iter().map(|range| range.cidr).collect(),
            subnets: network.ranges.iter().map(|range| range.subnet).collect(),
        })
    });
    networks.collect()
}

/// The underlay's devices, as far as they are there.
pub(super) async fn underlay(look: &Look<'_>) -> kernel::Result<Vec<Device>> {
    let links = look.node.netlink.links().await?;
    let names = underlay_devices(&look.model.node.underlay, &look.observed.around.links);
    let there = names
        .iter()
        .filter_map(|name| links.iter().find(|link| link.name == *name));
    Ok(there
        .map(|link| Device {
            name: link.name,
            up: link.up,
            running: link.running,
            kind: link.kind.clone().unwrap_or_default(),
            unused_features: told(ethtool::unused_features(link.name)),
            one_queue: told(ethtool::spreads_by_address_alone(link.name, Family::V4)),
            received: 0,
        })
        .collect())
}

/// This node's outer addresses: those that the agent chose, or would.
pub(super) fn vteps(
    facts: &desired::Facts,
    underlay: &[Device],
    observed: &Observed,
) -> Vec<IpAddr> {
    if !facts.vteps.is_empty() {
        return facts.vteps.clone();
    }
    let devices = underlay
        .iter()
        .filter_map(|device| observed.around.links.get(&device.name));
    let addresses = devices.flat_map(|link| &link.addresses);
    addresses.map(ipnet::IpNet::addr).collect()
}

pub(super) async fn addresses(look: &Look<'_>) -> kernel::Result<Vec<NodeAddress>> {
    let name_of = |index: u32| {
        let mut links = look.observed.around.links.iter();
        let link = links.find(|(_, link)| link.index == index);
        link.map(|(name, _)| *name)
    };
    let found = look.node.netlink.addresses().await?.into_iter();
    Ok(found
        .filter(|address| address.global)
        .filter_map(|address| {
            Some(NodeAddress {
                device: name_of(address.index)?,
                net: address.net,
                usable: address.usable,
            })
        })
        .collect())
}

/// How full the maps are that fill up with what the configuration names.
pub(super) fn maps(look: &Look<'_>) -> Seen<Vec<MapUse>> {
    let capacity = told(look.node.with_maps(|maps| Ok(maps.capacity())))?;
    let Some(Capacity {
        networks,
        peers,
        vteps,
        slots,
        endpoints,
        ports,
        sources,
        cidrs,
    }) = capacity
    else {
        return Err("no maps are pinned".to_owned());
    };
    let entries = &look.observed.objects.entries;
    let of_peers = &look.observed.objects.peers.entries;
    let subnets = |family| {
        let keys = of_peers.subnets.keys();
        keys.filter(|(_, net)| Family::of(net.addr()) == family)
            .count()
    };
    let outer = |family| {
        let keys = of_peers.vteps.keys();
        keys.filter(|(_, vtep)| Family::of(*vtep) == family).count()
    };
    let inner = |family| {
        let keys = entries.endpoints.keys();
        keys.filter(|(_, address)| Family::of(*address) == family)
            .count()
    };
    let [v4, v6] = Family::ALL;
    let used = [
        (NETWORKS, entries.networks.len(), networks),
        (PEERS4, subnets(v4), peers[0]),
        (PEERS6, subnets(v6), peers[1]),
        (VTEPS4, outer(v4), vteps[0]),
        (VTEPS6, outer(v6), vteps[1]),
        (PEER_STATS, of_peers.vteps.len(), slots),
        (ENDPOINTS4, inner(v4), endpoints[0]),
        (ENDPOINTS6, inner(v6), endpoints[1]),
        (PORTS, entries.ports.len(), ports),
        (SOURCES, entries.sources.len(), sources),
        (CIDRS, entries.cidrs.len(), cidrs),
    ];
    Ok(used
        .into_iter()
        .map(|(name, used, capacity)| MapUse {
            name,
            used,
            capacity,
        })
        .collect())
}
