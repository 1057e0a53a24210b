//! What a node's tunnels run on: its card, or what stands on the card.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::topology::UNDERLAY;

/// Where a node has its VTEP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Uplink {
    /// The card that the cable is in.
    #[default]
    Card,
    /// A bridge that the card is a port of.
    Bridge,
    /// A macvlan of the card.
    Macvlan,
    /// A VLAN of the card, tagged 100.
    Vlan,
    /// A bond of the card alone, as one whose other card is gone.
    Bond,
    /// The loopback, as nodes have it that speak a routing protocol with their switch.
    Lo,
    /// A TUN device with UDP in user space behind it, as VPNs have it.
    Tun,
}

/// No uplink of this name.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not an underlay: use card, bridge, macvlan, vlan, bond, lo or tun")]
pub struct Unknown(String);

impl Uplink {
    /// Every kind, the usual one first.
    pub const ALL: [Self; 7] = [
        Self::Card,
        Self::Bridge,
        Self::Macvlan,
        Self::Vlan,
        Self::Bond,
        Self::Lo,
        Self::Tun,
    ];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Card => "card",
            Self::Bridge => "bridge",
            Self::Macvlan => "macvlan",
            Self::Vlan => "vlan",
            Self::Bond => "bond",
            Self::Lo => "lo",
            Self::Tun => "tun",
        }
    }

    /// One line for `--help`.
    pub const fn about(self) -> &'static str {
        match self {
            Self::Card => "tunnels run on the card that the cable is in",
            Self::Bridge => "on a bridge that the card is a port of",
            Self::Macvlan => "on a macvlan of the card",
            Self::Vlan => "on VLAN 100 of the card",
            Self::Bond => "on a bond of the card",
            Self::Lo => "the VTEP is on the loopback, with a route to each other one",
            Self::Tun => "on a TUN device, with UDP in user space behind it, as VPNs have it",
        }
    }

    /// The device by which tunnel packets arrive, which is what `underlay` names.
    pub const fn device(self) -> &'static str {
        match self {
            Self::Card | Self::Lo => UNDERLAY,
            Self::Bridge => "br-up",
            Self::Macvlan => "macvlan1",
            Self::Vlan => "vlan100",
            Self::Bond => "bond1",
            Self::Tun => "tun1",
        }
    }
}

impl fmt::Display for Uplink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Uplink {
    type Err = Unknown;

    fn from_str(text: &str) -> Result<Self, Unknown> {
        Self::ALL
            .into_iter()
            .find(|uplink| uplink.name() == text)
            .ok_or_else(|| Unknown(text.to_owned()))
    }
}
