//! Entries of the eBPF maps: set before programs read them, removed when none does.

use std::collections::BTreeSet;

use super::{
    diff::{missing, stale},
    peers::Peers,
    step::Step,
};
use crate::objects::{Entries, LinkId, LinkRef};

pub(super) fn add(
    observed: &Entries,
    desired: &Entries,
    renewed: &BTreeSet<LinkId>,
    peers: &Peers<'_>,
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
    peers.add_to_maps(steps);
    clear_slots(observed, desired, steps);
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

/// Those who are new in their slot start from 0, before anything can be counted there.
fn clear_slots(observed: &Entries, desired: &Entries, steps: &mut Vec<Step>) {
    for (link, addresses) in desired.endpoint_links() {
        let mut known = observed.slots_of(link, &addresses);
        if let Some(slot) = desired.slots_of(link, &addresses).next()
            && !known.any(|known| known == slot)
        {
            steps.push(Step::ClearSlot { link, slot });
        }
    }
}

pub(super) fn delete(
    observed: &Entries,
    desired: &Entries,
    peers: &Peers<'_>,
    steps: &mut Vec<Step>,
) {
    for &link in stale(&observed.ports, &desired.ports) {
        steps.push(Step::DeletePort { link });
    }
    for &(vni, address) in stale(&observed.endpoints, &desired.endpoints) {
        steps.push(Step::DeleteEndpoint { vni, address });
    }
    peers.delete_from_maps(steps);
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
