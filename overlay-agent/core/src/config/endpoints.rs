//! Endpoints.

use std::{collections::BTreeMap, net::IpAddr, path::Path};

use toml::Spanned;

use super::{Report, error::Fault, networks::unique, raw, sources, subnets::no_such_family};
use crate::model::{Cluster, Endpoint, Family, IfName, InvalidValue, Name, NetnsRef, Network};

/// The interface name that containers expect.
const DEFAULT_INTERFACE: &str = "eth0";

pub(super) fn validate(
    raw: &[Spanned<raw::Endpoint>],
    raw_networks: &[Spanned<raw::Network>],
    cluster: Option<&Cluster>,
    networks: &[Network],
    report: &mut Report<'_>,
) -> Vec<Endpoint> {
    let mut names = BTreeMap::new();
    let mut addresses = BTreeMap::new();
    let mut interfaces = BTreeMap::new();
    let mut endpoints = Vec::with_capacity(raw.len());
    for (index, raw) in raw.iter().enumerate() {
        let field = format!("endpoints[{index}]");
        let (span, raw) = (raw.span(), raw.get_ref());
        let network = raw.network.get_ref();
        // One of the cluster's network waits for it.
        let known = cluster.is_some_and(|cluster| cluster.network.as_str() == network);
        if !known
            && !raw_networks
                .iter()
                .any(|raw| raw.get_ref().name.get_ref() == network)
        {
            report.add(
                raw.network.span(),
                format!("{field}.network"),
                Fault::NoSuchNetwork(network.clone()),
            );
        }
        let Some(endpoint) = endpoint(raw, &field, networks, &endpoints, report) else {
            continue;
        };
        unique(
            &mut names,
            endpoint.name.clone(),
            "endpoint name",
            raw.name.span(),
            format!("{field}.name"),
            report,
        );
        if let Some(raw) = &raw.address {
            for &address in &endpoint.addresses {
                unique(
                    &mut addresses,
                    address,
                    "address",
                    raw.span(),
                    format!("{field}.address"),
                    report,
                );
            }
        }
        let place = format!(
            "{} in {}",
            endpoint.interface,
            endpoint.netns.path().display()
        );
        unique(&mut interfaces, place, "interface", span, field, report);
        endpoints.push(endpoint);
    }
    endpoints
}

fn endpoint(
    raw: &raw::Endpoint,
    field: &str,
    networks: &[Network],
    others: &[Endpoint],
    report: &mut Report<'_>,
) -> Option<Endpoint> {
    let name = endpoint_name(raw.name.get_ref())
        .map_err(|fault| report.add(raw.name.span(), format!("{field}.name"), fault))
        .ok();
    let netns = netns(raw, field, report);
    let interface: Option<IfName> = match &raw.interface {
        Some(raw) => report.value(raw, format!("{field}.interface")),
        None => DEFAULT_INTERFACE.parse().ok(),
    };
    // A network that is there but wrong has been reported; nothing can be said of its addresses.
    let network = networks
        .iter()
        .find(|network| network.name.as_str() == raw.network.get_ref())?;
    let addresses = match &raw.address {
        None => Some(Vec::new()),
        Some(raw) => addresses(raw, &format!("{field}.address"), network, report),
    };
    let allowed_sources = sources::validate(raw, field, network, networks, others, report);
    Some(Endpoint {
        name: name?,
        network: network.name.clone(),
        netns: netns?,
        addresses: addresses?,
        interface: interface?,
        forwarding: raw.forwarding,
        allowed_sources,
        mac: None,
        attachment: None,
    })
}

fn netns(raw: &raw::Endpoint, field: &str, report: &mut Report<'_>) -> Option<NetnsRef> {
    match (&raw.netns, &raw.pid) {
        (Some(netns), None) => netns_ref(netns.get_ref())
            .map_err(|fault| report.add(netns.span(), format!("{field}.netns"), fault))
            .ok(),
        (None, Some(pid)) if *pid.get_ref() == 0 => {
            report.add(pid.span(), format!("{field}.pid"), Fault::Pid);
            None
        }
        (None, Some(pid)) => Some(NetnsRef::Pid(*pid.get_ref())),
        (None, None) => {
            let fault = Fault::NetnsOrPid("add netns = \"NAME\", which is made if it is not there");
            report.add(raw.name.span(), field, fault);
            None
        }
        (Some(_), Some(pid)) => {
            report.add(pid.span(), field, Fault::NetnsOrPid("remove one of them"));
            None
        }
    }
}

/// A name that no command takes for anything but the endpoint.
pub fn endpoint_name(text: &str) -> Result<Name, Fault> {
    let taken = if text == Endpoint::NODE {
        "the node itself"
    } else if text.parse::<IpAddr>().is_ok() {
        "an address"
    } else {
        return Ok(text.parse()?);
    };
    let name = text.to_owned();
    Err(Fault::EndpointName { name, taken })
}

/// A bare word is a name, an absolute path is a path.
pub fn netns_ref(path: &Path) -> Result<NetnsRef, Fault> {
    if path.is_absolute() {
        return Ok(NetnsRef::Path(path.to_owned()));
    }
    path.to_str()
        .and_then(|text| text.parse().ok())
        .map(NetnsRef::Name)
        .ok_or_else(|| Fault::NetnsPath(path.to_owned()))
}

fn addresses(
    raw: &Spanned<raw::OneOrMany>,
    field: &str,
    network: &Network,
    report: &mut Report<'_>,
) -> Option<Vec<IpAddr>> {
    let texts = raw.get_ref().as_slice();
    if texts.is_empty() {
        let fault = Fault::Number {
            what: "address",
            takes: "at least one address",
            given: 0,
            cure: "leave the field out to get the next free one",
        };
        report.add(raw.span(), field, fault);
        return None;
    }
    endpoint_addresses(texts, network)
        .map_err(|fault| report.add(raw.span(), field, fault))
        .ok()
}

/// Addresses that an endpoint of this network on this node can have, at most one of a family.
pub fn endpoint_addresses(texts: &[String], network: &Network) -> Result<Vec<IpAddr>, Fault> {
    let mut addresses: Vec<IpAddr> = Vec::new();
    for text in texts {
        let address = endpoint_address(text, network)?;
        let family = Family::of(address);
        if let Some(first) = addresses.iter().find(|other| Family::of(**other) == family) {
            return Err(Fault::TwoOfFamily {
                what: "an endpoint",
                family,
                first: first.to_string(),
                second: address.to_string(),
            });
        }
        addresses.push(address);
    }
    addresses.sort();
    Ok(addresses)
}

fn endpoint_address(text: &str, network: &Network) -> Result<IpAddr, Fault> {
    let address: IpAddr = text.parse().map_err(|_| Fault::Address(text.to_owned()))?;
    let family = Family::of(address);
    let range = network
        .range(family)
        .ok_or_else(|| no_such_family(&address, family))?;
    let (first, last) = range.endpoints();
    // A subnet without room for one has been reported; nothing can be said of its addresses.
    if first > last || (first..=last).contains(&address) {
        return Ok(address);
    }
    Err(Fault::NotForEndpoints {
        address,
        subnet: range.subnet,
        first,
        last,
    })
}

/// An interface name given on the command line, or the default.
pub fn interface(name: Option<&str>) -> Result<IfName, InvalidValue> {
    name.unwrap_or(DEFAULT_INTERFACE).parse()
}
