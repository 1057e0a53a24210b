//! From a file to a [`Model`]: everything is checked, all that is wrong is told at once.

mod cluster;
mod endpoints;
mod error;
mod files;
mod fragments;
mod networks;
mod peers;
mod plain;
mod raw;
mod refused;
mod roll;
mod sources;
mod subnets;
mod syntax;
mod taken;
mod text;

use std::{net::IpAddr, ops::Range, path::Path};

use self::{peers::Own, plain::Plain};
use crate::model::{
    DeviceName, Family, Guard, Metrics, Model, Name, Names, Node, Probe, Rx, Underlay,
};

pub use endpoints::{endpoint_addresses, endpoint_name, interface, netns_ref};
pub use error::{Fault, Faults, Located};
pub use files::Taken;
pub use files::folder_of;
pub use files::{Files, Loaded, PEERS_FOLDER};
pub(crate) use peers::can_be_vtep;
pub use refused::ConfigError;
pub use roll::PeerChange;
pub use sources::endpoint_sources;
pub use text::text;

/// Validates the text of a configuration file; `path` is for the messages only.
pub fn parse(path: &Path, text: &str) -> Result<Model, Faults> {
    Ok(parse_with(path, text, None)?.0)
}

/// The same with the path and the text of the fragment of the cluster, if the file has one; a
/// fragment that is refused leaves its network out.
pub(crate) fn parse_with(
    path: &Path,
    text: &str,
    fragment: Option<(&Path, &str)>,
) -> Result<(Model, Option<Faults>), Faults> {
    let plain = Plain::of(text);
    let mut report = Report {
        plain: &plain,
        faults: Vec::new(),
    };
    let model = toml::from_str(&plain.rest)
        .map_err(|error| report.syntax(&error))
        .ok()
        .and_then(|raw| validate(&raw, &plain, fragment, &mut report));
    report.faults.sort_by_key(|fault| fault.line);
    match model {
        Some(model) if report.faults.is_empty() => Ok(model),
        _ => Err(Faults {
            path: path.to_owned(),
            faults: report.faults,
        }),
    }
}

/// The name of the node, of a text that may still be wrong elsewhere.
pub fn node_name(text: &str) -> Option<Name> {
    let table: toml::Table = text.parse().ok()?;
    table.get("node")?.get("name")?.as_str()?.parse().ok()
}

fn validate(
    raw: &raw::Config,
    plain: &Plain<'_>,
    fragment: Option<(&Path, &str)>,
    report: &mut Report<'_>,
) -> Option<(Model, Option<Faults>)> {
    let mut node = node(&raw.node, report);
    if let (Some(node), Some(raw)) = (&mut node, &raw.names) {
        node.names = names(raw, report);
    }
    let own_vteps = node.as_ref().map(Node::configured_vteps);
    let own_vteps = own_vteps.unwrap_or_default();
    let own = Own {
        name: Some(raw.node.name.get_ref()),
        vteps: &own_vteps,
    };
    let mut networks = networks::validate(&raw.networks, plain, own, report);
    let cluster = raw.cluster.as_ref();
    let cluster = cluster.and_then(|raw| cluster::section(raw.get_ref(), report));
    let mut refused = None;
    if let (Some(raw), Some(cluster)) = (&raw.cluster, &cluster) {
        if networks.iter().any(|other| other.name == cluster.network) {
            let fault = Fault::Duplicate {
                what: "network name",
                value: cluster.network.to_string(),
                first: "one of [[networks]]".to_owned(),
            };
            report.add(raw.get_ref().network.span(), "cluster.network", fault);
        } else if let Some(fragment) = fragment {
            match cluster::network(fragment, cluster, &networks, &own_vteps) {
                Ok(network) => networks.push(network),
                Err(faults) => refused = Some(faults),
            }
            networks.sort_by_key(|network| network.vni);
        }
    }
    let endpoints = endpoints::validate(
        &raw.endpoints,
        &raw.networks,
        cluster.as_ref(),
        &networks,
        report,
    );
    let model = Model {
        node: node?,
        cluster,
        networks,
        endpoints,
        clashes: Vec::new(),
    };
    Some((model, refused))
}

fn node(raw: &raw::Node, report: &mut Report<'_>) -> Option<Node> {
    let name = report.value::<Name>(&raw.name, "node.name");
    let underlay = underlay(&raw.underlay, report);
    let vteps = match &raw.vtep {
        Some(raw) => vteps(raw, underlay.as_ref(), report),
        None => Some(Vec::new()),
    };
    let rx = raw.rx.as_ref().map_or(Rx::Tc, |rx| *rx.get_ref());
    if let Some(raw) = raw.rx.as_ref().filter(|_| raw.guard != Guard::Native)
        && rx == Rx::Xdp
    {
        report.add(raw.span(), "node.rx", Fault::RxWithoutGuard);
    }
    let metrics = match &raw.metrics {
        Some(raw) => report.value(raw, "node.metrics"),
        None => Some(Metrics::default()),
    };
    let probe = match &raw.probe {
        Some(raw) => report.value(raw, "node.probe"),
        None => Some(Probe::default()),
    };
    Some(Node {
        name: name?,
        underlay: underlay?,
        vteps: vteps?,
        guard: raw.guard,
        rx,
        metrics: metrics?,
        probe: probe?,
        names: None,
    })
}

