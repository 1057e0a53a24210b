//! Addresses, which Docker wants to know before there is a container.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use overlay_api::{Hold, Offer, Request, client::Agent};
use serde_json::{Value, json};

use crate::{
    protocol::{OfAddress, RequestPool, understood},
    trouble::Trouble,
};

/// Marks an address pool as ours.
pub(crate) const SPACE: &str = "overlay";

/// The addresses of one family of a network, as Docker names them when it asks for one.
#[derive(Debug, PartialEq, Eq)]
struct Pool {
    instance: String,
    network: String,
    v6: bool,
}

impl Pool {
    fn name(&self) -> String {
        let family = if self.v6 { "6" } else { "4" };
        format!("{}/{}/{family}", self.instance, self.network)
    }

    fn of(name: &str) -> Result<Self, Trouble> {
        let parts: Vec<&str> = name.split('/').collect();
        match parts.as_slice() {
            &[instance, network, family @ ("4" | "6")] => Ok(Self {
                instance: instance.to_owned(),
                network: network.to_owned(),
                v6: family == "6",
            }),
            _ => Err(Trouble::Pool(name.to_owned())),
        }
    }

    fn agent(&self) -> Result<Agent, Trouble> {
        Ok(Agent::find(Some(&self.instance))?)
    }

    /// The node's address.
    fn gateway(&self) -> Result<IpNet, Trouble> {
        let offers = self.agent()?.networks()?;
        let offer = offers.iter().find(|offer| offer.network == self.network);
        let gateway = offer.and_then(|offer| of_family(offer, self.v6));
        gateway.ok_or_else(|| Trouble::Pool(self.name()))
    }
}

fn of_family(offer: &Offer, v6: bool) -> Option<IpNet> {
    let mut gateways = offer.gateways.iter().copied();
    gateways.find(|gateway| matches!(gateway, IpNet::V6(_)) == v6)
}

/// The network that is meant: by its name, by its subnets, or because it is the only one.
pub(crate) fn chosen<'a>(
    offers: &'a [Offer],
    name: Option<&str>,
    subnets: &[IpNet],
) -> Result<&'a Offer, Trouble> {
    let has = |offer: &Offer, subnet: &IpNet| {
        let mut gateways = offer.gateways.iter();
        gateways.any(|gateway| gateway.trunc() == *subnet)
    };
    let has_all = |offer: &&Offer| subnets.iter().all(|subnet| has(offer, subnet));
    let named = |offer: &&Offer| name.is_none_or(|name| offer.network == name);
    let candidates: Vec<&Offer> = offers.iter().filter(named).collect();
    let fitting: Vec<&Offer> = candidates.iter().copied().filter(has_all).collect();
    match (fitting.as_slice(), candidates.as_slice()) {
        ([only], _) => Ok(only),
        ([], [only]) => Err(Trouble::OtherSubnet {
            network: only.network.clone(),
            asked: list(subnets.iter()),
            has: list(only.gateways.iter().map(IpNet::trunc)),
        }),
        _ => Err(Trouble::WhichNetwork {
            networks: list(offers.iter().map(|offer| &offer.network)),
        }),
    }
}

fn list(all: impl Iterator<Item = impl ToString>) -> String {
    let all: Vec<String> = all.map(|it| it.to_string()).collect();
    if all.is_empty() {
        "none".to_owned()
    } else {
        all.join(", ")
    }
}

/// The options that there are, of a network as well as of its addresses.
pub(crate) fn known_only(options: &BTreeMap<String, String>) -> Result<(), Trouble> {
    let mut names = options.keys();
    match names.find(|name| !matches!(name.as_str(), "network" | "instance")) {
        Some(name) => Err(Trouble::Option(name.clone())),
        None => Ok(()),
    }
}

pub(crate) fn address_spaces() -> Value {
    json!({ "LocalDefaultAddressSpace": SPACE, "GlobalDefaultAddressSpace": SPACE })
}

