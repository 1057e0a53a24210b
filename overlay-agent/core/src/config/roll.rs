//! The peers of the cluster's network, one by one: what changes of a few of very many is checked
//! against all others and takes no look at them.
//!
//! Architecture Invariant: what is taken in here, the whole text would be, with the same outcome.
//! Whatever is not plain is left to that.

use std::{collections::BTreeMap, net::IpAddr};

use overlay_cluster::{
    changes::{Difference, Parts},
    subnet::Subnet,
};

use super::{
    Report, cluster,
    fragments::Raw,
    networks::check_lengths,
    peers::{self, Own},
    plain::Plain,
    taken::Taken,
};
use crate::model::{Model, Name, Network, Peer, Peers};

/// Peers of the cluster's network that are not as before.
#[derive(Clone, Debug)]
pub struct PeerChange {
    /// The network.
    pub network: Name,
    /// Peers that have gone, and changed ones as they were.
    pub gone: Vec<Peer>,
    /// Peers that have come, and changed ones as they are now.
    pub come: Vec<Peer>,
    /// All peers, as they are.
    pub peers: Peers,
}

/// Whose are the peers of the cluster's network.
#[derive(Debug)]
pub(super) struct Roll {
    own_vteps: Vec<IpAddr>,
    network: Network,
    /// Those of the fragment, by its nodes.
    nodes: BTreeMap<Subnet, Vec<Peer>>,
    /// Those of files.
    others: Vec<Peer>,
    taken: Taken,
}

impl Roll {
    /// Of a model whose network of the cluster has its first so many peers from a text.
    pub(super) fn of(model: &Model, count: usize, text: &Parts) -> Option<Self> {
        let network = model.network(&model.cluster.as_ref()?.network)?;
        let (of_text, others) = network.peers.split_at_checked(count)?;
        let mut peers = of_text.iter().cloned();
        let mut nodes = BTreeMap::new();
        for (subnet, node) in text.nodes() {
            let count = node.lines().filter(|line| *line == "[[networks.peers]]");
            let of_node: Vec<Peer> = peers.by_ref().take(count.count()).collect();
            nodes.insert(subnet, of_node);
        }
        if peers.next().is_some() || nodes.values().map(Vec::len).sum::<usize>() != count {
            return None;
        }
        let mut taken = Taken::beside_peers(network, model);
        taken.insert(&network.peers, None);
        Some(Self {
            own_vteps: model.node.configured_vteps(),
            network: network.clone(),
            nodes,
            others: others.to_vec(),
            taken,
        })
    }

    /// Takes changes in; `None` where they are not plain, and the roll is of no more use.
    pub(super) fn change(mut self, changes: &Difference) -> Option<(Self, PeerChange)> {
        let (mut gone, mut come) = (Vec::new(), Vec::new());
        for (subnet, text) in changes {
            let before = self.nodes.remove(subnet).unwrap_or_default();
            let now = match text {
                Some(text) => self.read(text)?,
                None => Vec::new(),
            };
            // Somebody who is in doubt now is the same peer.
            if now != before {
                gone.extend(before);
                come.extend(now.iter().cloned());
            }
            if text.is_some() {
                self.nodes.insert(*subnet, now);
            }
        }
        for peer in &gone {
            self.taken.remove(peer);
        }
        for peer in &come {
            if !self.taken.conflicts(peer).is_empty() {
                return None;
            }
            self.taken.insert(std::slice::from_ref(peer), None);
        }
        if !gone.is_empty() || !come.is_empty() {
            let of_text = self.nodes.values().flatten();
            let all = of_text.chain(&self.others).cloned();
            let peers = Peers::from(all.collect::<Vec<Peer>>());
            if check_lengths(&peers, self.network.fastpath).is_some() {
                return None;
            }
            self.network.peers = peers;
        }
        let change = PeerChange {
            network: self.network.name.clone(),
            gone,
            come,
            peers: self.network.peers.clone(),
        };
        Some((self, change))
    }

    /// The peers of a node, if its text is one.
    fn read(&self, node: &str) -> Option<Vec<Peer>> {
        let text = format!("[[networks]]\nname = \"{}\"\n{node}", self.network.name);
        let plain = Plain::of(&text);
        let mut report = Report {
            plain: &plain,
            faults: Vec::new(),
        };
        let raw: Raw = toml::from_str(&plain.rest).ok()?;
        let [part] = raw.networks.as_slice() else {
            return None;
        };
        let list = peers::List {
            parsed: &part.get_ref().peers,
            plain: plain.of_network(0),
            subnet: 0,
            encrypted: self.network.wireguard.is_some(),
            left_out: None,
        };
        let node = Own {
            name: None,
            vteps: &self.own_vteps,
        };
        let ranges = &self.network.ranges;
        let (_, peers) = peers::validate(&list, "networks[0]", ranges, node, &mut report);
        let peers = peers.into_iter().map(cluster::of_store).collect();
        report.faults.is_empty().then_some(peers)
    }
}
