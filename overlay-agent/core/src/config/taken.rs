//! Addresses, names and keys of peers, so that nobody else has them, too.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    path::{Path, PathBuf},
};

use ipnet::IpNet;

use super::Fault;
use crate::model::{Mac, Model, Name, Network, Peer, PublicKey, overlap};

/// Whose is what in a network. A file stands for each peer; none for those of the configuration.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    files: Vec<PathBuf>,
    names: HashMap<Name, usize>,
    vteps: BTreeMap<IpAddr, usize>,
    macs: HashMap<Mac, usize>,
    keys: HashMap<PublicKey, usize>,
    /// The peers' subnets by their first addresses; none overlaps another.
    subnets: BTreeMap<IpAddr, (IpNet, Name)>,
    own: Vec<IpNet>,
    sources: Vec<(IpNet, Name)>,
}

impl Taken {
    /// Values that peers of a network may not have.
    pub(super) fn beside_peers(network: &Network, model: &Model) -> Self {
        let endpoints = model.endpoints.iter();
        let endpoints = endpoints.filter(|endpoint| endpoint.network == network.name);
        let sources = endpoints.flat_map(|endpoint| {
            let sources = endpoint.allowed_sources.iter();
            sources.map(|source| (*source, endpoint.name.clone()))
        });
        Self {
            own: network.ranges.iter().map(|range| range.subnet).collect(),
            sources: sources.collect(),
            ..Self::default()
        }
    }

    pub(super) fn insert(&mut self, peers: &[Peer], file: Option<&Path>) {
        let file = file.map_or("the configuration file".into(), Path::to_owned);
        // Of one there may be many, one after the other.
        if self.files.last() != Some(&file) {
            self.files.push(file);
        }
        let place = self.files.len() - 1;
        for peer in peers {
            self.names.entry(peer.name.clone()).or_insert(place);
            self.vteps.entry(peer.vtep).or_insert(place);
            self.macs.entry(peer.mac).or_insert(place);
            for key in keys(peer) {
                self.keys.entry(*key).or_insert(place);
            }
            for &subnet in &peer.subnets {
                let taken = (subnet, peer.name.clone());
                self.subnets.entry(subnet.network()).or_insert(taken);
            }
        }
    }

    /// Leaves out one that was inserted.
    pub(super) fn remove(&mut self, peer: &Peer) {
        self.names.remove(&peer.name);
        self.vteps.remove(&peer.vtep);
        self.macs.remove(&peer.mac);
        for key in keys(peer) {
            self.keys.remove(key);
        }
        for subnet in &peer.subnets {
            self.subnets.remove(&subnet.network());
        }
    }

    /// Values of a peer that are another's, each with the key that has it.
    pub(super) fn conflicts(&self, peer: &Peer) -> Vec<(&'static str, Fault)> {
        let twice = |what, value: String, file: &usize| {
            let file = self.files.get(*file)?;
            let first = format!("a peer of {}", file.display());
            Some(Fault::Duplicate { what, value, first })
        };
        let name = self.names.get(&peer.name);
        let name = name.and_then(|file| twice("peer name", peer.name.to_string(), file));
        let vtep = self.vteps.get(&peer.vtep);
        let vtep = vtep.and_then(|file| twice("VTEP", peer.vtep.to_string(), file));
        let mac = self.macs.get(&peer.mac).filter(|_| vtep.is_none());
        let mac = mac.and_then(|file| twice("VTEP MAC", peer.mac.to_string(), file));
        let known = |key: &Option<Box<PublicKey>>| {
            let key = key.as_deref()?;
            let file = self.keys.get(key)?;
            twice("public key", key.to_string(), file)
        };
        let [public, next] = [&peer.public_key, &peer.next_public_key].map(known);
        let subnets = peer.subnets.iter();
        let subnets = subnets.filter_map(|&subnet| {
            let (other, owner) = self.owner(subnet)?;
            let fault = Fault::Overlap {
                subnet,
                other,
                owner,
            };
            Some(("subnet", fault))
        });
        let around = self.owner(peer.vtep.into()).map(|(subnet, owner)| {
            let vtep = peer.vtep;
            Fault::AroundVtep {
                subnet,
                owner,
                vtep,
            }
        });
        let others_inside = peer.subnets.iter().filter_map(|&subnet| {
            let mut inside = self.vteps.range(subnet.network()..=subnet.broadcast());
            let fault = Fault::AroundVtep {
                subnet,
                owner: format!("peer {}", peer.name),
                vtep: *inside.next()?.0,
            };
            Some(("subnet", fault))
        });
        let named = [
            ("name", name),
            ("vtep", vtep.or(around)),
            ("mac", mac),
            ("public_key", public),
            ("next_public_key", next),
        ];
        let named = named
            .into_iter()
            .filter_map(|(key, fault)| Some((key, fault?)));
        named.chain(subnets).chain(others_inside).collect()
    }

    fn owner(&self, subnet: IpNet) -> Option<(IpNet, String)> {
        if let Some(own) = self.own.iter().find(|own| overlap(**own, subnet)) {
            return Some((*own, "this node".to_owned()));
        }
        let sources = &mut self.sources.iter();
        if let Some((source, name)) = sources.find(|(source, _)| overlap(*source, subnet)) {
            return Some((*source, format!("endpoint {name}")));
        }
        // Of those that begin before its end, the last one reaches farthest.
        let mut before = self.subnets.range(..=subnet.broadcast()).rev();
        let (_, (other, name)) = before.next()?;
        overlap(*other, subnet).then(|| (*other, format!("peer {name}")))
    }
}

/// All that a peer has, or is about to have.
fn keys(peer: &Peer) -> impl Iterator<Item = &PublicKey> {
    let keys = [&peer.public_key, &peer.next_public_key];
    keys.into_iter().filter_map(Option::as_deref)
}
