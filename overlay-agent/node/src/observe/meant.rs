//! Rules of others that are meant for a network, or for the tunnels to its peers.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use overlay_core::{
    desired::{bridge_name, underlay_devices, vxlan_name},
    filter::{Between, Outside, Ruleset},
    model::{Family, FastPath, IfName, Model, Name, Peers},
    surroundings::Surroundings,
};
use overlay_kernel::netlink::LinkInfo;

/// A network's devices and addresses, inside of tunnels and outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tunnels {
    network: Name,
    bridge: IfName,
    devices: Vec<IfName>,
    ranges: Vec<(IpNet, IpNet)>,
    port: u16,
    /// Outer addresses of this node.
    own: Vec<IpAddr>,
    underlay: Vec<IfName>,
    peers: Peers,
    vteps: BTreeSet<IpAddr>,
}

/// Whom rules are meant for.
#[derive(Clone, Debug, Default)]
pub(super) struct Meant {
    networks: BTreeMap<Name, BTreeSet<String>>,
    neighbours: BTreeMap<Name, BTreeSet<String>>,
    parts: BTreeMap<IpNet, String>,
    peers: BTreeMap<(Name, IpAddr), String>,
    tells_apart: bool,
}

/// Of the networks that have a fast path.
pub(super) fn tunnels(model: &Model, ours: &[&LinkInfo], around: &Surroundings) -> Vec<Tunnels> {
    let underlay = underlay_devices(&model.node.underlay, &around.links);
    let underlay: Vec<IfName> = underlay.into_iter().collect();
    let networks = model.networks.iter();
    let fast = networks.filter(|network| network.fastpath != FastPath::Off);
    let tunnels = fast.filter_map(|network| {
        let families = Family::ALL.into_iter();
        let devices: Vec<IfName> = families
            .filter_map(|family| vxlan_name(network.vni, family))
            .collect();
        let own = ours.iter().filter(|link| devices.contains(&link.name));
        let ranges = network.ranges.iter();
        Some(Tunnels {
            network: network.name.clone(),
            bridge: bridge_name(network.vni)?,
            own: own.filter_map(|link| link.vxlan.as_ref()?.local).collect(),
            devices: devices
                .into_iter()
                .filter(|device| ours.iter().any(|link| link.name == *device))
                .collect(),
            ranges: ranges.map(|range| (range.cidr, range.subnet)).collect(),
            port: network.port,
            underlay: underlay.clone(),
            vteps: network.peers.iter().map(|peer| peer.vtep).collect(),
            peers: network.peers.clone(),
        })
    });
    tunnels.collect()
}

/// Whether a prefix has anything to do with the networks, or with the tunnels to their peers.
pub(super) fn concerns(tunnels: &[Tunnels], net: &IpNet) -> bool {
    tunnels.iter().any(|of| {
        let mut ranges = of.ranges.iter();
        ranges.any(|(cidr, _)| cidr.contains(net) || net.contains(cidr))
            || of.own.iter().any(|own| net.contains(own))
            || of
                .vteps
                .range(net.network()..=net.broadcast())
                .next()
                .is_some()
    })
}

pub(super) fn find(ruleset: &Ruleset, tunnels: &[Tunnels]) -> Meant {
    let mut meant = Meant::default();
    for of in tunnels {
        let devices: Vec<&str> = of.devices.iter().map(IfName::as_str).collect();
        let within = ruleset.meant_within(&Between {
            bridge: of.bridge.as_str(),
            tunnels: &devices,
            ranges: &of.ranges,
        });
        let lists = [
            (&mut meant.networks, within.peers),
            (&mut meant.neighbours, within.neighbours),
        ];
        for (networks, chains) in lists {
            if !chains.is_empty() {
                networks.insert(of.network.clone(), chains);
            }
        }
        meant.parts.extend(within.parts);
        let vteps = &of.vteps;
        for (own, device) in of
            .own
            .iter()
            .flat_map(|own| of.underlay.iter().map(move |device| (own, device)))
        {
            let outside = ruleset.meant_outside(&Outside {
                device: device.as_str(),
                own: *own,
                peers: vteps,
                port: of.port,
            });
            meant.tells_apart |= outside.tells_apart;
            let peers = outside.peers.into_iter();
            let rows = peers.map(|(vtep, chain)| ((of.network.clone(), vtep), chain));
            meant.peers.extend(rows);
        }
    }
    meant
}

impl Meant {
    pub(super) fn note(&self, around: &mut Surroundings) {
        around.meant.clone_from(&self.networks);
        around.meant_here.clone_from(&self.neighbours);
        around.named.extend(self.parts.clone());
        around.meant_peers.clone_from(&self.peers);
        around.tells_peers_apart = self.tells_apart;
    }
}
