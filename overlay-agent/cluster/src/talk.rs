//! The protocol of agent and helper: lines of JSON on the helper's standard input and output.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::{access::Access, changes::Changes, problem::Problem};

/// The helper's parameters: the first line that it reads. Each further one is an
/// [`Access`] that counts from then on. It ends when there is no more to read, as when its agent
/// has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// Members of etcd, as URLs.
    pub etcd: Vec<String>,
    /// Credentials for the members, and certificates to know them by.
    pub access: Access,
    /// Where flannel's keys begin, without a slash at the end.
    pub prefix: String,
    /// The network's name on this node.
    pub network: String,
    /// This node's name.
    pub node: String,
    /// Its outer IPv4 address and the MAC of its device there.
    pub v4: (Ipv4Addr, String),
    /// The same of IPv6.
    pub v6: Option<(Ipv6Addr, String)>,
    /// The public half of its key, once it has one, and of the one that it is about to have.
    pub keys: [Option<String>; 2],
    /// Whether it encrypts the network.
    pub encrypted: bool,
    /// The subnet that is asked for, as prefixes.
    pub wanted: Vec<String>,
    /// The subnet of last time, as prefixes.
    pub last: Vec<String>,
    /// Whether containers have addresses of that one.
    pub bound: bool,
    /// The fragment of last time.
    pub fragment: Option<String>,
}

/// Where the helper stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It has no connection yet, or has lost it.
    Disconnected,
    /// It follows the store.
    Following,
}

/// A line of the helper's output: all that it knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct News {
    /// Where it stands.
    pub state: State,
    /// The member of etcd that it speaks with, or tried last.
    pub endpoint: String,
    /// Why the store is not followed, where it is not.
    pub away: Option<Problem>,
    /// Problems in the store, or on this node's way there; not more than a few.
    pub problems: Vec<Problem>,
    /// The network with its peers; `None` as long as this node has no subnet, and when no more
    /// has changed since than `changes` say.
    pub fragment: Option<String>,
    /// Its changes since the last line that had either.
    pub changes: Option<Changes>,
    /// This node's subnet in the store.
    pub subnet: Option<String>,
    /// How many nodes there are besides this one.
    pub nodes: usize,
    /// How many of them the store does not have any more.
    pub doubtful: usize,
    /// How many nodes besides this one have a key for encryption.
    pub with_key: usize,
    /// Some of those that have none.
    pub without_key: Vec<String>,
    /// The store's revision.
    pub revision: i64,
    /// How often a connection has been made and the store been listed over it.
    pub connections: u64,
    /// When a member last answered, in milliseconds since the machine started, its sleep included.
    pub answered_ms: Option<u64>,
}
