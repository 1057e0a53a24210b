//! The configuration together with what was added at run time.

use std::net::IpAddr;

use foldhash::{HashMap, HashSet};

use super::Content;
use crate::model::{Clash, Endpoint, IfName, Model, Name, NetnsRef, taken};

impl Content {
    /// The model of the configuration with the endpoints that were added at run time.
    ///
    /// A container that runs keeps its name, its interface and its addresses: an endpoint of the
    /// configuration that wants one of them for another container is left out. Where both mean the
    /// same interface the configuration counts, and where a prefix behind an endpoint is somebody
    /// else's meanwhile. An endpoint of a network that is gone is left out until that is back, and
    /// so is one with an address of a subnet that the node has not any more.
    pub fn complete(&self, mut model: Model) -> Model {
        let mut clashes = Vec::new();
        let mut added = Vec::new();
        for endpoint in &self.endpoints {
            match without_place(endpoint, &model) {
                Some(clash) => clashes.push(clash),
                None => added.push(endpoint),
            }
        }
        if !model.endpoints.is_empty() {
            let taken = Taken::by(&added, self);
            model.endpoints.retain(|configured| {
                let clash = taken.clash(configured);
                let fits = clash.is_none();
                clashes.extend(clash);
                fits
            });
        }
        model.clashes = clashes;
        let configured = model.endpoints.iter();
        let configured: HashSet<Name> = configured.map(|endpoint| endpoint.name.clone()).collect();
        for endpoint in added {
            if configured.contains(&endpoint.name) {
                continue;
            }
            let mut endpoint = endpoint.clone();
            if let Some(network) = model.network(&endpoint.network) {
                endpoint.allowed_sources.retain(|prefix| {
                    taken(*prefix, network, &model.networks, &model.endpoints).is_none()
                });
            }
            model.endpoints.push(endpoint);
        }
        model
    }
}

/// Why an endpoint that was added at run time has no place in its network any more.
fn without_place(added: &Endpoint, model: &Model) -> Option<Clash> {
    let (endpoint, network) = (added.name.clone(), added.network.clone());
    let netns = added.netns.clone();
    let Some(there) = model.network(&added.network) else {
        return Some(Clash::Network {
            endpoint,
            network,
            netns,
        });
    };
    let is_outside = |address: &IpAddr| {
        let mut ranges = there.ranges.iter();
        !ranges.any(|range| range.subnet.contains(address))
    };
    let address = added.addresses.iter().copied().find(is_outside)?;
    Some(Clash::Subnet {
        endpoint,
        network,
        address,
        netns,
    })
}

