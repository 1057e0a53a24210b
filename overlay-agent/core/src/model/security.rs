//! Security rules of a network, which drop packets by default.

use serde::{Deserialize, Serialize};

/// The verdict of a rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// They are dropped and counted.
    #[default]
    Drop,
    /// They are treated like any other.
    Accept,
}

/// The rules of a network, as `[networks.security]` has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Security {
    /// From an outer address that no peer has.
    pub unknown_vtep: Verdict,
    /// From a peer, with an inner source that is not behind it.
    pub inner_source: Verdict,
    /// From an endpoint, with a MAC or address that is not its own, or claiming one.
    pub endpoint_source: Verdict,
    /// From an endpoint to another network of this node, or the other way round.
    pub other_networks: Verdict,
    /// With an inner source that nobody can have.
    pub martians: Verdict,
    /// From an endpoint, with an address of the network, by a default route of the node.
    pub in_the_clear: Verdict,
    /// Truncated, or with lengths that contradict each other.
    pub malformed: Verdict,
}
