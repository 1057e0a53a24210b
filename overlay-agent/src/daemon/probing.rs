//! Parameters of the probes, and their results for `status`.

use std::collections::{BTreeMap, BTreeSet};

use overlay_control::PeerState;
use overlay_core::{
    desired::{troubles::PEER_NO_ROUTE, vxlan_name},
    model::{Family, Network, Peer, Probe},
    trouble::{Trouble, ids},
};
use overlay_node::probe::{NetworkPeers, Seat, Setup, Use};

use super::Reconciler;

impl Reconciler {
    /// Has the probes follow what this round has found.
    pub(super) fn follow_probes(&mut self) {
        let networks = self.model.networks.iter();
        let setup = Setup {
            node: self.model.node.name.clone(),
            mode: self.model.node.probe,
            networks: networks
                .clone()
                .map(|network| self.peers_of(network))
                .collect(),
            seats: networks
                .flat_map(|network| self.seats_of(network))
                .collect(),
        };
        self.probes.follow(setup);
    }

    fn peers_of(&self, network: &Network) -> NetworkPeers {
        NetworkPeers {
            name: network.name.clone(),
            vni: network.vni,
            mtu: self
                .facts
                .mtus
                .get(&network.name)
                .copied()
                .unwrap_or_default(),
            ranges: network.ranges.clone(),
            peers: network.peers.clone(),
        }
    }

    /// A place at each of the network's VXLAN devices for each gateway address.
    fn seats_of(&self, network: &Network) -> BTreeMap<Use, Seat> {
        let links = &self.observed.around.links;
        let mut seats = BTreeMap::new();
        for tunnel in Family::ALL {
            let Some(device) = vxlan_name(network.vni, tunnel) else {
                continue;
            };
            let Some(link) = links.get(&device).filter(|link| link.ours) else {
                continue;
            };
            for range in &network.ranges {
                let seat = Seat {
                    device,
                    index: link.index,
                    address: range.gateway(),
                };
                seats.insert((network.vni, tunnel, range.family()), seat);
            }
        }
        seats
    }

    /// Problems that probes have found.
    pub(super) fn probe_problems(&self) -> Vec<Trouble> {
        // Of very many, who does not ask knows hardly anyone, and takes long to see it.
        const MANY: usize = 1_000;
        let mut problems = without_consequences(self.probes.problems(), &self.problems);
        if self.model.node.probe == Probe::Off {
            return problems;
        }
        let asks = matches!(self.model.node.probe, Probe::Every(_));
        let networks = self.model.networks.iter();
        let few = networks.filter(|network| asks || network.peers.len() <= MANY);
        problems.extend(few.filter_map(|network| self.below_peers(network)));
        if !asks {
            return problems;
        }
        let networks = self.model.networks.iter();
        problems.extend(networks.filter_map(|network| self.narrow(network)));
        problems
    }

    /// What peers send and have found not to arrive, where it is this node's underlay that is too narrow for
    /// it.
    fn below_peers(&self, network: &Network) -> Option<Trouble> {
        let room = *self.facts.rooms.get(&network.name)?;
        let mut lost = BTreeSet::new();
        for peer in &network.peers {
            let health = self.probes.health(network.vni, peer);
            let agent = health.and_then(|health| health.agent);
            let sizes = agent.and_then(|agent| Some((agent.mtu?, agent.arrives?)));
            let sizes = sizes.filter(|&(sends, arrives)| room < sends && arrives < sends);
            lost.extend(sizes.map(|(sends, arrives)| (sends, arrives, &peer.name)));
        }
        let (sends, arrives, first) = lost.last()?;
        let others = match lost.len() - 1 {
            0 => String::new(),
            others => format!(", and {others} other peers send too much, too"),
        };
        let what = format!(
            "this node's underlay has room for packets of {room} bytes, and peer {first} sends up to {sends}, of \
             which nothing above {arrives} arrives{others}"
        );
        let devices: Vec<String> = self
            .facts
            .underlay
            .iter()
            .map(ToString::to_string)
            .collect();
        let cure = format!(
            "raise the MTU of {} here, or set mtu = {room} for network {} on all nodes",
            devices.join(", "),
            network.name
        );
        Some(Trouble::new(
            ids::MTU_BELOW_PEERS,
            &network.name,
            what,
            cure,
        ))
    }

    /// Paths on which large packets vanish, and nobody tells those who send them.
    fn narrow(&self, network: &Network) -> Option<Trouble> {
        let mtu = *self.facts.mtus.get(&network.name)?;
        let told = |peer: &Peer| {
            let way = self.observed.around.ways.get(&peer.vtep);
            way.is_some_and(|way| way.path_mtu.is_some())
        };
        let mut narrow = BTreeSet::new();
        for peer in network.peers.iter().filter(|peer| !told(peer)) {
            let health = self.probes.health(network.vni, peer);
            // One that is silent is told as that.
            let health = health.filter(|health| health.state == PeerState::Answers);
            let arrives = health.and_then(|health| health.path_mtu);
            narrow.extend(
                arrives
                    .filter(|arrives| *arrives < mtu)
                    .map(|mtu| (mtu, &peer.name)),
            );
        }
        let (least, first) = narrow.first()?;
        let others = match narrow.len() - 1 {
            0 => String::new(),
            others => format!(", and {others} other peers' lose some, too"),
        };
        let what = format!(
            "packets of more than {least} bytes are lost on the way to peer {first}{others}, and \
             the network's MTU is {mtu}"
        );
        let cure = format!("raise the MTU of the path, or set mtu = {least} on all nodes");
        let trouble = Trouble::new(ids::PATH_BLACK_HOLE, first, what, cure);
        Some(trouble.during(format!("network {}", network.name)))
    }
}

/// What probes have found but for what follows from something else: nobody answers where nothing can be
/// sent.
fn without_consequences(mut found: Vec<Trouble>, others: &[Trouble]) -> Vec<Trouble> {
    let no_route = others.iter().filter(|it| it.id == PEER_NO_ROUTE);
    let no_route: BTreeSet<&str> = no_route.map(|trouble| &*trouble.subject).collect();
    let silence = [ids::PEER_SILENT, ids::PEER_NEVER_ANSWERED];
    found.retain(|it| !(silence.contains(&it.id) && no_route.contains(&*it.subject)));
    found
}

#[cfg(test)]
mod tests {
    use super::{PEER_NO_ROUTE, Trouble, ids, without_consequences};

    #[test]
    fn a_peer_without_a_route_is_not_told_to_be_silent_as_well() {
        let trouble = |id, peer: &str| Trouble::new(id, peer, "what", "cure");
        let found = [
            trouble(ids::PEER_SILENT, "n2"),
            trouble(ids::PEER_NEVER_ANSWERED, "n3"),
            trouble(ids::PATH_BLACK_HOLE, "n2"),
            trouble(ids::PEER_SILENT, "n4"),
        ];
        let others = ["n2", "n3"].map(|peer| trouble(PEER_NO_ROUTE, peer));
        let left = without_consequences(found.to_vec(), &others);
        assert_eq!(left, found[2..]);
        assert_eq!(without_consequences(found.to_vec(), &[]), found);
    }
}
