//! Flows that the programs carry, and that a plan hands back to the kernel.
//!
//! Connection tracking has seen nothing of them meanwhile, or has last seen them long ago.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use overlay_common::maps::{
    self,
    network_flags::{HOOKED, ONE_PATH, TRACKED},
};

use crate::{
    model::{IfName, Vni},
    objects::{AttachmentState, Hook, LinkId, LinkRef, Objects, PeerObjects},
    shared::Shared,
};

/// Flows between containers of a network that come back to the kernel.
#[derive(Clone, Debug, PartialEq)]
pub struct Returning {
    before: Carried,
    after: Carried,
}

impl Returning {
    /// Those for which this is the way from what is to what should be; `None` where there can be none.
    pub(super) fn between(observed: &Objects, desired: &Objects) -> Option<Self> {
        let before = Carried::by(observed);
        if before.endpoints.is_empty() {
            return None;
        }
        let mut after = Carried::by(desired);
        // What a peer sends, and whether it is fast, is not known yet: until then it is the kernel's.
        let has_one_path = |objects: &Objects, vni: &Vni| {
            let network = objects.entries.networks.get(vni);
            network.is_some_and(|network| network.flags & ONE_PATH != 0)
        };
        let is_new = |vni: &Vni| has_one_path(desired, vni) && !has_one_path(observed, vni);
        after.tunnels.retain(|vni| !is_new(vni));
        // What goes with its device has no flows any more.
        let stays = |link: &IfName| desired.links.contains_key(&LinkId::node(*link));
        let mut endpoints = before.endpoints.iter();
        let returns = endpoints
            .any(|(end, link)| !after.endpoints.contains_key(end) && stays(link))
            || !before.tunnels.is_subset(&after.tunnels)
            || after.leaves_more_peers(&before);
        returns.then_some(Self { before, after })
    }

    /// Whether what these exchange is one of them.
    pub fn has(&self, one: IpAddr, other: IpAddr) -> bool {
        let mut networks = self.before.networks.keys();
        networks.any(|&vni| {
            self.before.carries(vni, one, other) && !self.after.carries(vni, one, other)
        })
    }
}

/// The packets that the programs carry.
#[derive(Clone, Debug, PartialEq)]
struct Carried {
    /// Networks of which anything is carried.
    networks: BTreeMap<Vni, maps::Network>,
    /// Containers of this node, each with its device: what they send.
    endpoints: BTreeMap<(Vni, IpAddr), IfName>,
    /// Of networks what comes from peers and goes there,
    tunnels: BTreeSet<Vni>,
    /// where the peer's row does not say otherwise.
    peers: Shared<PeerObjects>,
}

impl Carried {
    fn by(objects: &Objects) -> Self {
        let runs = |state: &AttachmentState| *state != AttachmentState::Broken;
        let mut attachments = objects.attachments.iter();
        let receives =
            attachments.any(|((_, hook), state)| *hook == Hook::FromUnderlay && runs(state));
        let networks = objects.entries.networks.iter();
        let networks: BTreeMap<Vni, maps::Network> = networks
            .filter(|(_, network)| network.flags & TRACKED == 0)
            .map(|(vni, network)| (*vni, *network))
            .collect();
        let endpoints = objects.entries.endpoints.iter();
        let endpoints = endpoints.filter(|((vni, _), _)| networks.contains_key(vni));
        let endpoints = endpoints.filter_map(|(end, endpoint)| match endpoint.link {
            LinkRef::Name(link) if !endpoint.hooked => {
                let state = objects.attachments.get(&(link, Hook::FromEndpoint))?;
                runs(state).then_some((*end, link))
            }
            _ => None,
        });
        let endpoints = endpoints.collect();
        let tunnels = networks.iter();
        let tunnels = tunnels.filter(|(_, network)| receives && network.flags & HOOKED == 0);
        Self {
            endpoints,
            tunnels: tunnels.map(|(vni, _)| *vni).collect(),
            networks,
            peers: objects.peers.clone(),
        }
    }

