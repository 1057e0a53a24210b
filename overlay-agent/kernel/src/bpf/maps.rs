//! The maps, in the agent's terms.

use std::{
    collections::BTreeSet,
    fmt::{self, Debug},
    net::IpAddr,
    path::Path,
};

use overlay_core::{
    model::{IfName, Vni},
    objects::{Capacity, EndpointEntry, Entries, LinkRef, PeerEntries, PeerEntry, Stray},
};

use super::{
    by_family::Tables,
    convert,
    counters::Counters,
    made::Notes,
    pins::Pins,
    rows::{ALLOWED, split, stray, trie_key},
    specs,
    table::{Table, Trie},
};
use crate::{Result, hooks::abi};
use bytemuck::bytes_of;
use ipnet::IpNet;
use overlay_common::maps::{
    AddressKey4, AddressKey6, CIDRS, CidrKey, ENDPOINTS4, ENDPOINTS6, Endpoint, NETWORKS, Network,
    PEERS4, PEERS6, PORTS, Peer, Port, PrefixKey4, PrefixKey6, SOURCES, SourceKey, VTEPS4, VTEPS6,
    Vtep,
};

/// The maps of an instance, as they are pinned.
///
/// Removing an entry that is not there fails with
/// [`not_there`](KernelError::not_there).
pub struct Maps {
    networks: Table<u32, Network>,
    peers: Tables<PrefixKey4, PrefixKey6, Peer>,
    vteps: Tables<AddressKey4, AddressKey6, Vtep>,
    endpoints: Tables<AddressKey4, AddressKey6, Endpoint>,
    ports: Table<u32, Port>,
    sources: Trie<SourceKey, u32>,
    cidrs: Trie<CidrKey, u32>,
    counters: Counters,
}

impl Maps {
    /// The pinned maps of this build's ABI; `None` when not all of them are there, or not proven to be ours:
    /// whoever loads the programs is told what is in their way.
    pub fn open(dir: &Path) -> Result<Option<Self>> {
        Self::open_in(&Pins::new(dir))
    }

    pub(super) fn open_in(pins: &Pins) -> Result<Option<Self>> {
        for map in &specs::MAPS {
            if !Notes(pins).is_ours(abi(), map.name) || !map.is_pinned(pins)? {
                return Ok(None);
            }
        }
        Ok(Some(Self {
            networks: Table::open(pins, NETWORKS)?,
            peers: Tables::open(pins, PEERS4, PEERS6)?,
            vteps: Tables::open(pins, VTEPS4, VTEPS6)?,
            endpoints: Tables::open(pins, ENDPOINTS4, ENDPOINTS6)?,
            ports: Table::open(pins, PORTS)?,
            sources: Trie::open(pins, SOURCES)?,
            cidrs: Trie::open(pins, CIDRS)?,
            counters: Counters::open(pins)?,
        }))
    }

    /// How many entries there can be.
    pub fn capacity(&self) -> Capacity {
        let both = |maps: [&str; 2]| maps.map(specs::capacity);
        Capacity {
            networks: specs::capacity(NETWORKS),
            peers: both([PEERS4, PEERS6]),
            vteps: both([VTEPS4, VTEPS6]),
            slots: self.counters.slots().saturating_sub(1),
            endpoints: both([ENDPOINTS4, ENDPOINTS6]),
            ports: specs::capacity(PORTS),
            sources: specs::capacity(SOURCES),
            cidrs: specs::capacity(CIDRS),
        }
    }

    /// The programs' counters.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The same, to set it back.
    pub fn counters_mut(&mut self) -> &mut Counters {
        &mut self.counters
    }

