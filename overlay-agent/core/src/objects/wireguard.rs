//! Settings of a `WireGuard` device besides those of every device.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use ipnet::IpNet;

use crate::model::PublicKey;

/// A `WireGuard` device. Private keys are in a file alone, and in the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wireguard {
    /// The public half of its key; `None` before it has one.
    pub public_key: Option<PublicKey>,
    /// UDP port that it listens at.
    pub port: u16,
    /// Whom it speaks with.
    pub peers: BTreeMap<PublicKey, WireguardPeer>,
}

/// Another end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WireguardPeer {
    /// The addresses that it has inside, for which it gets packets and from which it may send.
    pub allowed: BTreeSet<IpNet>,
    /// Where it is told to be. It may be heard from elsewhere since, and is answered there.
    pub endpoint: Option<SocketAddr>,
    /// Seconds after which it is told that this node is there, if nothing else was sent; 0: never.
    pub keepalive: u16,
}
