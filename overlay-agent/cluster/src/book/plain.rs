//! Nodes that come and go where nobody is in anybody's way: then one of ten thousand needs no look
//! at all others.
//!
//! Architecture Invariant: who counts here is who counts among [all](Book::peers). Wherever somebody
//! is left out, or would be, there is no answer here, and all are looked at.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashSet},
};

use super::{Book, Identity, Node, identity, is_ours, one_length_more, overlapping, unusable};
use crate::{fragment, lease::Lease, network::Network, subnet::Subnet};

/// For whom nodes are looked at.
#[derive(Clone, Copy, Debug)]
pub struct Whom<'a> {
    /// The network.
    pub network: &'a Network,
    /// This node's subnet,
    pub subnet: Subnet,
    /// and what it writes for it.
    pub lease: &'a Lease,
}

/// Whose is what among nodes that all count.
#[derive(Debug, Default)]
pub struct Plain {
    nodes: BTreeMap<Subnet, Own>,
    identities: HashSet<Identity>,
    lengths: BTreeSet<(bool, u8)>,
    names: HashSet<String>,
}

/// Values that nobody else has.
#[derive(Debug)]
struct Own {
    identities: Vec<Identity>,
    name: Option<String>,
}

impl Plain {
    /// All nodes of a book, if all of them count.
    pub fn of(book: &Book, whom: Whom<'_>) -> Option<Self> {
        Self::default().follow(book, whom, book.known.keys().copied())
    }

    /// After something has changed of some nodes, if all count still.
    pub fn follow(
        mut self,
        book: &Book,
        whom: Whom<'_>,
        changed: impl Iterator<Item = Subnet> + Clone,
    ) -> Option<Self> {
        for subnet in changed.clone() {
            let Some(own) = self.nodes.remove(&subnet) else {
                continue;
            };
            for identity in own.identities {
                self.identities.remove(&identity);
            }
            if let Some(name) = own.name {
                self.names.remove(&name);
            }
        }
        for subnet in changed.filter(|subnet| *subnet != whom.subnet) {
            if let Some(known) = book.known.get(&subnet) {
                self.add(subnet, &known.lease, whom)?;
            }
        }
        Some(self)
    }

    fn add(&mut self, subnet: Subnet, lease: &Lease, whom: Whom<'_>) -> Option<()> {
        let is_odd = unusable(subnet, lease, whom.network, Some(whom.subnet)).is_some()
            || is_ours(lease, whom.lease, whom.network).is_some()
            || overlapping(&self.nodes, subnet).is_some()
            || one_length_more(&mut self.lengths, subnet).is_some();
        let identities: Vec<Identity> = identity(lease, whom.network).collect();
        let mut all = identities.iter();
        if is_odd || !all.all(|identity| self.identities.insert(identity.clone())) {
            return None;
        }
        let name = fragment::given_name(lease).map(str::to_owned);
        if let Some(name) = &name {
            let is_free = fragment::is_free(name, |other| self.names.contains(other));
            if !is_free || !self.names.insert(name.clone()) {
                return None;
            }
        }
        self.nodes.insert(subnet, Own { identities, name });
        Some(())
    }

    /// A node's name.
    pub fn name<'a>(&self, node: &Node<'a>) -> Cow<'a, str> {
        match fragment::given_name(node.lease) {
            Some(name) => name.into(),
            None => node.lease.public_v4.to_string().into(),
        }
    }

    /// A node that counts.
    pub fn node<'a>(&self, book: &'a Book, subnet: Subnet) -> Option<Node<'a>> {
        self.nodes.get(&subnet)?;
        book.known.get(&subnet).map(|known| known.node(subnet))
    }
}
