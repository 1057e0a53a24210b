//! Which of the two Internet protocols is spoken.

use std::{fmt, net::IpAddr, str::FromStr};

use serde::{Deserialize, Serialize};

/// One Internet protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// The name of its layer in tshark's output.
    pub const fn layer(self) -> &'static str {
        match self {
            Self::V4 => "ip",
            Self::V6 => "ipv6",
        }
    }

    /// Bytes of its header without options.
    pub const fn header(self) -> u16 {
        match self {
            Self::V4 => 20,
            Self::V6 => 40,
        }
    }
}

/// One of them, or both side by side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Families {
    /// IPv4 alone.
    #[default]
    #[serde(rename = "4")]
    V4,
    /// IPv6 alone.
    #[serde(rename = "6")]
    V6,
    /// Dual stack.
    #[serde(rename = "both")]
    Both,
}

/// No families of this name.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a choice of protocols: use 4, 6 or both")]
pub struct Unknown(String);

impl Families {
    /// Every choice.
    pub const ALL: [Self; 3] = [Self::V4, Self::V6, Self::Both];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V4 => "4",
            Self::V6 => "6",
            Self::Both => "both",
        }
    }

    /// The name in a sentence.
    pub const fn text(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
            Self::Both => "IPv4 and IPv6",
        }
    }

    /// The families, IPv4 first.
    pub const fn all(self) -> &'static [Family] {
        match self {
            Self::V4 => &[Family::V4],
            Self::V6 => &[Family::V6],
            Self::Both => &[Family::V4, Family::V6],
        }
    }

    /// Whether a family is spoken.
    pub fn has(self, family: Family) -> bool {
        self.all().contains(&family)
    }
}

impl fmt::Display for Families {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Families {
    type Err = Unknown;

    fn from_str(text: &str) -> Result<Self, Unknown> {
        Self::ALL
            .into_iter()
            .find(|families| families.name() == text)
            .ok_or_else(|| Unknown(text.to_owned()))
    }
}