    fn carries(&self, vni: Vni, one: IpAddr, other: IpAddr) -> bool {
        let is_here = |end| self.endpoints.contains_key(&(vni, end));
        match [one, other].map(is_here) {
            [true, true] => true,
            [true, false] => self.reaches(vni, other),
            [false, true] => self.reaches(vni, one),
            [false, false] => false,
        }
    }

    /// As the programs look it up: the row of the longest prefix.
    fn reaches(&self, vni: Vni, address: IpAddr) -> bool {
        let Some(network) = self
            .networks
            .get(&vni)
            .filter(|_| self.tunnels.contains(&vni))
        else {
            return false;
        };
        let lengths = match address {
            IpAddr::V4(_) => network.peer_lengths4,
            IpAddr::V6(_) => network.peer_lengths6,
        };
        let mut prefixes = lengths
            .into_iter()
            .take_while(|length| *length != 0)
            .filter_map(|length| Some(IpNet::new(address, length).ok()?.trunc()));
        let peer = prefixes.find_map(|net| self.peers.entries.subnets.get(&(vni, net)));
        peer.is_some_and(|peer| !peer.hooked)
    }

    /// Whether rows of peers say that the kernel carries them, of which others did not.
    fn leaves_more_peers(&self, others: &Self) -> bool {
        if self.peers.is_same(&others.peers) {
            return false;
        }
        let before = &others.peers.entries.subnets;
        let mut rows = self.peers.entries.subnets.iter();
        rows.any(|(key, peer)| peer.hooked && before.get(key).is_none_or(|row| !row.hooked))
    }
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable as _;
    use overlay_common::maps;

    use super::{HOOKED, ONE_PATH, Returning, TRACKED};
    use crate::{
        model::Vni,
        objects::{
            AttachmentState, EndpointEntry, Hook, Link, LinkId, LinkKind, LinkRef, Objects,
            PeerEntry,
        },
        plan::{Step, plan},
    };

    const HERE: [&str; 2] = ["10.244.1.2", "10.244.1.3"];
    const THERE: &str = "10.244.2.9";

    fn vni() -> Vni {
        7.try_into().unwrap()
    }

    fn network() -> maps::Network {
        let mut network = maps::Network {
            vni: 7,
            ..maps::Network::zeroed()
        };
        network.peer_lengths4[..2].copy_from_slice(&[32, 24]);
        network
    }

    fn peer(hooked: bool) -> PeerEntry {
        PeerEntry {
            vtep: [192, 168, 56, 12].into(),
            next_hop: [192, 168, 56, 12].into(),
            underlay: LinkRef::Name("eth1".parse().unwrap()),
            mac: "02:4f:c0:a8:38:0c".parse().unwrap(),
            index: 1,
            mtu: 1450,
            needs_checksum: false,
            hooked,
            spread: None,
        }
    }

    /// Two containers, and a peer.
    fn node() -> Objects {
        let mut objects = Objects::default();
        objects.entries.networks.insert(vni(), network());
        for (place, address) in HERE.into_iter().enumerate() {
            let name = format!("ovl-{place}").parse().unwrap();
            let link = Link {
                kind: LinkKind::Bridge,
                mac: None,
                mtu: 1450,
                up: true,
                master: None,
                alias: None,
                altered: false,
                oversized: false,
            };
            objects.links.insert(LinkId::node(name), link);
            let endpoint = EndpointEntry {
                network: network(),
                link: LinkRef::Name(name),
                slot: 1,
                mac: "02:45:0a:f4:01:02".parse().unwrap(),
                forwarding: false,
                hooked: false,
            };
            let key = (vni(), address.parse().unwrap());
            objects.entries.endpoints.insert(key, endpoint);
            let attached = &mut objects.attachments;
            attached.insert((name, Hook::FromEndpoint), AttachmentState::Outdated);
        }
        objects.attachments.insert(
            ("eth1".parse().unwrap(), Hook::FromUnderlay),
            AttachmentState::Current,
        );
        let key = (vni(), "10.244.2.0/24".parse().unwrap());
        objects.peers.entries.subnets.insert(key, peer(false));
        objects
    }