pub(crate) fn request_pool(question: &Value) -> Result<Value, Trouble> {
    let asked: RequestPool = understood(question)?;
    known_only(&asked.options)?;
    if !asked.sub_pool.is_empty() {
        return Err(Trouble::Part);
    }
    let option = |name: &str| asked.options.get(name).map(String::as_str);
    let subnet = match asked.pool.as_str() {
        "" => None,
        pool => Some(
            pool.parse::<IpNet>()
                .map_err(|error| Trouble::Question(format!("pool {pool:?}: {error}")))?,
        ),
    };
    let agent = Agent::find(option("instance"))?;
    let offers = agent.networks()?;
    let offer = chosen(&offers, option("network"), subnet.as_slice())?;
    let gateway = of_family(offer, asked.v6).ok_or_else(|| Trouble::OtherSubnet {
        network: offer.network.clone(),
        asked: if asked.v6 { "of IPv6" } else { "of IPv4" }.to_owned(),
        has: list(offer.gateways.iter().map(IpNet::trunc)),
    })?;
    let pool = Pool {
        instance: agent.instance().to_owned(),
        network: offer.network.clone(),
        v6: asked.v6,
    };
    Ok(json!({
        "PoolID": pool.name(),
        "Pool": gateway.trunc(),
        "Data": { "com.docker.network.gateway": gateway },
    }))
}

pub(crate) fn request_address(question: &Value) -> Result<Value, Trouble> {
    let asked: OfAddress = understood(question)?;
    let pool = Pool::of(&asked.pool)?;
    let address = asked.address()?;
    if asked.is_gateway() {
        let is = pool.gateway()?;
        return match address {
            Some(asked) if asked != is.addr() => Err(Trouble::Gateway { asked, is }),
            _ => Ok(json!({ "Address": is })),
        };
    }
    let agent = pool.agent()?;
    let free = agent.hold(Hold {
        network: pool.network,
        v6: pool.v6,
        address,
    })?;
    Ok(json!({ "Address": free }))
}

/// A release that the agent does not hear of is made up for by the hold's expiry.
pub(crate) fn release_address(question: &Value) -> Result<Value, Trouble> {
    let asked: OfAddress = understood(question)?;
    if let Some(address) = asked.address()? {
        release(&asked.pool, address);
    }
    Ok(json!({}))
}

fn release(pool: &str, address: IpAddr) {
    let told = Pool::of(pool).and_then(|pool| {
        let request = Request::AddressRelease { address };
        Ok(pool.agent()?.tell(&request)?)
    });
    if let Err(trouble) = told {
        eprintln!("overlay-docker: give back address {address}: {trouble}");
    }
}

#[cfg(test)]
mod tests {
    use overlay_api::Offer;

    use super::{Pool, chosen};

    fn offers() -> Vec<Offer> {
        let offer = |name: &str, gateways: &[&str]| Offer {
            network: name.to_owned(),
            gateways: gateways.iter().map(|it| it.parse().unwrap()).collect(),
        };
        vec![
            offer("a", &["10.1.1.1/24"]),
            offer("b", &["10.2.1.1/24", "fd00:2::1/64"]),
        ]
    }

    #[test]
    fn a_pool_is_known_by_its_name() {
        let pool = Pool::of("node-1/lab/6").unwrap();
        assert_eq!(pool.network, "lab");
        assert!(pool.v6);
        assert_eq!(pool.name(), "node-1/lab/6");
        for other in ["", "lab", "a/b/5", "a/b/4/c", "LocalDefault/172.17.0.0/16"] {
            assert!(Pool::of(other).is_err(), "{other:?}");
        }
    }

    #[test]
    fn a_network_is_chosen_by_name_by_subnet_or_because_it_is_alone() {
        let offers = offers();
        let chosen = |name, subnets: &[&str]| {
            let subnets: Vec<_> = subnets.iter().map(|it| it.parse().unwrap()).collect();
            chosen(&offers, name, &subnets).map(|offer| offer.network.as_str())
        };
        assert_eq!(chosen(Some("a"), &[]).unwrap(), "a");
        assert_eq!(chosen(None, &["10.2.1.0/24"]).unwrap(), "b");
        assert_eq!(chosen(None, &["fd00:2::/64", "10.2.1.0/24"]).unwrap(), "b");
        let text = |name, subnets| chosen(name, subnets).unwrap_err().to_string();
        assert!(text(None, &[]).contains("a, b"));
        assert!(text(Some("c"), &[]).contains("a, b"));
        assert!(text(Some("a"), &["10.2.1.0/24"]).contains("10.1.1.0/24"));
        assert!(super::chosen(&offers[..1], None, &[]).is_ok());
    }
}
