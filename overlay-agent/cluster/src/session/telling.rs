//! Tells the agent the whole network once, and then its changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    time::Duration,
};

use super::Session;
use crate::{
    book::{Book, Node, Plain, Whom},
    changes::Changes,
    fragment,
    lease::Lease,
    network::Network,
    problem::{Problem, bounded},
    subnet::Subnet,
    talk::{News, State},
};

/// How many nodes without a key are told by name.
const NAMED: usize = 16;
/// Where more than one node of so many has changed, all are told.
const SHARE: usize = 8;
/// So few are always told one by one.
const FEW: usize = 64;
/// After so many looks at all nodes it is seen whether none is in another's way any more.
const AGAIN: u32 = 16;

/// The network as it was last told.
#[derive(Debug)]
pub(super) struct Told {
    head: String,
    network: Network,
    lease: Lease,
    /// How many changes have been told since the whole.
    number: u64,
    nodes: BTreeMap<Subnet, OfNode>,
    plain: Known,
}

/// Whether a node that changes is in nobody's way.
#[derive(Debug)]
enum Known {
    /// That can be said.
    Plain(Plain),
    /// Somebody is left out, and so many times yet all have to be looked at.
    Odd(u32),
}

/// The inputs of a node's text.
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
        if let (Some(network), Some(own)) = (&self.network, self.own) {
            let whom = Whom {
                network,
                subnet: own,
                lease: &self.me.lease,
            };
            let head = fragment::head(&self.name, network, own);
            let store = self.store.map(|store| (store.cluster, store.revision));
            let before = self.told.as_mut().filter(|told| told.is_for(&head, whom));
            let subnets = self.book.take_changed();
            let told = before.and_then(|told| told.follow(&self.book, whom, &subnets, store));
            if let Some((some, wrong)) = told {
                // A revision alone is no news.
                changes = Some(some).filter(|changes| !changes.is_empty());
                problems.extend(wrong);
            } else {
                let (peers, wrong) = self.book.peers(network, self.own, &self.me.lease);
                problems.extend(wrong);
                let (told, text) = Told::all(head, whom, &peers);
                self.told = Some(told);
                fragment = Some(match store {
                    Some(store) => fragment::of_store(&text, store),
                    None => text,
                });
            }
            nodes = self.told.as_ref().map_or(0, |told| told.nodes.len());
        } else if let Some(network) = &self.network {
            let (peers, wrong) = self.book.peers(network, self.own, &self.me.lease);
            problems.extend(wrong);
            nodes = peers.len();
        }
        let (with_key, without_key) = self.book.keys(self.own, NAMED);
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
            with_key,
            without_key,
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
    fn all(head: String, whom: Whom<'_>, peers: &[Node<'_>]) -> (Self, String) {
        let mut told = Self {
            head,
            network: whom.network.clone(),
            lease: whom.lease.clone(),
            number: 0,
            nodes: BTreeMap::new(),
            plain: Known::Odd(0),
        };
        let mut text = told.head.clone();
        for (node, name) in peers.iter().zip(fragment::names(peers)) {
            text.push_str(&fragment::of_node(whom.network, node, &name));
            told.note(node, name.into_owned());
        }
        (told, text)
    }

    /// Whether it was told of the same network, and from the same place.
    fn is_for(&self, head: &str, whom: Whom<'_>) -> bool {
        self.head == head && self.network == *whom.network && self.lease == *whom.lease
    }

    fn note(&mut self, node: &Node<'_>, name: String) {
        let noted = OfNode {
            lease: node.lease.clone(),
            doubted: node.doubted,
            name,
        };
        self.nodes.insert(node.subnet, noted);
    }

    /// What is not as it was told, which counts as told then, with what is wrong; `None` where that
    /// is a lot.
    fn follow(
        &mut self,
        book: &Book,
        whom: Whom<'_>,
        subnets: &BTreeSet<Subnet>,
        store: Option<(u64, i64)>,
    ) -> Option<(Changes, Vec<Problem>)> {
        let was_plain = matches!(self.plain, Known::Plain(_));
        let plain = match mem::replace(&mut self.plain, Known::Odd(AGAIN)) {
            Known::Plain(plain) => plain.follow(book, whom, subnets.iter().copied()),
            Known::Odd(0) => Plain::of(book, whom),
            Known::Odd(times) => {
                self.plain = Known::Odd(times - 1);
                None
            }
        };
        if let Some(plain) = plain {
            // Who was left out before is not among those that have changed.
            let few = was_plain
                .then(|| self.change_few(book, &plain, whom.network, subnets, store))
                .flatten();
            self.plain = Known::Plain(plain);
            if let Some(changes) = few {
                return Some((changes, book.unreadable().collect()));
            }
        }
        let (peers, wrong) = book.peers(whom.network, Some(whom.subnet), whom.lease);
        Some((self.change(whom.network, &peers, store)?, wrong))
    }

    /// The same where all nodes count, and only these are not as they were.
    fn change_few(
        &mut self,
        book: &Book,
        plain: &Plain,
        network: &Network,
        subnets: &BTreeSet<Subnet>,
        store: Option<(u64, i64)>,
    ) -> Option<Changes> {
        let all = subnets
            .iter()
            .map(|subnet| (subnet, plain.node(book, *subnet)));
        let now: Vec<Node<'_>> = all.clone().filter_map(|(_, node)| node).collect();
        let without = all.filter(|(_, node)| node.is_none());
        let gone = without.map(|(subnet, _)| *subnet);
        let gone: Vec<Subnet> = gone.filter(|gone| self.nodes.contains_key(gone)).collect();
        if is_a_lot(now.len() + gone.len(), self.nodes.len()) {
            return None;
        }
        let others = now.iter().map(|node| (node, plain.name(node)));
        let others = others.filter(|(node, name)| !self.has(node, name));
        let others = others.map(|(node, name)| (*node, name.into_owned()));
        let others = others.collect();
        Some(self.take(network, others, gone, store))
    }

    fn has(&self, node: &Node<'_>, name: &str) -> bool {
        let before = self.nodes.get(&node.subnet);
        before.is_some_and(|before| before.is(node, name))
    }

    /// The same of all nodes, whoever is in whose way.
    fn change(
        &mut self,
        network: &Network,
        peers: &[Node<'_>],
        store: Option<(u64, i64)>,
    ) -> Option<Changes> {
        let names = fragment::names(peers);
        let all = peers.iter().zip(names);
        let others = all.filter(|(node, name)| !self.has(node, name));
        let others = others.map(|(node, name)| (*node, name.into_owned()));
        let others: Vec<(Node<'_>, String)> = others.collect();
        let there: BTreeSet<Subnet> = peers.iter().map(|node| node.subnet).collect();
        let before = self.nodes.keys();
        let gone: Vec<Subnet> = before.filter(|key| !there.contains(key)).copied().collect();
        if is_a_lot(others.len() + gone.len(), self.nodes.len()) {
            return None;
        }
        Some(self.take(network, others, gone, store))
    }

    fn take(
        &mut self,
        network: &Network,
        others: Vec<(Node<'_>, String)>,
        gone: Vec<Subnet>,
        store: Option<(u64, i64)>,
    ) -> Changes {
        let mut changes = Changes {
            store,
            ..Changes::default()
        };
        for subnet in gone {
            self.nodes.remove(&subnet);
            changes.gone.insert(subnet.to_string());
        }
        for (node, name) in others {
            let text = fragment::of_node(network, &node, &name);
            changes.set.insert(node.subnet.to_string(), text);
            self.note(&node, name);
        }
        if !changes.is_empty() {
            self.number += 1;
            changes.number = self.number;
        }
        changes
    }
}

fn is_a_lot(changed: usize, all: usize) -> bool {
    changed > FEW && changed > all / SHARE
}

#[cfg(test)]
mod tests;