    /// Those that lead to the peers, and strays among them.
    pub fn peer_entries(
        &self,
        name_of: impl Fn(u32) -> Option<IfName>,
    ) -> Result<(PeerEntries, BTreeSet<Stray>)> {
        let mut strays = BTreeSet::new();
        let subnets = self.peers.rows()?.filter_map(|(key, peer)| {
            let entry = convert::prefix_of(key).zip(convert::peer_entry(&peer, &name_of));
            if entry.is_none() {
                let (map, key) = split([PEERS4, PEERS6], &key);
                strays.insert(stray(map, key, &peer));
            }
            entry
        });
        let subnets = subnets.collect();
        let vteps = self.vteps.rows()?.filter_map(|(key, vtep)| {
            let address = convert::address_of(key);
            if address.is_none() {
                let (map, key) = split([VTEPS4, VTEPS6], &key);
                strays.insert(stray(map, key, &vtep));
            }
            Some((address?, vtep.index))
        });
        let vteps = vteps.collect();
        Ok((PeerEntries { subnets, vteps }, strays))
    }

    /// Everything but those and the counters.
    pub fn entries(&self, name_of: impl Fn(u32) -> Option<IfName>) -> Result<Entries> {
        let mut entries = Entries::default();
        let strays = &mut entries.strays;
        for (vni, network) in self.networks.rows()? {
            match Vni::try_from(vni) {
                Ok(known) => drop(entries.networks.insert(known, network)),
                Err(_) => drop(strays.insert(stray(NETWORKS, bytes_of(&vni), &network))),
            }
        }
        for (key, endpoint) in self.endpoints.rows()? {
            let entry = convert::endpoint_entry(&endpoint, &name_of);
            if let Some((address, entry)) = convert::address_of(key).zip(entry) {
                entries.endpoints.insert(address, entry);
            } else {
                let (map, key) = split([ENDPOINTS4, ENDPOINTS6], &key);
                strays.insert(stray(map, key, &endpoint));
            }
        }
        for (index, port) in self.ports.rows()? {
            entries.ports.insert(convert::link(index, &name_of), port);
        }
        for (key, value) in self.sources.rows()? {
            let source = convert::source_of(&key, &name_of);
            if let Some(source) = source.filter(|_| value == ALLOWED) {
                entries.sources.insert(source);
            } else {
                let key = trie_key(key.prefix_len(), &key.data());
                strays.insert(stray(SOURCES, &key, &value));
            }
        }
        for (key, vni) in self.cidrs.rows()? {
            if let Some((cidr, vni)) = convert::cidr_of(&key).zip(Vni::try_from(vni).ok()) {
                entries.cidrs.insert(cidr, vni);
            } else {
                let key = trie_key(key.prefix_len(), &key.data());
                strays.insert(stray(CIDRS, &key, &vni));
            }
        }
        Ok(entries)
    }

    /// The entries of one endpoint: those of its addresses, and that of its device.
    pub fn endpoint_entries(
        &self,
        addresses: impl IntoIterator<Item = (Vni, IpAddr)>,
        device: (IfName, u32),
    ) -> Result<Entries> {
        let (name, index) = device;
        let name_of = |other| (other == index).then_some(name);
        let mut entries = Entries::default();
        for key in addresses {
            let row = self.endpoints.get(&convert::address_key(key), Of(key))?;
            let entry = row.and_then(|row| convert::endpoint_entry(&row, name_of));
            entries.endpoints.extend(entry.map(|entry| (key, entry)));
        }
        let link = LinkRef::Name(name);
        let port = self.ports.get(&index, link)?;
        entries.ports.extend(port.map(|port| (link, port)));
        Ok(entries)
    }

    /// Removes a row that nobody of ours has written, unless it is another one by now.
    pub fn delete_stray(&mut self, stray: &Stray) -> Result<()> {
        let Stray { map, key, value } = stray;
        match *map {
            NETWORKS => self.networks.delete_row(key, value),
            PEERS4 | PEERS6 => self.peers.delete_row(map, key, value),
            VTEPS4 | VTEPS6 => self.vteps.delete_row(map, key, value),
            ENDPOINTS4 | ENDPOINTS6 => self.endpoints.delete_row(map, key, value),
            SOURCES => self.sources.delete_row(key, value),
            _ => self.cidrs.delete_row(key, value),
        }
    }

    /// Sets a network.
    pub fn set_network(&mut self, vni: Vni, network: &Network) -> Result<()> {
        self.networks.set(vni.get(), network, vni)
    }

