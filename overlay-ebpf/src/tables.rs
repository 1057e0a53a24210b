//! The only maps, with lookups that speak the data plane's language.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    btf_maps::{HashMap, PerCpuArray},
    macros::btf_map,
};
use overlay_common::{
    maps::{
        AddressKey4, Endpoint, MAX_ENDPOINTS, MAX_NETWORKS, MAX_PEERS, MAX_PORTS, Network, Peer,
        PeerStats, Port, PrefixKey4, Vtep,
    },
    reasons::{Drops, Passes},
};

use crate::addresses::Ip;

/// Memory for entries that exist, not for all that there may be; lookups cost the same.
const BY_USE: usize = BPF_F_NO_PREALLOC as usize;

#[btf_map]
static NETWORKS: HashMap<u32, Network, MAX_NETWORKS> = HashMap::new();
#[btf_map]
static PEERS4: HashMap<PrefixKey4, Peer, MAX_PEERS, BY_USE> = HashMap::new();
#[btf_map]
static VTEPS4: HashMap<AddressKey4, Vtep, MAX_PEERS, BY_USE> = HashMap::new();
#[btf_map]
static ENDPOINTS4: HashMap<AddressKey4, Endpoint, MAX_ENDPOINTS> = HashMap::new();
#[btf_map]
static PORTS: HashMap<u32, Port, MAX_PORTS> = HashMap::new();
// One more than there can be peers: slot 0 is this node's.
#[btf_map]
static PEER_STATS: PerCpuArray<PeerStats, { MAX_PEERS + 1 }> = PerCpuArray::new();
#[btf_map]
static DROPS: PerCpuArray<Drops, 1> = PerCpuArray::new();
#[btf_map]
static PASSES: PerCpuArray<Passes, 1> = PerCpuArray::new();

/// The network with this VNI, if this node takes part in it.
pub(crate) fn network(vni: u32) -> Option<&'static Network> {
    // SAFETY: the kernel frees no entry while a program runs. It may reuse a deleted one:
    // then the value is another network's, of which any bit pattern is a valid `Network`.
    unsafe { NETWORKS.get(vni) }
}

/// What the device with this index is to us.
pub(crate) fn port(interface: u32) -> Option<&'static Port> {
    // SAFETY: as for `network`.
    unsafe { PORTS.get(interface) }
}

/// The peer whose subnet an address belongs to: the longest prefix wins.
#[inline(always)]
pub(crate) fn peer(network: &Network, address: Ip) -> Option<&'static Peer> {
    for &length in &network.peer_lengths4 {
        if length == 0 {
            break;
        }
        let key = PrefixKey4 {
            vni: network.vni,
            length: length.into(),
            prefix: address.masked(Ip::mask(length)).octets(),
        };
        // SAFETY: as for `network`.
        if let Some(peer) = unsafe { PEERS4.get(key) } {
            return Some(peer);
        }
    }
    None
}

/// The node with this outer address, if it may send to us in this network.
pub(crate) fn vtep(network: &Network, address: Ip) -> Option<&'static Vtep> {
    // SAFETY: as for `network`.
    unsafe { VTEPS4.get(key(network, address)) }
}

/// The endpoint of this node with this address.
pub(crate) fn endpoint(network: &Network, address: Ip) -> Option<&'static Endpoint> {
    // SAFETY: as for `network`.
    unsafe { ENDPOINTS4.get(key(network, address)) }
}

fn key(network: &Network, address: Ip) -> AddressKey4 {
    AddressKey4 {
        vni: network.vni,
        address: address.octets(),
    }
}

/// Changes this CPU's counters of a peer; a slot that does not exist counts nothing.
pub(crate) fn count_for_peer(index: u32, count: impl FnOnce(&mut PeerStats)) {
    if let Some(stats) = PEER_STATS.get_ptr_mut(index) {
        // SAFETY: the value is this CPU's alone, our hooks run with softirqs off, and
        // `count` gets the only reference.
        count(unsafe { &mut *stats });
    }
}

/// Changes this CPU's counters of drops.
pub(crate) fn count_drop(count: impl FnOnce(&mut Drops)) {
    if let Some(drops) = DROPS.get_ptr_mut(0) {
        // SAFETY: as for `count_for_peer`.
        count(unsafe { &mut *drops });
    }
}

/// Changes this CPU's counters of passes.
pub(crate) fn count_pass(count: impl FnOnce(&mut Passes)) {
    if let Some(passes) = PASSES.get_ptr_mut(0) {
        // SAFETY: as for `count_for_peer`.
        count(unsafe { &mut *passes });
    }
}
