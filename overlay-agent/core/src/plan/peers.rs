//! Steps for the entries that lead to peers, which can be very many.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::step::Step;
use crate::{
    ascending::Ascending,
    model::{IfName, Vni},
    objects::{LinkId, LinkKind, Objects, Outer, PeerEntries, PeerObjects, Scope},
};

/// The difference between what is there and what should be there for the peers.
pub(super) struct Peers<'a> {
    observed: &'a PeerObjects,
    desired: &'a PeerObjects,
    /// Devices that are made anew: nothing is on them.
    renewed: BTreeSet<IfName>,
    /// Devices that go, and what is on them with them.
    stay: BTreeSet<IfName>,
    /// Addresses that are added: routes that prefer them went with them.
    added: BTreeSet<IpAddr>,
    nothing: bool,
}

impl<'a> Peers<'a> {
    pub(super) fn new(
        observed: &'a Objects,
        desired: &'a Objects,
        renewed: &BTreeSet<LinkId>,
    ) -> Self {
        let is_tunnel = |id: &&LinkId| {
            let link = desired.links.get(id);
            link.is_some_and(|link| matches!(link.kind, LinkKind::Vxlan(_)))
        };
        let of_node = |id: &&LinkId| id.scope == Scope::Node;
        let added = desired.addresses.iter().filter(|address| {
            let missing = !observed.addresses.contains(address) || renewed.contains(&address.link);
            of_node(&&address.link) && missing
        });
        let added: BTreeSet<IpAddr> = added.map(|address| address.net.addr()).collect();
        let stays = |id: &&LinkId| of_node(id) && !renewed.contains(id);
        let renewed: BTreeSet<IfName> = renewed
            .iter()
            .filter(of_node)
            .filter(is_tunnel)
            .map(|id| id.name)
            .collect();
        Self {
            nothing: observed.peers.is_same(&desired.peers)
                && renewed.is_empty()
                && added.is_empty(),
            observed: &observed.peers,
            desired: &desired.peers,
            stay: desired
                .links
                .keys()
                .filter(stays)
                .map(|id| id.name)
                .collect(),
            renewed,
            added,
        }
    }

    /// In the kernel: a next hop is known before the route that needs it.
    pub(super) fn add_to_kernel(&self, steps: &mut Vec<Step>) {
        if self.nothing {
            return;
        }
        let renewed = |link: &IfName| self.renewed.contains(link);
        let (observed, desired) = (self.observed, self.desired);
        missing(
            &observed.neighbours,
            &desired.neighbours,
            |(link, _), _| renewed(link),
            |&(link, address), &mac| steps.push(Step::SetNeighbour { link, address, mac }),
        );
        missing(
            &observed.fdb,
            &desired.fdb,
            |(link, _), _| renewed(link),
            |&(link, mac), &Outer { vtep, via }| {
                steps.push(Step::SetFdb {
                    link,
                    mac,
                    vtep,
                    via,
                });
            },
        );
        missing(
            &observed.routes,
            &desired.routes,
            |_, route| {
                let source = route.source;
                renewed(&route.dev) || source.is_some_and(|source| self.added.contains(&source))
            },
            |key, route| {
                steps.push(Step::SetRoute {
                    key: key.clone(),
                    route: route.clone(),
                });
            },
        );
    }

    /// In the maps: who may send before where to send.
    pub(super) fn add_to_maps(&self, steps: &mut Vec<Step>) {
        if self.nothing {
            return;
        }
        let (observed, desired) = (&self.observed.entries, &self.desired.entries);
        let mut admitted = Vec::new();
        missing(
            &observed.vteps,
            &desired.vteps,
            |_, _| false,
            |&peer, &slot| admitted.push((peer, slot)),
        );
        let counting = counting_slots(observed, &admitted);
        let admit = |((vni, vtep), slot)| Step::SetVtep {
            vni,
            vtep,
            slot,
            fresh: !counting.contains(&(slot, vni, vtep)),
        };
        steps.extend(admitted.into_iter().map(admit));
        missing(
            &observed.subnets,
            &desired.subnets,
            |_, _| false,
            |&(vni, prefix), peer| {
                steps.push(Step::SetPeer {
                    vni,
                    prefix,
                    peer: peer.clone(),
                });
            },
        );
    }

    pub(super) fn delete_from_maps(&self, steps: &mut Vec<Step>) {
        if self.nothing {
            return;
        }
        let (observed, desired) = (&self.observed.entries, &self.desired.entries);
        stale(&observed.subnets, &desired.subnets, |&(vni, prefix), _| {
            steps.push(Step::DeletePeer { vni, prefix });
        });
        stale(&observed.vteps, &desired.vteps, |&(vni, vtep), &slot| {
            steps.push(Step::DeleteVtep { vni, vtep, slot });
        });
    }

    pub(super) fn delete_from_kernel(&self, steps: &mut Vec<Step>) {
        if self.nothing {
            return;
        }
        let stays = |link: &IfName| self.stay.contains(link);
        let (observed, desired) = (self.observed, self.desired);
        stale(&observed.routes, &desired.routes, |key, route| {
            if stays(&route.dev) {
                steps.push(Step::DeleteRoute {
                    key: key.clone(),
                    dev: route.dev,
                });
            }
        });
        stale(&observed.fdb, &desired.fdb, |&(link, mac), _| {
            if stays(&link) {
                steps.push(Step::DeleteFdb { link, mac });
            }
        });
        stale(
            &observed.neighbours,
            &desired.neighbours,
            |&(link, address), _| {
                if stays(&link) {
                    steps.push(Step::DeleteNeighbour { link, address });
                }
            },
        );
    }
}

/// Those of the admitted peers that count in their slot already: only the slots of new peers
/// start from 0.
fn counting_slots(
    entries: &PeerEntries,
    admitted: &[((Vni, IpAddr), u32)],
) -> BTreeSet<(u32, Vni, IpAddr)> {
    let admitted = admitted
        .iter()
        .map(|&((vni, vtep), slot)| (slot, vni, vtep));
    let admitted: BTreeSet<_> = admitted.collect();
    if admitted.is_empty() {
        return admitted;
    }
    let subnets = entries.subnets.iter();
    subnets
        .map(|((vni, _), peer)| (peer.index, *vni, peer.vtep))
        .filter(|counting| admitted.contains(counting))
        .collect()
}

/// Entries that are absent, different or `outdated`. Both sides are walked once.
fn missing<'a, K: Ord, V: PartialEq>(
    observed: &BTreeMap<K, V>,
    desired: &'a BTreeMap<K, V>,
    outdated: impl Fn(&K, &V) -> bool,
    mut found: impl FnMut(&'a K, &'a V),
) {
    let mut there = Ascending::of(observed);
    for (key, value) in desired {
        if there.get(key) != Some(value) || outdated(key, value) {
            found(key, value);
        }
    }
}

/// Entries that should not be there. Both sides are walked once.
fn stale<'a, K: Ord, V>(
    observed: &'a BTreeMap<K, V>,
    desired: &BTreeMap<K, V>,
    mut found: impl FnMut(&'a K, &'a V),
) {
    let mut wanted = Ascending::of(desired);
    for (key, value) in observed {
        if wanted.get(key).is_none() {
            found(key, value);
        }
    }
}