    /// Removes a network.
    pub fn delete_network(&mut self, vni: Vni) -> Result<()> {
        self.networks.delete(vni.get(), vni)
    }

    /// Sets whose subnet of a network this is.
    pub fn set_peer(
        &mut self,
        key: (Vni, IpNet),
        peer: &PeerEntry,
        index_of: impl Fn(IfName) -> Option<u32>,
    ) -> Result<()> {
        let peer = convert::peer(peer, index_of)?;
        self.peers.set(convert::prefix_key(key), &peer, Of(key))
    }

    /// Removes a peer's subnet.
    pub fn delete_peer(&mut self, key: (Vni, IpNet)) -> Result<()> {
        self.peers.delete(convert::prefix_key(key), Of(key))
    }

    /// Lets an outer address send to us, and sets its slot of counters.
    pub fn set_vtep(&mut self, key: (Vni, IpAddr), index: u32) -> Result<()> {
        self.vteps
            .set(convert::address_key(key), &Vtep { index }, Of(key))
    }

    /// Removes an outer address.
    pub fn delete_vtep(&mut self, key: (Vni, IpAddr)) -> Result<()> {
        self.vteps.delete(convert::address_key(key), Of(key))
    }

    /// Sets where an endpoint's address is.
    pub fn set_endpoint(
        &mut self,
        key: (Vni, IpAddr),
        endpoint: &EndpointEntry,
        index_of: impl Fn(IfName) -> Option<u32>,
    ) -> Result<()> {
        let endpoint = convert::endpoint(endpoint, index_of)?;
        self.endpoints
            .set(convert::address_key(key), &endpoint, Of(key))
    }

    /// Removes an endpoint's address.
    pub fn delete_endpoint(&mut self, key: (Vni, IpAddr)) -> Result<()> {
        self.endpoints.delete(convert::address_key(key), Of(key))
    }

    /// Sets what packets that enter at a device are measured against.
    pub fn set_port(
        &mut self,
        link: LinkRef,
        port: &Port,
        index_of: impl Fn(IfName) -> Option<u32>,
    ) -> Result<()> {
        self.ports.set(convert::index(link, index_of)?, port, link)
    }

    /// Removes a device.
    pub fn delete_port(
        &mut self,
        link: LinkRef,
        index_of: impl Fn(IfName) -> Option<u32>,
    ) -> Result<()> {
        self.ports.delete(convert::index(link, index_of)?, link)
    }

    /// Lets an endpoint send from a prefix.
    pub fn set_source(
        &mut self,
        key: (LinkRef, IpNet),
        index_of: impl Fn(IfName) -> Option<u32>,
    ) -> Result<()> {
        let entry = convert::source_key(key, index_of)?;
        self.sources.set(&entry, ALLOWED, Behind(key))
    }

    /// Does not let it any more.
    pub fn delete_source(
        &mut self,
        key: (LinkRef, IpNet),
        index_of: impl Fn(IfName) -> Option<u32>,
    ) -> Result<()> {
        let entry = convert::source_key(key, index_of)?;
        self.sources.delete(&entry, Behind(key))
    }

    /// Sets which network a range of addresses is in.
    pub fn set_cidr(&mut self, cidr: IpNet, vni: Vni) -> Result<()> {
        self.cidrs.set(&convert::cidr_key(cidr), vni.get(), cidr)
    }

    /// Forgets a range of addresses.
    pub fn delete_cidr(&mut self, cidr: IpNet) -> Result<()> {
        self.cidrs.delete(&convert::cidr_key(cidr), cidr)
    }
}

impl Debug for Maps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Maps").finish_non_exhaustive()
    }
}

/// A key for people.
struct Of<T>((Vni, T));

impl<T: fmt::Display> fmt::Display for Of<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (vni, of) = &self.0;
        write!(f, "{of} of VNI {vni}")
    }
}

/// A source for people.
struct Behind((LinkRef, IpNet));

impl fmt::Display for Behind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (link, prefix) = &self.0;
        write!(f, "{prefix} of {link}")
    }
}
