//! What the agent is told: the whole network once, and then what changes of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::Session;
use crate::{
    book::Node,
    changes::Changes,
    fragment,
    lease::Lease,
    network::Network,
    problem::{Problem, bounded},
    subnet::Subnet,
    talk::{News, State},
};

/// Where more than one node of so many has changed, all are told.
const SHARE: usize = 8;
/// So few are always told one by one.
const FEW: usize = 64;

/// What was told last.
#[derive(Debug, Default)]
pub(super) struct Told {
    head: String,
    /// How many changes have been told since the whole.
    number: u64,
    nodes: BTreeMap<Subnet, OfNode>,
}

/// What the text of a node follows from.
#[derive(Debug, PartialEq, Eq)]
struct OfNode {
    lease: Lease,
    doubted: Option<Duration>,
    name: String,
}

impl OfNode {
    fn is(&self, node: &Node<'_>, name: &str) -> bool {
        self.lease == *node.lease && self.doubted == node.doubted && self.name == name
    }
}

impl Session {
    /// All that is known, as the agent wants it.
    pub(super) fn news(&mut self) -> News {
        let mut problems: Vec<Problem> =
            self.refusal.iter().chain(&self.ignored).cloned().collect();
        let (mut fragment, mut changes) = (None, None);
        let mut nodes = 0;
        if let Some(network) = &self.network {
            let (peers, wrong) = self.book.peers(network, self.own, &self.me.lease);
            problems.extend(wrong);
            nodes = peers.len();
            if let Some(own) = self.own {
                let head = fragment::head(&self.name, network, own);
                let store = self.store.map(|store| (store.cluster, store.revision));
                let before = self.told.as_mut().filter(|told| told.head == head);
                let some = before.and_then(|told| told.change(network, &peers, store));
                if let Some(some) = some {
                    // A revision alone is no news.
                    changes = Some(some).filter(|changes| !changes.is_empty());
                } else {
                    let (told, text) = Told::all(head, network, &peers);
                    self.told = Some(told);
                    fragment = Some(match store {
                        Some(store) => fragment::of_store(&text, store),
                        None => text,
                    });
                }
            }
        }
        News {
            state: match self.connection {
                Some(_) => State::Disconnected,
                None => State::Following,
            },
            endpoint: self.endpoint.clone(),
            away: self.connection.clone(),
            problems: bounded(problems),
            fragment,
            changes,
            subnet: self.own.map(|own| own.to_string()),
            nodes,
            doubtful: self.book.doubtful(),
            revision: self.store.map_or(0, |store| store.revision),
            connections: self.connections,
            answered_ms: self
                .answered
                .and_then(|at| u64::try_from(at.as_millis()).ok()),
        }
    }
}

impl Told {
    /// All of a network, and its text.
    fn all(head: String, network: &Network, peers: &[Node<'_>]) -> (Self, String) {
        let mut told = Self {
            head,
            ..Self::default()
        };
        let mut text = told.head.clone();
        for (node, name) in peers.iter().zip(fragment::names(peers)) {
            text.push_str(&fragment::of_node(network, node, &name));
            told.note(node, name.into_owned());
        }
        (told, text)
    }

    fn note(&mut self, node: &Node<'_>, name: String) {
        let noted = OfNode {
            lease: node.lease.clone(),
            doubted: node.doubted,
            name,
        };
        self.nodes.insert(node.subnet, noted);
    }

    /// What is not as it was told, which counts as told then; `None` where that is a lot.
    fn change(
        &mut self,
        network: &Network,
        peers: &[Node<'_>],
        store: Option<(u64, i64)>,
    ) -> Option<Changes> {
        let names = fragment::names(peers);
        let all = peers.iter().zip(names);
        let other: Vec<_> = all
            .filter(|(node, name)| {
                let before = self.nodes.get(&node.subnet);
                before.is_none_or(|before| !before.is(node, name))
            })
            .collect();
        let there: BTreeSet<Subnet> = peers.iter().map(|node| node.subnet).collect();
        let before = self.nodes.keys();
        let gone: Vec<Subnet> = before.filter(|key| !there.contains(key)).copied().collect();
        let count = other.len() + gone.len();
        if count > FEW && count > self.nodes.len() / SHARE {
            return None;
        }
        let mut changes = Changes {
            store,
            ..Changes::default()
        };
        for subnet in gone {
            self.nodes.remove(&subnet);
            changes.gone.insert(subnet.to_string());
        }
        for (node, name) in other {
            let text = fragment::of_node(network, node, &name);
            changes.set.insert(node.subnet.to_string(), text);
            self.note(node, name.into_owned());
        }
        if !changes.is_empty() {
            self.number += 1;
            changes.number = self.number;
        }
        Some(changes)
    }
}

#[cfg(test)]
mod tests;