    /// Whether flows between the containers, of the first and of the second with the peer, return.
    fn returns(change: impl FnOnce(&mut Objects)) -> Option<[bool; 3]> {
        let mut desired = node();
        change(&mut desired);
        let returning = Returning::between(&node(), &desired)?;
        let has = |one: &str, other: &str| {
            let [one, other] = [one, other].map(|end| end.parse().unwrap());
            assert_eq!(returning.has(one, other), returning.has(other, one));
            returning.has(one, other)
        };
        assert!(!has(HERE[0], "192.0.2.1"), "somebody else");
        assert!(!has(THERE, "10.244.2.10"), "not of this node");
        Some([
            has(HERE[0], HERE[1]),
            has(HERE[0], THERE),
            has(HERE[1], THERE),
        ])
    }

    fn flagged(flags: u32) -> Option<[bool; 3]> {
        returns(|objects| {
            objects.entries.networks.get_mut(&vni()).unwrap().flags |= flags;
        })
    }

    #[test]
    fn what_is_left_to_the_kernel_returns() {
        assert_eq!(returns(|_| {}), None);
        assert_eq!(flagged(TRACKED), Some([true, true, true]));
        assert_eq!(flagged(HOOKED), Some([false, true, true]));
        assert_eq!(flagged(ONE_PATH), Some([false, true, true]));
        let first = (vni(), HERE[0].parse().unwrap());
        let hooked = returns(|objects| {
            objects.entries.endpoints.get_mut(&first).unwrap().hooked = true;
        });
        assert_eq!(hooked, Some([true, true, false]));
        let off = returns(|objects| objects.attachments.clear());
        assert_eq!(off, Some([true, true, true]));
        let about = |net: &str| {
            let key = (vni(), net.parse().unwrap());
            returns(move |objects| {
                objects.peers.entries.subnets.insert(key, peer(true));
            })
        };
        assert_eq!(about("10.244.2.0/24"), Some([false, true, true]));
        assert_eq!(about("10.244.2.9/32"), Some([false, true, true]));
        assert_eq!(about("10.244.2.8/32"), Some([false; 3]));
    }

    #[test]
    fn who_goes_returns_to_nobody() {
        let name = "ovl-0".parse().unwrap();
        let gone = returns(|objects| {
            let key = (vni(), HERE[0].parse().unwrap());
            objects.entries.endpoints.remove(&key);
            objects.links.remove(&LinkId::node(name));
            objects.attachments.remove(&(name, Hook::FromEndpoint));
        });
        assert_eq!(gone, None);
    }

    #[test]
    fn what_the_kernel_has_carried_does_not_return() {
        let mut before = node();
        before.entries.networks.get_mut(&vni()).unwrap().flags |= HOOKED;
        let mut after = before.clone();
        after.attachments.clear();
        let returning = Returning::between(&before, &after).unwrap();
        let [one, other, there] = [HERE[0], HERE[1], THERE].map(|end| end.parse().unwrap());
        assert!(returning.has(one, other));
        assert!(!returning.has(one, there));
    }

    #[test]
    fn connection_tracking_hears_of_it_before_the_first_packet_returns() {
        let mut desired = node();
        desired.attachments.clear();
        desired.entries.networks.get_mut(&vni()).unwrap().flags |= TRACKED;
        let plan = plan(&node(), &desired);
        let steps = plan.steps();
        assert!(matches!(steps[0], Step::LetReturn { .. }), "{plan}");
        assert!(steps.len() > 1);
        assert!(super::super::plan(&desired, &desired).is_empty());
    }
}
