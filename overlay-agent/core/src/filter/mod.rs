//! Predicts what a node's packet filter does with a packet, without sending one.
//!
//! The ruleset is read as `nft --json list ruleset` prints it, also where it was written with
//! `iptables`. What is not understood is a doubt, and a doubt accuses nobody: only what
//! certainly happens is a verdict.

mod hooked;
mod matching;
mod meant;
mod ruleset;
mod tracking;
mod walk;

use std::net::IpAddr;

pub use hooked::{Hooked, Places};
pub use meant::{MeantOutside, MeantWithin, Outside};
pub use ruleset::Writer;
pub use ruleset::{Hook, Part, Ruleset};
pub use tracking::{Between, Following};
pub use walk::Place;

/// A packet, as far as rules can tell it from others.
#[derive(Clone, Debug)]
pub struct Packet<'a> {
    /// The device that it came in by.
    pub input: Option<&'a str>,
    /// The one that it leaves by.
    pub output: Option<&'a str>,
    /// Its source address.
    pub source: IpAddr,
    /// Whom it is for.
    pub destination: IpAddr,
    /// UDP to this port; `None`: of any protocol.
    pub udp_port: Option<u16>,
    /// Its state in connection tracking.
    pub connection: Connection,
}

impl Packet<'_> {
    /// Neither of its addresses is one of the node's: it is no tunnel's.
    fn is_between_containers(&self) -> bool {
        self.udp_port.is_none()
    }
}

/// A packet's state in connection tracking.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Connection {
    /// The first one of its connection.
    #[default]
    New,
    /// One of a connection that was seen in both directions.
    Established,
    /// One that belongs to no connection that it has seen from its start.
    Invalid,
    /// One that it is not to look at (`notrack`).
    Untracked,
}

impl Connection {
    /// As `ct state` is printed.
    fn state(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Established => "established",
            Self::Invalid => "invalid",
            Self::Untracked => "untracked",
        }
    }
}

#[cfg(test)]
mod tests;
