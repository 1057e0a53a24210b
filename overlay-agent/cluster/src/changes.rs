//! The text that the agent is handed, by nodes; and what changes of it, so that one node of ten
//! thousand costs no more than one of ten.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use crate::{
    fragment::{self, LEASE},
    subnet::Subnet,
};

/// Changes of a network since it was last told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Changes {
    /// How many have been told since the whole text, this one included.
    pub number: u64,
    /// The store that it follows from now: its number and its revision.
    pub store: Option<(u64, i64)>,
    /// The texts of nodes that are new or changed, by their subnets.
    pub set: BTreeMap<String, String>,
    /// The subnets of nodes that are there no more.
    pub gone: BTreeSet<String>,
}

impl Changes {
    /// Whether nothing has changed but the store's revision.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.gone.is_empty()
    }
}

/// Changes that do not belong to a text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// Others were told before.
    #[error("change {told} of the cluster's network was told where {expected} is next")]
    Number {
        /// Its number.
        told: u64,
        /// The one that it should have.
        expected: u64,
    },
    /// A node that is none, or that is not there.
    #[error("a change of the cluster's network is about {0:?}, where no node is")]
    Node(String),
}

/// The text by its nodes. Copies share the texts of these.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    number: u64,
    store: Option<(u64, i64)>,
    /// All that comes before the nodes.
    head: String,
    nodes: BTreeMap<Subnet, Arc<str>>,
}

/// The nodes that are not as before, each with its text; none for one that has gone.
pub type Difference = BTreeMap<Subnet, Option<Arc<str>>>;

impl Parts {
    /// A whole text: joined again it is the same.
    pub fn of(text: &str) -> Self {
        Self::split(text)
            .filter(|parts| parts.text() == text)
            .unwrap_or_else(|| Self {
                head: text.to_owned(),
                ..Self::default()
            })
    }

    fn split(text: &str) -> Option<Self> {
        let store = fragment::store(text);
        let rest = match store {
            Some(_) => text.split_once('\n')?.1,
            None => text,
        };
        let begin = format!("\n{LEASE}");
        let (head, mut rest) = rest.split_at(rest.find(&begin)?);
        let mut nodes = BTreeMap::new();
        while !rest.is_empty() {
            let end = rest[1..].find(&begin).map_or(rest.len(), |end| 1 + end);
            let (node, after) = rest.split_at(end);
            let subnet = node[begin.len()..].split(' ').next()?.parse().ok()?;
            nodes.insert(subnet, node.into());
            rest = after;
        }
        Some(Self {
            number: 0,
            store,
            head: head.to_owned(),
            nodes,
        })
    }

    /// The whole text.
    pub fn text(&self) -> String {
        let lengths = self.nodes.values().map(|node| node.len());
        let mut text = String::with_capacity(self.head.len() + lengths.sum::<usize>() + 64);
        if let Some(store) = self.store {
            text.push_str(&fragment::line_of(store));
        }
        text.push_str(&self.head);
        for node in self.nodes.values() {
            text.push_str(node);
        }
        text
    }

    /// Takes changes in, or none of them.
    pub fn change(&mut self, changes: &Changes) -> Result<Difference, Mismatch> {
        let expected = self.number + 1;
        if changes.number != expected {
            let told = changes.number;
            return Err(Mismatch::Number { told, expected });
        }
        let wrong = |key: &str| Mismatch::Node(key.to_owned());
        let mut gone = Vec::with_capacity(changes.gone.len());
        for key in &changes.gone {
            let subnet = key.parse().ok();
            let there = subnet.filter(|subnet| self.nodes.contains_key(subnet));
            gone.push(there.ok_or_else(|| wrong(key))?);
        }
        let mut set = BTreeMap::new();
        for (key, node) in &changes.set {
            let subnet: Subnet = key.parse().map_err(|_| wrong(key))?;
            let begin = format!("\n{LEASE}{key} ");
            // One node and no more: what follows would be hidden from whoever looks for it.
            let one = node.starts_with(&begin) && node.matches(&format!("\n{LEASE}")).count() == 1;
            if !one || changes.gone.contains(key) {
                return Err(wrong(key));
            }
            set.insert(subnet, node);
        }
        self.number = expected;
        self.store = changes.store;
        let gone = gone.into_iter().map(|subnet| (subnet, None));
        let set = set.into_iter();
        let set = set.map(|(subnet, node)| (subnet, Some(Arc::from(node.as_str()))));
        let difference: Difference = gone.chain(set).collect();
        for (subnet, node) in &difference {
            match node {
                Some(node) => self.nodes.insert(*subnet, Arc::clone(node)),
                None => self.nodes.remove(subnet),
            };
        }
        Ok(difference)
    }

    /// The nodes with their texts.
    pub fn nodes(&self) -> impl Iterator<Item = (Subnet, &str)> {
        self.nodes.iter().map(|(subnet, node)| (*subnet, &**node))
    }
}
