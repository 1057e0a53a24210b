//! The peers in the order in which they are probed, and the health of each.
//!
//! Peers are found by the address that they speak from: the first of each of their subnets, which
//! is their gateway's.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use foldhash::{HashMap, HashMapExt as _};
use overlay_control::PeerState;
use overlay_core::model::{Family, Name, Peer, Peers, Range, Vni};

use super::{health::Health, wire::Sizes};

/// A network whose peers are looked after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkPeers {
    /// As the configuration calls it.
    pub name: Name,
    /// Its VXLAN network identifier.
    pub vni: Vni,
    /// The largest packet that is sent through it.
    pub mtu: u16,
    /// The families that this node has addresses of.
    pub ranges: Vec<Range>,
    /// Those who are asked.
    pub peers: Peers,
}

/// A peer's place: its network, and its number there.
#[derive(Clone, Copy, Debug)]
struct Place {
    network: u16,
    peer: u32,
}

/// All peers of all networks.
#[derive(Debug, Default)]
pub(crate) struct Mesh {
    networks: Vec<NetworkPeers>,
    places: Vec<Place>,
    /// Memory is taken only for those that were asked or heard.
    health: Vec<Option<Box<Health>>>,
    speakers: HashMap<(Vni, IpAddr), u32>,
}

impl NetworkPeers {
    /// Where a peer is asked: at the gateway of the first of its subnets that this node
    /// has addresses of the family of.
    fn target(&self, peer: &Peer) -> Option<IpAddr> {
        let speaks = |family| self.ranges.iter().any(|range| range.family() == family);
        let mut subnets = peer.subnets.iter();
        let subnet = subnets.find(|subnet| speaks(Family::of(subnet.addr())))?;
        Some(Range::gateway_of(*subnet))
    }
}

impl Mesh {
    /// Takes other peers; keeps what is known of those that are the same.
    pub(crate) fn follow(&mut self, networks: Vec<NetworkPeers>) {
        if self.networks == networks {
            // Equal, but perhaps another copy: that of the configuration in force is to be kept.
            self.networks = networks;
            return;
        }
        let mut old = std::mem::replace(self, Self::of(networks));
        for (index, place) in self.places.iter().enumerate() {
            let (network, peer) = self.at(*place);
            let known = network
                .target(peer)
                .and_then(|target| old.find(network.vni, target));
            let Some(known) = known else { continue };
            let (_, before) = old.at(old.places[known]);
            if (&before.name, before.vtep) == (&peer.name, peer.vtep) {
                self.health[index] = old.health[known].take();
            }
        }
    }

    fn of(networks: Vec<NetworkPeers>) -> Self {
        let peers = networks.iter().map(|network| network.peers.len()).sum();
        let mut mesh = Self {
            networks,
            places: Vec::with_capacity(peers),
            speakers: HashMap::with_capacity(peers),
            ..Self::default()
        };
        for (number, network) in (0..).zip(&mesh.networks) {
            for (peer, index) in network.peers.iter().zip(0..) {
                let place = u32::try_from(mesh.places.len()).unwrap_or(u32::MAX);
                for subnet in &peer.subnets {
                    let speaker = (network.vni, Range::gateway_of(*subnet));
                    mesh.speakers.insert(speaker, place);
                }
                mesh.places.push(Place {
                    network: number,
                    peer: index,
                });
            }
        }
        mesh.speakers.shrink_to_fit();
        mesh.places.shrink_to_fit();
        mesh.health.resize_with(mesh.places.len(), || None);
        mesh
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    /// The peer that speaks from an address of a network.
    pub(crate) fn find(&self, vni: Vni, address: IpAddr) -> Option<usize> {
        self.speakers
            .get(&(vni, address))
            .map(|&place| place as usize)
    }

    /// The health of a configured peer.
    pub(crate) fn of_peer(&self, vni: Vni, peer: &Peer) -> Option<&Health> {
        let speaker = Range::gateway_of(*peer.subnets.first()?);
        let number = self.find(vni, speaker)?;
        let (_, known) = self.peer(number);
        let same = (&known.name, known.vtep) == (&peer.name, peer.vtep);
        self.health[number].as_deref().filter(|_| same)
    }

    fn at(&self, place: Place) -> (&NetworkPeers, &Peer) {
        let network = &self.networks[usize::from(place.network)];
        (network, &network.peers[place.peer as usize])
    }

    /// A peer and its network.
    pub(crate) fn peer(&self, number: usize) -> (&NetworkPeers, &Peer) {
        self.at(self.places[number])
    }

    /// Where a peer is asked, and from which family of outer addresses.
    pub(crate) fn target(&self, number: usize) -> Option<(Vni, IpAddr, Family)> {
        let (network, peer) = self.peer(number);
        let target = network.target(peer)?;
        Some((network.vni, target, Family::of(peer.vtep)))
    }

    pub(crate) fn health(&mut self, number: usize) -> &mut Health {
        self.health[number].get_or_insert_default()
    }

    /// The report to a peer on the packets that it is sent.
    pub(crate) fn sizes(&mut self, number: usize) -> Sizes {
        let mtu = self.peer(number).0.mtu;
        Sizes {
            mtu: Some(mtu).filter(|&mtu| mtu != 0),
            arrives: self.health(number).search.found(),
        }
    }

    /// Nobody is asked for a while.
    pub(crate) fn stop_asking(&mut self) {
        for health in self.health.iter_mut().flatten() {
            health.stop_asking();
        }
    }

    /// How those stand that were asked or heard, and whether they refuse questions.
    pub(crate) fn standing(
        &self,
        now: Instant,
        silence: Duration,
    ) -> impl Iterator<Item = (&NetworkPeers, &Peer, PeerState, bool)> {
        let health = self.health.iter().zip(&self.places);
        health.filter_map(move |(health, place)| {
            let health = health.as_deref()?;
            let (network, peer) = self.at(*place);
            let refuses = health.refuses(now, silence);
            Some((network, peer, health.reach(now, silence), refuses))
        })
    }
}

#[cfg(test)]
mod tests {
    use ipnet::IpNet;
    use overlay_core::model::Mac;

