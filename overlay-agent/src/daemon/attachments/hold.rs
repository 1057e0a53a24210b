//! Addresses that a runtime wants to know before there is a container for them.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use overlay_api::{Hold, Kind, Offer};
use overlay_control::Reply;
use overlay_core::model::{Family, Network, Range};

use super::{Reconciler, Result, answer, full, refused};

/// A runtime starts a container within seconds of asking for its address, or gives it back. One that was
/// killed in between does neither.
const KEPT: Duration = Duration::from_mins(1);

/// Addresses that are kept, and since when. An agent that is started again keeps none: who attaches a
/// container says then what it was told, and is refused where somebody else has got that address.
#[derive(Debug, Default)]
pub(in crate::daemon) struct Held(HashMap<IpAddr, Instant>);

impl Held {
    fn has(&self, address: IpAddr) -> bool {
        self.0.contains_key(&address)
    }

    fn keep(&mut self, address: IpAddr) {
        self.0.insert(address, Instant::now());
    }

    pub(super) fn release(&mut self, address: IpAddr) {
        self.0.remove(&address);
    }

    fn forget_old(&mut self) {
        self.0.retain(|_, since| since.elapsed() < KEPT);
    }
}

impl Reconciler {
    /// The networks that containers can be attached to.
    pub(in crate::daemon) fn attachment_networks(&self) -> Reply {
        let offer = |network: &Network| Offer {
            network: network.name.to_string(),
            gateways: network
                .ranges
                .iter()
                .map(|range| range.on_link(range.gateway()))
                .collect(),
        };
        Reply::Offers(self.model.networks.iter().map(offer).collect())
    }

    /// Keeps an address for a container that is about to come.
    pub(in crate::daemon) fn address_hold(&mut self, hold: &Hold) -> Reply {
        self.held.forget_old();
        let found = self.address_to_hold(hold);
        if let Ok(net) = &found {
            self.held.keep(net.addr());
        }
        answer(found, Reply::Held)
    }

    /// Gives it back.
    pub(in crate::daemon) fn address_release(&mut self, address: IpAddr) -> Reply {
        self.held.release(address);
        Reply::Done
    }

    fn address_to_hold(&self, hold: &Hold) -> Result<IpNet> {
        let network = self.network_of(Some(&hold.network))?;
        let family = if hold.v6 { Family::V6 } else { Family::V4 };
        let range = network.ranges.iter().find(|range| range.family() == family);
        let range = range.ok_or_else(|| {
            let text = format!(
                "find an address in network {}: it has none of that family; ask for the other one",
                network.name
            );
            refused(Kind::Invalid, text)
        })?;
        let address = if let Some(address) = hold.address {
            self.asked_for(address, range)?
        } else {
            let content = self.store.content();
            let free = content.last_free(range, |it| self.held.has(it));
            free.ok_or_else(|| full(network))?
        };
        Ok(range.on_link(address))
    }

    fn asked_for(&self, address: IpAddr, range: &Range) -> Result<IpAddr> {
        let (first, last) = range.endpoints();
        if !(first..=last).contains(&address) {
            let text = format!(
                "keep address {address} for a container: this node's containers have {first} to {last}; choose \
                 one of these"
            );
            return Err(refused(Kind::Invalid, text));
        }
        let owner = self
            .owner_of(address)
            .map(|owner| format!("endpoint {owner}"));
        let kept = || {
            self.held
                .has(address)
                .then(|| "a container that is about to come".to_owned())
        };
        match owner.or_else(kept) {
            None => Ok(address),
            Some(owner) => Err(refused(
                Kind::AddressTaken,
                format!(
                    "keep address {address} for a container: it is in use by {owner}; choose another"
                ),
            )),
        }
    }
}
