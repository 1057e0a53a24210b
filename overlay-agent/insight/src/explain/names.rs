//! Names for the numbers that the programs work with.

use std::{collections::BTreeMap, net::IpAddr};

use overlay_common::{journal::Step, maps::endpoint_flags};
use overlay_core::{
    model::{Endpoint, IfName, Name},
    objects::{LinkKind, Scope},
};

use super::Scene;

/// Names by index, slot and VNI.
#[derive(Debug, Default)]
pub struct Names {
    devices: BTreeMap<u32, IfName>,
    endpoints: BTreeMap<u32, Name>,
    peers: BTreeMap<u32, (Name, IpAddr)>,
    networks: BTreeMap<u32, Name>,
}

impl Names {
    /// Those of what is in force.
    pub fn of(known: &Scene<'_>) -> Self {
        let links = known.observed.around.links.iter();
        let devices: BTreeMap<u32, IfName> =
            links.map(|(name, link)| (link.index, *name)).collect();
        let mut names = Self {
            devices,
            ..Self::default()
        };
        for endpoint in &known.model.endpoints {
            if let Some((_, index)) = device_of(known, endpoint) {
                names.endpoints.insert(index, endpoint.name.clone());
            }
        }
        let vteps = &known.observed.objects.peers.entries.vteps;
        for network in &known.model.networks {
            names
                .networks
                .insert(network.vni.get(), network.name.clone());
            for peer in &*network.peers {
                if let Some(&slot) = vteps.get(&(network.vni, peer.vtep)) {
                    names.peers.insert(slot, (peer.name.clone(), peer.vtep));
                }
            }
        }
        names
    }

    /// The device with an index.
    pub fn device(&self, index: u32) -> Option<IfName> {
        self.devices.get(&index).copied()
    }

    /// The endpoint whose device on the node has an index.
    pub fn endpoint(&self, index: u32) -> Option<&Name> {
        self.endpoints.get(&index)
    }

    /// The peer that counts in a slot.
    pub fn peer(&self, slot: u32) -> Option<&Name> {
        self.peers.get(&slot).map(|(name, _)| name)
    }

    /// What a step was decided by.
    pub(crate) fn by(&self, step: Step, value: u64, more: u64) -> Option<String> {
        let number = u32::try_from(value).unwrap_or(u32::MAX);
        Some(match step {
            Step::Port | Step::Ours => match self.networks.get(&number) {
                Some(name) => format!("network {name}, VNI {value}"),
                None => format!("VNI {value}"),
            },
            Step::Peer => format!("{}, MTU {more} on the way", self.shown_peer(number)),
            Step::Vtep | Step::Sender => self.shown_peer(number),
            Step::Endpoint => {
                let forwards = more & u64::from(endpoint_flags::FORWARDING) != 0;
                let kind = if forwards { ", which forwards" } else { "" };
                format!("{}{kind}", self.shown_endpoint(number))
            }
            Step::Delivered | Step::Noted => self.shown_endpoint(number),
            Step::ToNeighbour | Step::ByRoute => self.shown_device(number),
            Step::Ttl => format!("{value} left"),
            Step::Fits => format!("{value} of {more} bytes"),
            Step::Encapsulated => {
                const IPV6: u64 = 10;
                let family = if more == IPV6 { "IPv6" } else { "IPv4" };
                format!("over {family}, UDP source port {value}")
            }
            Step::Ecn => format!("inner TOS {value:#04x}"),
            _ => return None,
        })
    }

    fn shown_device(&self, index: u32) -> String {
        let name = self.device(index);
        name.map_or_else(|| format!("ifindex {index}"), |name| name.to_string())
    }

    fn shown_endpoint(&self, index: u32) -> String {
        let device = self.shown_device(index);
        match self.endpoint(index) {
            Some(name) => format!("endpoint {name}, device {device}"),
            None => format!("device {device}"),
        }
    }

    fn shown_peer(&self, slot: u32) -> String {
        match self.peers.get(&slot) {
            Some((name, vtep)) => format!("peer {name}, VTEP {vtep}"),
            None => format!("slot {slot}"),
        }
    }
}

/// The node's side of an endpoint's veth, by name and index.
pub fn device_of(known: &Scene<'_>, endpoint: &Endpoint) -> Option<(IfName, u32)> {
    let scope = Scope::Endpoint(endpoint.name.clone());
    let mut links = known.observed.objects.links.iter();
    let device = links.find_map(|(id, link)| match &link.kind {
        LinkKind::Veth { peer } if peer.scope == scope => Some(id.name),
        _ => None,
    })?;
    Some((device, known.observed.around.links.get(&device)?.index))
}
