//! The names of one network.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use hickory_proto::rr::{LowerName, Name};
use ipnet::IpNet;

/// A domain that networks have their names in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone(LowerName);

/// Text that is no such domain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a domain; take one that nobody else has, such as \"overlay.internal\"")]
pub struct InvalidZone(String);

impl FromStr for Zone {
    type Err = InvalidZone;

    fn from_str(text: &str) -> Result<Self, InvalidZone> {
        let invalid = || InvalidZone(text.to_owned());
        let mut name = Name::from_ascii(text).map_err(|_| invalid())?;
        name.set_fqdn(true);
        // Room is left for a network's name and a container's.
        if name.is_root() || name.len() > 120 || name.is_wildcard() {
            return Err(invalid());
        }
        Ok(Self(LowerName::new(&name)))
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.to_string().trim_end_matches('.'))
    }
}

impl Zone {
    /// The part of a network, whose name it has in front.
    pub fn of_network(&self, network: &str) -> Option<Self> {
        let within = Name::from_ascii(network).ok()?;
        let name = within.append_domain(&self.0).ok()?;
        Some(Self(LowerName::new(&name)))
    }

    pub(crate) fn name(&self) -> &LowerName {
        &self.0
    }
}

/// The names of one network, and the servers for all others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    /// The zone of all networks' names.
    pub(crate) origin: Zone,
    pub(crate) zone: Zone,
    pub(crate) ranges: Vec<IpNet>,
    pub(crate) hosts: BTreeMap<LowerName, Vec<IpAddr>>,
    pub(crate) names: BTreeMap<IpAddr, LowerName>,
    /// Gateways of peers, where they answer.
    pub(crate) peers: Vec<IpAddr>,
    /// The servers for all other names.
    pub(crate) forward: Vec<SocketAddr>,
}

impl Room {
    /// An empty one; none where the network's name can be no part of a domain.
    pub fn new(
        origin: Zone,
        network: &str,
        ranges: Vec<IpNet>,
        peers: Vec<IpAddr>,
        forward: Vec<SocketAddr>,
    ) -> Option<Self> {
        Some(Self {
            zone: origin.of_network(network)?,
            origin,
            ranges,
            hosts: BTreeMap::new(),
            names: BTreeMap::new(),
            peers,
            forward,
        })
    }

    /// The domain that its containers' names are in.
    pub fn zone(&self) -> &Zone {
        &self.zone
    }

    /// Gives addresses a name, besides others that they may have; of several, the first is told
    /// to who asks for the name of an address. Text that can be no name of a host is left out.
    pub fn add(&mut self, host: &str, addresses: &[IpAddr]) {
        let labels = Name::from_ascii(host).ok().filter(|it| !it.is_root());
        let Some(labels) = labels.filter(|it| !it.is_wildcard()) else {
            return;
        };
        let mut labels = labels;
        labels.set_fqdn(false);
        let Ok(name) = labels.append_domain(self.zone.name()) else {
            return;
        };
        let name = LowerName::new(&name);
        for address in addresses {
            self.names.entry(*address).or_insert_with(|| name.clone());
            let known = self.hosts.entry(name.clone()).or_default();
            if !known.contains(address) {
                known.push(*address);
            }
        }
    }

    /// Whether somebody is of this network.
    pub(crate) fn is_home_of(&self, address: IpAddr) -> bool {
        self.ranges.iter().any(|range| range.contains(&address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_is_a_domain() {
        for text in ["overlay.internal", "Overlay.Internal."] {
            let zone: Zone = text.parse().unwrap();
            assert_eq!(zone.to_string(), "overlay.internal");
            assert_eq!(
                zone.of_network("lab").unwrap().to_string(),
                "lab.overlay.internal"
            );
        }
        for text in ["", ".", "a..b", "*.a", &"a.".repeat(100)] {
            assert!(text.parse::<Zone>().is_err(), "{text}");
        }
    }
}