/// Addresses and names of containers that were added at run time.
struct Taken<'a> {
    names: HashMap<&'a Name, &'a Endpoint>,
    interfaces: HashMap<(&'a NetnsRef, IfName), &'a Name>,
    addresses: HashMap<(&'a Name, IpAddr), &'a Name>,
}

impl<'a> Taken<'a> {
    fn by(added: &[&'a Endpoint], content: &'a Content) -> Self {
        let given = |endpoint: &&'a Endpoint| {
            let (network, by) = (&endpoint.network, &endpoint.name);
            let given = content.allocations.get(by).into_iter();
            let addresses = given.flat_map(|given| given.addresses.iter().copied());
            addresses.map(move |address| ((network, address), by))
        };
        let interface = |endpoint: &&'a Endpoint| {
            let place = (&endpoint.netns, endpoint.interface);
            (place, &endpoint.name)
        };
        Self {
            names: added.iter().map(|one| (&one.name, *one)).collect(),
            interfaces: added.iter().map(interface).collect(),
            addresses: added.iter().flat_map(given).collect(),
        }
    }

    /// A value of a configured endpoint that another container has.
    fn clash(&self, configured: &Endpoint) -> Option<Clash> {
        let endpoint = configured.name.clone();
        let interface = configured.interface;
        if let Some(added) = self.names.get(&configured.name) {
            let same = configured.netns == added.netns
                && interface == added.interface
                && configured.network == added.network;
            if !same {
                let netns = added.netns.clone();
                return Some(Clash::Name { endpoint, netns });
            }
        }
        let other = |by: &&Name| **by != configured.name;
        let place = (&configured.netns, interface);
        if let Some(by) = self.interfaces.get(&place).copied().filter(other) {
            return Some(Clash::Interface {
                endpoint,
                interface,
                by: by.clone(),
            });
        }
        configured.addresses.iter().find_map(|&address| {
            let by = self.addresses.get(&(&configured.network, address));
            let by = by.copied().filter(other)?;
            Some(Clash::Address {
                endpoint: endpoint.clone(),
                address,
                by: by.clone(),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::Content;
    use crate::{
        config,
        model::{Clash, Model, NetnsRef},
    };

    fn model(network: &str, endpoints: &str) -> Model {
        let text = format!(
            "[node]\nname = \"n\"\nunderlay = \"eth1\"\n[[networks]]\nname = \"{network}\"\nvni = 1\n\
             cidr = \"10.0.0.0/8\"\nsubnet = \"10.1.1.0/24\"\n{endpoints}"
        );
        config::parse(Path::new("t.toml"), &text).unwrap()
    }

    fn endpoint(name: &str, netns: &str, more: &str) -> String {
        format!(
            "[[endpoints]]\nname = \"{name}\"\nnetwork = \"lab\"\nnetns = \"{netns}\"\n{more}\n"
        )
    }

    /// A node to which `rt` was added at run time, with 10.1.1.2.
    fn content() -> Content {
        let mut content = Content::new("n".parse().unwrap());
        let added = model("lab", &endpoint("rt", "own", ""));
        content.endpoints = added.endpoints.clone();
        content.allocate(&added);
        content
    }

    #[test]
    fn a_container_that_runs_keeps_what_the_configuration_wants_for_another() {
        let content = content();
        let clashes = |text: &str| content.complete(model("lab", text)).clashes;
        let named = |text: &str| {
            let complete = content.complete(model("lab", text));
            let names = complete.endpoints.iter();
            names
                .map(|endpoint| endpoint.name.to_string())
                .collect::<Vec<_>>()
        };
        let other = endpoint("rt", "other", "");
        assert_eq!(
            clashes(&other),
            [Clash::Name {
                endpoint: "rt".parse().unwrap(),
                netns: NetnsRef::Name("own".parse().unwrap()),
            }]
        );
        let taken = endpoint("file", "other", "address = \"10.1.1.2\"");
        assert!(matches!(&clashes(&taken)[..], [Clash::Address { by, .. }] if by.as_str() == "rt"));
        let interface = endpoint("file", "own", "");
        assert!(matches!(
            &clashes(&interface)[..],
            [Clash::Interface { .. }]
        ));
        for text in [&other, &taken, &interface] {
            assert_eq!(named(text), ["rt"]);
        }
        // The same container, and one beside it.
        let both = endpoint("rt", "own", "") + &endpoint("file", "other", "");
        assert_eq!(clashes(&both), []);
        assert_eq!(named(&both), ["rt", "file"]);
    }

    #[test]
    fn an_endpoint_waits_for_the_subnet_that_its_address_is_of() {
        let mut content = content();
        let asked = "10.1.1.9".parse().unwrap();
        content.endpoints[0].addresses = vec![asked];
        content.allocate(&content.clone().complete(model("lab", "")));
        let mut moved = model("lab", "");
        let range = &mut moved.networks[0].ranges[0];
        range.subnet = "10.1.2.0/24".parse().unwrap();
        let other = content.complete(moved);
        assert!(
            matches!(&other.clashes[..], [Clash::Subnet { address, .. }] if *address == asked),
            "{:?}",
            other.clashes
        );
        assert!(other.endpoints.is_empty());
        content.allocate(&other);
        let back = content.complete(model("lab", ""));
        assert_eq!((back.endpoints.len(), &*back.clashes), (1, &[][..]));
    }

    #[test]
    fn an_endpoint_gets_its_address_back_with_its_network() {
        let mut content = content();
        let other = content.complete(model("other", ""));
        assert!(matches!(&other.clashes[..], [Clash::Network { .. }]));
        assert!(other.endpoints.is_empty());
        let before = content.allocations.clone();
        content.allocate(&other);
        assert_eq!(content.allocations, before);
    }
}
