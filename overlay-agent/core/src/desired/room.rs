//! The maps' room, besides that for peers.

use overlay_common::maps::{CIDRS, ENDPOINTS4, ENDPOINTS6, NETWORKS, PORTS, SOURCES};

use crate::{
    model::Family,
    objects::{Capacity, Entries},
};

/// A map that is full, and how many entries it has.
pub type Full = (&'static str, usize);

/// Room that is left for networks and endpoints, and how much there was.
pub(super) struct Room {
    left: Capacity,
    all: Capacity,
}

impl Room {
    pub(super) fn of(all: Capacity) -> Self {
        Self { left: all, all }
    }

    /// Beside the entries that are there.
    pub(super) fn beside(all: Capacity, there: &Entries) -> Self {
        let of = |family| {
            let addresses = there.endpoints.keys();
            let own = addresses.filter(|(_, address)| Family::of(*address) == family);
            own.count()
        };
        let [all4, all6] = all.endpoints;
        let left = Capacity {
            networks: all.networks.saturating_sub(there.networks.len()),
            endpoints: [
                all4.saturating_sub(of(Family::V4)),
                all6.saturating_sub(of(Family::V6)),
            ],
            ports: all.ports.saturating_sub(there.ports.len()),
            sources: all.sources.saturating_sub(there.sources.len()),
            cidrs: all.cidrs.saturating_sub(there.cidrs.len()),
            ..all
        };
        Self { left, all }
    }

    pub(super) fn for_network(&mut self) -> Result<(), Full> {
        take(&mut self.left.networks, (NETWORKS, self.all.networks))
    }

    pub(super) fn for_range(&mut self) -> Result<(), Full> {
        take(&mut self.left.cidrs, (CIDRS, self.all.cidrs))
    }

    pub(super) fn for_tunnel(&mut self) -> Result<(), Full> {
        take(&mut self.left.ports, (PORTS, self.all.ports))
    }

    /// For what an endpoint cannot do without: its packets are measured against it.
    pub(super) fn for_endpoint(&mut self, sources: usize) -> Result<(), Full> {
        let left = self.left.sources.checked_sub(sources);
        let left = left.ok_or((SOURCES, self.all.sources))?;
        take(&mut self.left.ports, (PORTS, self.all.ports))?;
        self.left.sources = left;
        Ok(())
    }

    /// For what it can do without: the kernel delivers, too.
    pub(super) fn for_address(&mut self, family: Family) -> Result<(), Full> {
        let [left4, left6] = &mut self.left.endpoints;
        let [all4, all6] = self.all.endpoints;
        match family {
            Family::V4 => take(left4, (ENDPOINTS4, all4)),
            Family::V6 => take(left6, (ENDPOINTS6, all6)),
        }
    }
}

fn take(left: &mut usize, full: Full) -> Result<(), Full> {
    *left = left.checked_sub(1).ok_or(full)?;
    Ok(())
}
