//! Peers in files of their own: each file is one fragment, which counts as a whole or not at all.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use toml::Spanned;

use super::{
    ConfigError, Fault, Faults, Report,
    networks::{self, check_lengths},
    peers::{self, Own},
    plain::Plain,
    raw,
    taken::Taken,
};
use crate::model::{Model, Name, Network, Peer, Peers};

/// A file of peers, and the last text of it that was good.
#[derive(Clone, Debug)]
pub(crate) struct Fragment {
    pub(crate) path: PathBuf,
    /// Its text, or why that is not known.
    pub(crate) text: Result<String, String>,
    /// The text that stays in force when the new one is refused.
    pub(crate) before: Option<String>,
}

/// The outcome for each fragment.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// The text in force of each, by its path.
    pub(crate) good: BTreeMap<PathBuf, String>,
    /// The refused ones, and why.
    pub(crate) refused: Vec<ConfigError>,
}

/// Adds the fragments' peers to the networks, one fragment after the other: what an earlier one
/// has, a later one may not have, too. Those in force come first, so that a new file takes nothing
/// from them, and then the others in the order of their names.
pub(crate) fn add(model: &mut Model, fragments: Vec<Fragment>) -> Outcome {
    let mut outcome = Outcome::default();
    if fragments.is_empty() {
        return outcome;
    }
    let mut sum = Sum::of(model);
    let in_force = |fragment: &Fragment| fragment.text.as_ref().ok() == fragment.before.as_ref();
    let (first, then): (Vec<_>, Vec<_>) = fragments
        .into_iter()
        .partition(|fragment| fragment.before.is_some() && in_force(fragment));
    for Fragment { path, text, before } in first.into_iter().chain(then) {
        let refused = match text {
            Ok(text) => match sum.take(&path, &text) {
                Ok(()) => {
                    outcome.good.insert(path, text);
                    continue;
                }
                Err(faults) => ConfigError::Invalid(faults),
            },
            Err(cause) => ConfigError::UnreadablePeers {
                path: path.clone(),
                cause,
            },
        };
        outcome.refused.push(refused);
        if let Some(before) = before
            && sum.take(&path, &before).is_ok()
        {
            outcome.good.insert(path, before);
        }
    }
    sum.complete(model);
    outcome
}

/// The file as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    #[serde(default)]
    pub(super) networks: Vec<Spanned<Part>>,
}

/// Peers of a network that is defined elsewhere.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Part {
    pub(super) name: Spanned<String>,
    #[serde(default)]
    pub(super) peers: Vec<Spanned<raw::Peer>>,
}

/// The networks with the peers that are known so far.
struct Sum {
    /// This node, which may be among the peers of a fragment: one folder serves all nodes.
    own: Name,
    own_vteps: Vec<IpAddr>,
    networks: Vec<Network>,
    taken: Vec<Taken>,
}

impl Sum {
    fn of(model: &Model) -> Self {
        let taken = model.networks.iter().map(|network| {
            let mut taken = Taken::beside_peers(network, model);
            taken.insert(&network.peers, None);
            taken
        });
        Self {
            own: model.node.name.clone(),
            own_vteps: model.node.configured_vteps(),
            taken: taken.collect(),
            networks: model.networks.clone(),
        }
    }

    /// Takes a fragment as a whole, or says all that is wrong with it.
    fn take(&mut self, path: &Path, text: &str) -> Result<(), Faults> {
        let plain = Plain::of(text);
        let mut report = Report {
            plain: &plain,
            faults: Vec::new(),
        };
        let parts = match toml::from_str::<Raw>(&plain.rest) {
            Ok(raw) => self.validate(&raw, &plain, &mut report),
            Err(error) => {
                report.syntax(&error);
                Vec::new()
            }
        };
        let mut faults = report.faults;
        if !faults.is_empty() {
            faults.sort_by_key(|fault| fault.line);
            let path = path.to_owned();
            return Err(Faults { path, faults });
        }
        for (place, peers) in parts {
            self.taken[place].insert(&peers, Some(path));
            self.networks[place].peers = peers;
        }
        Ok(())
    }

    /// The networks that a fragment is about, each with all its peers then.
    fn validate(
        &self,
        raw: &Raw,
        plain: &Plain<'_>,
        report: &mut Report<'_>,
    ) -> Vec<(usize, Peers)> {
        let mut names = BTreeMap::new();
        let mut parts = Vec::new();
        for (index, raw) in raw.networks.iter().enumerate() {
            let raw = raw.get_ref();
            let field = format!("networks[{index}]");
            let (name, span) = (raw.name.get_ref(), raw.name.span());
            let what = "network name";
            let at = format!("{field}.name");
            networks::unique(&mut names, name.clone(), what, span.clone(), at, report);
            let mut networks = self.networks.iter();
            let place = networks.position(|network| network.name.as_str() == name);
            let Some(place) = place else {
                let fault = Fault::NoSuchNetwork(name.clone());
                report.add(span, format!("{field}.name"), fault);
                continue;
            };
            let part = Place {
                raw,
                plain,
                index,
                field: &field,
            };
            parts.extend(self.peers(&part, place, report).map(|peers| (place, peers)));
        }
        parts
    }

    fn peers(&self, part: &Place<'_>, place: usize, report: &mut Report<'_>) -> Option<Peers> {
        let network = self.networks.get(place)?;
        let before = report.faults.len();
        let written = peers::List {
            parsed: &part.raw.peers,
            plain: part.plain.of_network(part.index),
            subnet: 0,
            encrypted: network.wireguard.is_some(),
            left_out: Some(self.own.as_str()),
        };
        let node = Own {
            name: None,
            vteps: &self.own_vteps,
        };
        let field = part.field;
        let (numbers, new) = peers::validate(&written, field, &network.ranges, node, report);
        if report.faults.len() > before {
            return None;
        }
        for (&number, peer) in numbers.iter().zip(&new) {
            for (key, fault) in self.taken.get(place)?.conflicts(peer) {
                let span = written.span(number, key);
                report.add(span, format!("{field}.peers[{number}].{key}"), fault);
            }
        }
        let peers: Vec<Peer> = network.peers.iter().cloned().chain(new).collect();
        let peers = Peers::from(peers);
        if let Some(fault) = check_lengths(&peers, network.fastpath) {
            let span = part.raw.name.span();
            report.add(span, format!("{field}.peers"), fault);
        }
        Some(peers)
    }

    fn complete(self, model: &mut Model) {
        model.networks = self.networks;
    }
}

/// Part of a fragment, and where it stands.
struct Place<'a> {
    raw: &'a Part,
    plain: &'a Plain<'a>,
    index: usize,
    field: &'a str,
}

#[cfg(test)]
mod tests;