/// Where names of containers are answered from.
fn names(raw: &raw::Names, report: &mut Report<'_>) -> Option<Names> {
    let zone = report.value(&raw.zone, "names.zone");
    let servers = raw.forward.iter().flat_map(|raw| {
        let texts = raw.get_ref().as_slice().iter();
        texts.map(|text| toml::Spanned::new(raw.span(), text.as_str()))
    });
    let servers: Vec<_> = servers.collect();
    let forward = servers.iter().map(|it| report.value(it, "names.forward"));
    let forward = forward.collect::<Option<_>>()?;
    Some(Names {
        zone: zone?,
        forward,
    })
}

fn underlay(raw: &toml::Spanned<raw::OneOrMany>, report: &mut Report<'_>) -> Option<Underlay> {
    const FIELD: &str = "node.underlay";
    let texts = raw.get_ref().as_slice();
    if let [text] = texts
        && let Ok(address) = text.parse::<IpAddr>()
    {
        if !can_be_vtep(address) {
            let whose = "this node's";
            report.add(raw.span(), FIELD, Fault::NotUnicast { address, whose });
            return None;
        }
        return Some(Underlay::Address(address));
    }
    if texts.is_empty() {
        report.add(
            raw.span(),
            FIELD,
            Fault::Number {
                what: "underlay",
                takes: "at least one interface",
                given: 0,
                cure: "name the interface that reaches the other nodes, such as \"eth1\"",
            },
        );
        return None;
    }
    let names: Vec<DeviceName> = texts
        .iter()
        .filter_map(|text| {
            text.parse()
                .map_err(|error: crate::model::InvalidValue| {
                    report.add(raw.span(), FIELD, error.into());
                })
                .ok()
        })
        .collect();
    Some(Underlay::Interfaces(names))
}

/// This node's outer addresses.
fn vteps(
    raw: &toml::Spanned<raw::OneOrMany>,
    underlay: Option<&Underlay>,
    report: &mut Report<'_>,
) -> Option<Vec<IpAddr>> {
    const FIELD: &str = "node.vtep";
    let mut vteps: Vec<IpAddr> = Vec::new();
    for text in raw.get_ref().as_slice() {
        let fault = match text.parse::<IpAddr>() {
            Err(_) => Fault::Vtep(text.clone()),
            Ok(address) if !can_be_vtep(address) => Fault::NotUnicast {
                address,
                whose: "this node's",
            },
            Ok(address) => {
                let family = Family::of(address);
                let mut before = vteps.iter().copied();
                let Some(first) = before.find(|vtep| Family::of(*vtep) == family) else {
                    vteps.push(address);
                    continue;
                };
                Fault::TwoOfFamily {
                    what: "vtep",
                    family,
                    first: first.to_string(),
                    second: address.to_string(),
                }
            }
        };
        report.add(raw.span(), FIELD, fault);
        return None;
    }
    let fault = if vteps.is_empty() {
        Fault::Number {
            what: "vtep",
            takes: "at least one address",
            given: 0,
            cure: "name the address that other nodes know this one by, or remove the key",
        }
    } else if matches!(underlay, Some(Underlay::Address(_))) {
        Fault::VtepTwice
    } else {
        vteps.sort_by_key(IpAddr::is_ipv6);
        return Some(vteps);
    };
    report.add(raw.span(), FIELD, fault);
    None
}

/// Collects faults and knows the lines of the text.
struct Report<'a> {
    plain: &'a Plain<'a>,
    faults: Vec<Located>,
}

impl Report<'_> {
    fn add(&mut self, span: Range<usize>, field: impl Into<String>, fault: Fault) {
        self.faults.push(Located {
            line: self.plain.line(span.start),
            field: field.into(),
            fault,
        });
    }

    fn syntax(&mut self, error: &toml::de::Error) {
        // A fault without a place, such as a missing table, belongs to the end of the file.
        let end = self.plain.rest.len();
        let (field, what) = syntax::explained(error, &self.plain.rest);
        self.add(error.span().unwrap_or(end..end), field, Fault::Syntax(what));
    }

    /// Parses a text of a type whose errors are [`InvalidValue`](crate::model::InvalidValue)s.
    fn value<T>(
        &mut self,
        raw: &toml::Spanned<impl AsRef<str>>,
        field: impl Into<String>,
    ) -> Option<T>
    where
        T: std::str::FromStr<Err = crate::model::InvalidValue>,
    {
        let text = raw.get_ref().as_ref();
        text.parse()
            .map_err(|error: crate::model::InvalidValue| self.add(raw.span(), field, error.into()))
            .ok()
    }
}

#[cfg(test)]
mod tests;
