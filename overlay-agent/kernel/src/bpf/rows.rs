//! The agent's entries as rows of the maps, byte for byte, and rows that are none of them.

use bytemuck::{Pod, bytes_of};
use overlay_common::maps::{
    CIDRS, ENDPOINTS4, ENDPOINTS6, NETWORKS, PEERS4, PEERS6, PORTS, SOURCES, VTEPS4, VTEPS6, Vtep,
};
use overlay_core::{
    model::IfName,
    objects::{Entries, PeerEntries, Stray},
};

use super::{by_family::ByFamily, convert};
use crate::Result;

/// The value of every row of [`SOURCES`]: the key says it all.
pub(super) const ALLOWED: u32 = 1;

/// Tells each row that the entries make: map, key and value.
pub(super) fn each(
    entries: &Entries,
    index_of: impl Fn(IfName) -> Option<u32> + Copy,
    mut tell: impl FnMut(&'static str, &[u8], &[u8]),
) -> Result<()> {
    for (vni, network) in &entries.networks {
        tell(NETWORKS, bytes_of(&vni.get()), bytes_of(network));
    }
    for (&key, endpoint) in &entries.endpoints {
        let endpoint = convert::endpoint(endpoint, index_of)?;
        let key = convert::address_key(key);
        let (map, key) = split([ENDPOINTS4, ENDPOINTS6], &key);
        tell(map, key, bytes_of(&endpoint));
    }
    for (&link, port) in &entries.ports {
        let index = convert::index(link, index_of)?;
        tell(PORTS, bytes_of(&index), bytes_of(port));
    }
    for &source in &entries.sources {
        let key = convert::source_key(source, index_of)?;
        let key = trie_key(key.prefix_len(), &key.data());
        tell(SOURCES, &key, bytes_of(&ALLOWED));
    }
    for (&cidr, vni) in &entries.cidrs {
        let key = convert::cidr_key(cidr);
        let key = trie_key(key.prefix_len(), &key.data());
        tell(CIDRS, &key, bytes_of(&vni.get()));
    }
    for Stray { map, key, value } in &entries.strays {
        tell(map, key, value);
    }
    Ok(())
}

/// The same of what leads to the peers.
pub(super) fn each_of_peers(
    entries: &PeerEntries,
    index_of: impl Fn(IfName) -> Option<u32> + Copy,
    mut tell: impl FnMut(&'static str, &[u8], &[u8]),
) -> Result<()> {
    for (&key, peer) in &entries.subnets {
        let peer = convert::peer(peer, index_of)?;
        let key = convert::prefix_key(key);
        let (map, key) = split([PEERS4, PEERS6], &key);
        tell(map, key, bytes_of(&peer));
    }
    for (&key, &index) in &entries.vteps {
        let key = convert::address_key(key);
        let (map, key) = split([VTEPS4, VTEPS6], &key);
        tell(map, key, bytes_of(&Vtep { index }));
    }
    Ok(())
}

/// A row that cannot be translated.
pub(super) fn stray(map: &'static str, key: &[u8], value: &impl Pod) -> Stray {
    Stray {
        map,
        key: key.to_vec(),
        value: bytes_of(value).to_vec(),
    }
}

/// The map of a key's family, and its bytes.
pub(super) fn split<'a, A: Pod, B: Pod>(
    [v4, v6]: [&'static str; 2],
    key: &'a ByFamily<A, B>,
) -> (&'static str, &'a [u8]) {
    match key {
        ByFamily::V4(key) => (v4, bytes_of(key)),
        ByFamily::V6(key) => (v6, bytes_of(key)),
    }
}

/// A trie's key as the kernel has it.
pub(super) fn trie_key(length: u32, data: &impl Pod) -> Vec<u8> {
    [bytes_of(&length), bytes_of(data)].concat()
}
