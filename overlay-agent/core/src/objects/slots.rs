//! In which slots endpoints count.

use std::{collections::BTreeMap, net::IpAddr};

use overlay_common::maps::{FIRST_ENDPOINT_SLOT, MAX_ENDPOINT_SLOTS, Port};

use super::{Entries, LinkRef};
use crate::model::Vni;

impl Entries {
    /// The endpoints' devices, each with its addresses that have a row.
    pub fn endpoint_links(&self) -> BTreeMap<LinkRef, Vec<(Vni, IpAddr)>> {
        let ports = self.ports.iter().filter(|(_, port)| is_endpoint(port));
        let mut links: BTreeMap<LinkRef, Vec<(Vni, IpAddr)>> =
            ports.map(|(&link, _)| (link, Vec::new())).collect();
        for (&key, endpoint) in &self.endpoints {
            links.entry(endpoint.link).or_default().push(key);
        }
        links
    }

    /// The slots in which an endpoint counts that has this device and these addresses, the
    /// likeliest first. A device that was made anew is the same endpoint's as before. They stand
    /// in several rows, so that they are known even when somebody has changed or removed one.
    pub fn slots_of(
        &self,
        link: LinkRef,
        addresses: &[(Vni, IpAddr)],
    ) -> impl Iterator<Item = u32> {
        let endpoints = addresses.iter().filter_map(move |key| {
            let endpoint = self.endpoints.get(key)?;
            let same = endpoint.link == link || matches!(endpoint.link, LinkRef::Gone(_));
            same.then_some(endpoint.slot)
        });
        let port = self.ports.get(&link).map(|port| port.slot);
        endpoints
            .chain(port)
            .filter(|slot| (FIRST_ENDPOINT_SLOT..).contains(slot))
            .filter(|slot| (*slot as usize) < MAX_ENDPOINT_SLOTS)
    }

    /// All slots that somebody may count in.
    pub fn slots_in_use(&self) -> impl Iterator<Item = u32> {
        let endpoints = self.endpoints.values().map(|endpoint| endpoint.slot);
        endpoints.chain(self.ports.values().map(|port| port.slot))
    }

    /// Has an endpoint count in a slot.
    pub fn set_slot(&mut self, link: LinkRef, addresses: &[(Vni, IpAddr)], slot: u32) {
        for key in addresses {
            if let Some(endpoint) = self.endpoints.get_mut(key) {
                endpoint.slot = slot;
            }
        }
        if let Some(port) = self.ports.get_mut(&link) {
            port.slot = slot;
        }
    }
}

/// Whether a device is an endpoint's: what enters at those of the node may have any address.
fn is_endpoint(port: &Port) -> bool {
    port.address != [0; 4] || port.address6 != [0; 16]
}
