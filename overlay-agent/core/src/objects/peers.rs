//! The entries that lead to peers: nearly all objects of a node that has many.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use overlay_common::maps::BUCKETS;
use serde::Serialize;

use super::{LinkRef, Route, RouteKey};
use crate::model::{IfName, Mac, Vni};

/// Where a forwarding entry leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outer {
    /// Outer destination.
    pub vtep: IpAddr,
    /// The device by which packets leave for it, whatever the routes; `None`: by those.
    pub via: Option<IfName>,
}

/// Objects that a node has for each of its peers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PeerObjects {
    /// Routes through the VXLAN devices, in the main table.
    pub routes: BTreeMap<RouteKey, Route>,
    /// Permanent neighbours on the VXLAN devices: next hop of a peer's subnet → VTEP MAC.
    pub neighbours: BTreeMap<(IfName, IpAddr), Mac>,
    /// Permanent forwarding entries of the VXLAN devices: VTEP MAC → outer address.
    pub fdb: BTreeMap<(IfName, Mac), Outer>,
    /// Entries of the eBPF maps.
    pub entries: PeerEntries,
}

impl PeerObjects {
    /// Has what some peers should have in the place of what was there of them.
    pub fn replace(&mut self, there: &Self, wanted: &Self) {
        replace(&mut self.routes, &there.routes, &wanted.routes);
        replace(&mut self.neighbours, &there.neighbours, &wanted.neighbours);
        replace(&mut self.fdb, &there.fdb, &wanted.fdb);
        let (of, there, wanted) = (&mut self.entries, &there.entries, &wanted.entries);
        replace(&mut of.subnets, &there.subnets, &wanted.subnets);
        replace(&mut of.vteps, &there.vteps, &wanted.vteps);
    }
}

fn replace<K: Clone + Ord, V: Clone>(
    all: &mut BTreeMap<K, V>,
    there: &BTreeMap<K, V>,
    wanted: &BTreeMap<K, V>,
) {
    for key in there.keys() {
        all.remove(key);
    }
    let wanted = wanted
        .iter()
        .map(|(key, value)| (key.clone(), value.clone()));
    all.extend(wanted);
}

/// Entries of the eBPF maps that lead to the peers, with devices by name where the map has an
/// index.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PeerEntries {
    /// [`PEERS4`](overlay_common::maps::PEERS4) and [`PEERS6`](overlay_common::maps::PEERS6).
    pub subnets: BTreeMap<(Vni, IpNet), PeerEntry>,
    /// [`VTEPS4`](overlay_common::maps::VTEPS4) and [`VTEPS6`](overlay_common::maps::VTEPS6):
    /// the peer's slot.
    pub vteps: BTreeMap<(Vni, IpAddr), u32>,
}

/// A [`Peer`](overlay_common::maps::Peer) by names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PeerEntry {
    /// Outer destination.
    pub vtep: IpAddr,
    /// Underlay neighbour.
    pub next_hop: IpAddr,
    /// Underlay device.
    pub underlay: LinkRef,
    /// Inner destination MAC.
    pub mac: Mac,
    /// Slot in [`PEER_STATS`](overlay_common::maps::PEER_STATS).
    pub index: u32,
    /// Largest inner IP packet in bytes that the path carries.
    pub mtu: u16,
    /// Whether it drops UDP over IPv6 without a checksum.
    pub needs_checksum: bool,
    /// Whether what comes from there is left to the kernel, for something of somebody else's to have
    /// its turn.
    pub hooked: bool,
    /// How flows are spread where there are several next hops.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spread: Option<Box<Spread>>,
}

/// Next hops besides the first, and which flows take which.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Spread {
    /// Neighbours with their devices.
    pub more: Vec<(IpAddr, LinkRef)>,
    /// As [`Peer::spread`](overlay_common::maps::Peer::spread).
    pub buckets: [u8; BUCKETS],
}

impl Spread {
    /// The devices that lead to the neighbours.
    pub fn links(&self) -> impl Iterator<Item = IfName> + '_ {
        self.more.iter().filter_map(|(_, link)| match link {
            LinkRef::Name(name) => Some(*name),
            LinkRef::Gone(_) => None,
        })
    }
}
