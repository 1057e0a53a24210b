//! Packets of a network that may leave the node with an inner address, and how.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use crate::model::{Family, IfName};

/// Packets that the kernel keeps from leaving the networks in the clear.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leaving {
    /// The ranges of all networks. An address of them to which no route leads is nobody's.
    pub ranges: BTreeSet<IpNet>,
    /// Sources that no default route is for; each with the part that gets the node's address
    /// instead.
    pub sources: BTreeMap<IpNet, Option<IpNet>>,
    /// Where they may go all the same, by the device that leads there; `None`: anywhere.
    pub exits: BTreeMap<(IfName, Family), Option<BTreeSet<IpNet>>>,
    /// Whether nobody else translates addresses: the sender can be told before it is known what
    /// the source will be.
    pub answers: bool,
    /// Whether there are policies of `IPsec` that encrypt.
    pub encrypts: bool,
}
