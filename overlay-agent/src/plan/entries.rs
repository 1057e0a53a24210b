//! Entries of the eBPF maps: set before programs read them, removed when none does.

use std::{collections::BTreeSet, net::IpAddr};

use super::{
    diff::{missing, stale},
    step::Step,
};
use crate::{
    model::Vni,
    objects::{Entries, LinkId, LinkRef},
};

pub(super) fn add(
    observed: &Entries,
    desired: &Entries,
    renewed: &BTreeSet<LinkId>,
    steps: &mut Vec<Step>,
) {
    // The map holds the index of the device that was there before.
    let outdated = |link: &LinkRef| match link {
        LinkRef::Name(name) => renewed.contains(&LinkId::node(*name)),
        LinkRef::Gone(_) => false,
    };
    for (&vni, &network) in missing(&observed.networks, &desired.networks) {
        steps.push(Step::SetNetwork { vni, network });
    }
    let mut counting = None;
    for (&(vni, vtep), &slot) in missing(&observed.vteps, &desired.vteps) {
        let counting = counting.get_or_insert_with(|| counting_slots(observed));
        steps.push(Step::SetVtep {
            vni,
            vtep,
            slot,
            fresh: !counting.contains(&(vni, vtep, slot)),
        });
    }
    for (&(vni, prefix), peer) in missing(&observed.peers, &desired.peers) {
        steps.push(Step::SetPeer {
            vni,
            prefix,
            peer: peer.clone(),
        });
    }
    for (&(vni, address), endpoint) in &desired.endpoints {
        if observed.endpoints.get(&(vni, address)) != Some(endpoint) || outdated(&endpoint.link) {
            steps.push(Step::SetEndpoint {
                vni,
                address,
                endpoint: endpoint.clone(),
            });
        }
    }
    for (&link, &port) in &desired.ports {
        if observed.ports.get(&link) != Some(&port) || outdated(&link) {
            steps.push(Step::SetPort { link, port });
        }
    }
    for &(link, prefix) in &desired.sources {
        if !observed.sources.contains(&(link, prefix)) || outdated(&link) {
            steps.push(Step::SetSource { link, prefix });
        }
    }
    for (&cidr, &vni) in missing(&observed.cidrs, &desired.cidrs) {
        steps.push(Step::SetCidr { cidr, vni });
    }
}

/// The slots that peers count in: only those of new peers start from 0.
fn counting_slots(entries: &Entries) -> BTreeSet<(Vni, IpAddr, u32)> {
    let peers = entries.peers.iter();
    peers
        .map(|((vni, _), peer)| (*vni, peer.vtep, peer.index))
        .collect()
}

pub(super) fn delete(observed: &Entries, desired: &Entries, steps: &mut Vec<Step>) {
    for &link in stale(&observed.ports, &desired.ports) {
        steps.push(Step::DeletePort { link });
    }
    for &(vni, address) in stale(&observed.endpoints, &desired.endpoints) {
        steps.push(Step::DeleteEndpoint { vni, address });
    }
    for &(vni, prefix) in stale(&observed.peers, &desired.peers) {
        steps.push(Step::DeletePeer { vni, prefix });
    }
    for (key, &slot) in &observed.vteps {
        if !desired.vteps.contains_key(key) {
            steps.push(Step::DeleteVtep {
                vni: key.0,
                vtep: key.1,
                slot,
            });
        }
    }
    for &vni in stale(&observed.networks, &desired.networks) {
        steps.push(Step::DeleteNetwork { vni });
    }
    for &(link, prefix) in observed.sources.difference(&desired.sources) {
        steps.push(Step::DeleteSource { link, prefix });
    }
    for &cidr in stale(&observed.cidrs, &desired.cidrs) {
        steps.push(Step::DeleteCidr { cidr });
    }
    for stray in observed.strays.difference(&desired.strays) {
        steps.push(Step::DeleteStray {
            stray: stray.clone(),
        });
    }
}
