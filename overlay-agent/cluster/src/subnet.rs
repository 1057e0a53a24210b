//! The subnet of a node, as it stands in the keys of flannel's leases.

use std::{fmt, str::FromStr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// A node's subnet: always IPv4, and IPv6 beside it in a network that has both.
///
/// Written `10.5.7.0-24` or `10.5.7.0-24&fd00:6:0:7::-64` (flannel, `pkg/subnet/subnet.go`,
/// `MakeSubnetKey`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subnet {
    /// The IPv4 part.
    pub v4: Ipv4Net,
    /// The IPv6 part.
    pub v6: Option<Ipv6Net>,
}

/// A key that flannel would not have written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a subnet; flannel writes 10.5.7.0-24, or 10.5.7.0-24&fd00:6:0:7::-64")]
pub struct InvalidKey(String);

impl Subnet {
    /// Whether two nodes could not have these at the same time.
    pub fn overlaps(&self, other: &Self) -> bool {
        let v4 = self.v4.contains(&other.v4) || other.v4.contains(&self.v4);
        let v6 = self.v6.zip(other.v6);
        v4 || v6.is_some_and(|(one, other)| one.contains(&other) || other.contains(&one))
    }

    /// Its prefixes, IPv4 first.
    pub fn prefixes(&self) -> impl Iterator<Item = IpNet> {
        let v6 = self.v6.map(IpNet::V6);
        [Some(IpNet::V4(self.v4)), v6].into_iter().flatten()
    }

    /// From one or two prefixes, one of each family; `None` without IPv4.
    pub fn of(prefixes: &[IpNet]) -> Option<Self> {
        let v4 = prefixes.iter().find_map(|prefix| match prefix {
            IpNet::V4(prefix) => Some(*prefix),
            IpNet::V6(_) => None,
        })?;
        let v6 = prefixes.iter().find_map(|prefix| match prefix {
            IpNet::V6(prefix) => Some(*prefix),
            IpNet::V4(_) => None,
        });
        Some(Self { v4, v6 })
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.v4.addr(), self.v4.prefix_len())?;
        if let Some(v6) = self.v6 {
            write!(f, "&{}-{}", v6.addr(), v6.prefix_len())?;
        }
        Ok(())
    }
}

impl FromStr for Subnet {
    type Err = InvalidKey;

    /// Stricter than flannel, whose expression is not anchored: what follows from a key must be
    /// the key again, or two keys would stand for one subnet.
    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        let parse = || {
            let (v4, v6) = match text.split_once('&') {
                Some((v4, v6)) => (v4, Some(v6)),
                None => (text, None),
            };
            let v4: Ipv4Net = v4.replacen('-', "/", 1).parse().ok()?;
            let v6: Option<Ipv6Net> = match v6 {
                Some(v6) => Some(v6.replacen('-', "/", 1).parse().ok()?),
                None => None,
            };
            Some(Self { v4, v6 })
        };
        let proper = |subnet: &Self| {
            let v6 = subnet
                .v6
                .is_none_or(|v6| v6.trunc() == v6 && fits(v6.prefix_len(), 127));
            v6 && subnet.v4.trunc() == subnet.v4 && fits(subnet.v4.prefix_len(), 31)
        };
        parse()
            .filter(|subnet| proper(subnet) && subnet.to_string() == text)
            .ok_or_else(|| InvalidKey(text.to_owned()))
    }
}

/// flannel reads lengths with 5 and 7 bits.
fn fits(length: u8, longest: u8) -> bool {
    (1..=longest).contains(&length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Subnet;

    #[test]
    fn keys_are_flannels() {
        for key in ["10.5.7.0-24", "10.5.7.0-24&fd00:6:0:7::-64", "10.5.7.8-29"] {
            let subnet: Subnet = key.parse().unwrap();
            assert_eq!(subnet.to_string(), key);
        }
    }

    #[test]
    fn what_flannel_would_not_write_is_refused() {
        let keys = [
            "",
            "10.5.7.0",
            "10.5.7.0/24",
            "10.5.7.1-24",
            "010.5.7.0-24",
            "10.5.7.0-024",
            "10.5.7.0-32",
            "0.0.0.0-0",
            "10.5.7.0-24&",
            "10.5.7.0-24&FD00:6:0:7::-64",
            "10.5.7.0-24&fd00:6:0:7:0::-64",
            "10.5.7.0-24&fd00:6:0:7::1-64",
            "fd00:6:0:7::-64",
            "10.5.7.0-24 ",
            "a/10.5.7.0-24",
        ];
        for key in keys {
            assert!(key.parse::<Subnet>().is_err(), "{key:?}");
        }
    }

    proptest! {
        #[test]
        fn no_key_makes_it_fail_and_what_is_read_is_written_alike(key in "[0-9a-f.:&/-]{0,40}") {
            if let Ok(subnet) = key.parse::<Subnet>() {
                prop_assert_eq!(subnet.to_string(), key);
            }
        }
    }
}