    use super::*;

    fn peer(name: &str, vtep: &str, subnets: &[&str]) -> Peer {
        let vtep = vtep.parse().unwrap();
        Peer {
            name: name.parse().unwrap(),
            vtep,
            subnets: subnets
                .iter()
                .map(|subnet| subnet.parse().unwrap())
                .collect(),
            mac: Mac::of_vtep(vtep),
            udp6_checksum: false,
            public_key: None,
            next_public_key: None,
            has_agent: true,
        }
    }

    fn network(vni: u32, subnet: &str, peers: Vec<Peer>) -> NetworkPeers {
        let subnet: IpNet = subnet.parse().unwrap();
        NetworkPeers {
            name: format!("net{vni}").parse().unwrap(),
            vni: vni.try_into().unwrap(),
            mtu: 1450,
            ranges: vec![Range {
                cidr: subnet,
                subnet,
            }],
            peers: peers.into(),
        }
    }

    fn asked(mesh: &mut Mesh, number: usize) -> u32 {
        mesh.health(number).ask(Instant::now())
    }

    #[test]
    fn a_peer_speaks_from_any_of_its_gateways_and_is_asked_at_one() {
        let both = peer(
            "b",
            "192.0.2.2",
            &["10.1.2.0/24", "fd00:2::/64", "10.1.3.0/24"],
        );
        let mut mesh = Mesh::default();
        mesh.follow(vec![
            network(7, "10.1.1.0/24", vec![both.clone()]),
            network(8, "fd00:1::/64", vec![both]),
        ]);
        let vni = |vni: u32| Vni::try_from(vni).unwrap();
        for (place, network) in [(0, 7), (1, 8)] {
            for address in ["10.1.2.1", "10.1.3.1", "fd00:2::1"] {
                assert_eq!(
                    mesh.find(vni(network), address.parse().unwrap()),
                    Some(place)
                );
            }
            assert_eq!(mesh.find(vni(network), "10.1.2.2".parse().unwrap()), None);
        }
        assert_eq!(mesh.find(vni(9), "10.1.2.1".parse().unwrap()), None);
        let target = |place| mesh.target(place).unwrap().1.to_string();
        assert_eq!(
            (target(0), target(1)),
            ("10.1.2.1".into(), "fd00:2::1".into())
        );
    }

    #[test]
    fn what_is_known_stays_with_the_same_peer() {
        let (b, c) = (
            peer("b", "192.0.2.2", &["10.1.2.0/24"]),
            peer("c", "192.0.2.3", &["10.1.3.0/24"]),
        );
        let mut mesh = Mesh::default();
        mesh.follow(vec![network(7, "10.1.1.0/24", vec![b.clone(), c.clone()])]);
        assert_eq!(asked(&mut mesh, 1), 1);
        // The first one goes, and another comes.
        let d = peer("d", "192.0.2.4", &["10.1.4.0/24"]);
        mesh.follow(vec![network(7, "10.1.1.0/24", vec![c.clone(), d.clone()])]);
        assert_eq!(asked(&mut mesh, 0), 2);
        let vni = Vni::try_from(7).unwrap();
        assert!(mesh.of_peer(vni, &c).is_some());
        assert!(mesh.of_peer(vni, &d).is_none());
        assert!(mesh.of_peer(vni, &b).is_none());
        // It moves to another machine: that is another one.
        let moved = peer("c", "192.0.2.9", &["10.1.3.0/24"]);
        assert!(mesh.of_peer(vni, &moved).is_none());
        mesh.follow(vec![network(7, "10.1.1.0/24", vec![moved])]);
        assert_eq!(asked(&mut mesh, 0), 1);
        assert_eq!(mesh.len(), 1);
    }
}
