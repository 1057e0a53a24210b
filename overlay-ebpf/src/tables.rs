//! The only maps, with lookups that speak the data plane's language.

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_F_NO_PREALLOC},
    btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, PerCpuHashMap, lpm_trie::Key},
    macros::btf_map,
};
use overlay_common::{
    maps::{
        AddressKey4, AddressKey6, CidrKey, Count, Endpoint, EndpointStats, FlowKey, MAX_CIDRS,
        MAX_ENDPOINT_SLOTS, MAX_ENDPOINTS, MAX_ENTERED, MAX_FLOWS, MAX_NETWORKS, MAX_PEERS,
        MAX_PORTS, MAX_PREFIX_LENGTHS, MAX_SENDERS, MAX_SOURCES, Network, PassedKey, Peer,
        PeerStats, Port, PrefixKey4, PrefixKey6, SenderKey, SourceKey, Vtep,
    },
    programs::Program,
    reasons::{Drops, Passes},
};

use crate::addresses::{Address, Ip4, Ip6};

/// Memory for entries that exist, not for all that there may be; lookups cost the same.
const BY_USE: usize = BPF_F_NO_PREALLOC as usize;

#[btf_map]
static NETWORKS: HashMap<u32, Network, MAX_NETWORKS> = HashMap::new();
#[btf_map]
static PEERS4: HashMap<PrefixKey4, Peer, MAX_PEERS, BY_USE> = HashMap::new();
#[btf_map]
static PEERS6: HashMap<PrefixKey6, Peer, MAX_PEERS, BY_USE> = HashMap::new();
#[btf_map]
static VTEPS4: HashMap<AddressKey4, Vtep, MAX_PEERS, BY_USE> = HashMap::new();
#[btf_map]
static VTEPS6: HashMap<AddressKey6, Vtep, MAX_PEERS, BY_USE> = HashMap::new();
#[btf_map]
static ENDPOINTS4: HashMap<AddressKey4, Endpoint, MAX_ENDPOINTS> = HashMap::new();
#[btf_map]
static ENDPOINTS6: HashMap<AddressKey6, Endpoint, MAX_ENDPOINTS> = HashMap::new();
#[btf_map]
static PORTS: HashMap<u32, Port, MAX_PORTS> = HashMap::new();
#[btf_map]
static SOURCES: LpmTrie<SourceKey, u32, MAX_SOURCES> = LpmTrie::new();
#[btf_map]
static CIDRS: LpmTrie<CidrKey, u32, MAX_CIDRS> = LpmTrie::new();
// One more than there can be peers: slot 0 is this node's.
#[btf_map]
static PEER_STATS: PerCpuArray<PeerStats, { MAX_PEERS + 1 }> = PerCpuArray::new();
#[btf_map]
static ENDPOINT_STATS: PerCpuArray<EndpointStats, MAX_ENDPOINT_SLOTS> = PerCpuArray::new();
#[btf_map]
static DROPS: PerCpuArray<Drops, { Program::ALL.len() }> = PerCpuArray::new();
#[btf_map]
static DROPS_BY_SENDER: PerCpuHashMap<SenderKey, Count, MAX_SENDERS, BY_USE> = PerCpuHashMap::new();
#[btf_map]
static PASSES: PerCpuArray<Passes, { Program::ALL.len() }> = PerCpuArray::new();
#[btf_map]
static PASSES_BY_PEER: PerCpuHashMap<PassedKey, Count, MAX_SENDERS, BY_USE> = PerCpuHashMap::new();
#[btf_map]
static FLOWS: LruHashMap<FlowKey, u32, MAX_FLOWS> = LruHashMap::new();
#[btf_map]
static ENTERED: LruHashMap<FlowKey, u64, MAX_ENTERED> = LruHashMap::new();
#[btf_map]
static FLOWS_IN_USE: Array<u32, 1> = Array::new();

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

/// An address that maps have keys with.
pub(crate) trait Keyed: Address {
    type PrefixKey: 'static;
    type AddressKey: 'static;

    /// The lengths of the prefixes that peers have in a network.
    fn lengths(network: &Network) -> &[u8; MAX_PREFIX_LENGTHS];
    fn prefix_key(vni: u32, length: u32, prefix: Self) -> Self::PrefixKey;
    fn address_key(vni: u32, address: Self) -> Self::AddressKey;
    fn peers() -> &'static HashMap<Self::PrefixKey, Peer, MAX_PEERS, BY_USE>;
    fn vteps() -> &'static HashMap<Self::AddressKey, Vtep, MAX_PEERS, BY_USE>;
    fn endpoints() -> &'static HashMap<Self::AddressKey, Endpoint, MAX_ENDPOINTS>;
}

macro_rules! keyed {
    ($address:ty: $prefix_key:ident $address_key:ident $lengths:ident $peers:ident $vteps:ident $endpoints:ident) => {
        impl Keyed for $address {
            type PrefixKey = $prefix_key;
            type AddressKey = $address_key;

            fn lengths(network: &Network) -> &[u8; MAX_PREFIX_LENGTHS] {
                &network.$lengths
            }

            fn prefix_key(vni: u32, length: u32, prefix: Self) -> $prefix_key {
                $prefix_key {
                    vni,
                    length,
                    prefix: prefix.octets(),
                }
            }

            fn address_key(vni: u32, address: Self) -> $address_key {
                $address_key {
                    vni,
                    address: address.octets(),
                }
            }

            fn peers() -> &'static HashMap<$prefix_key, Peer, MAX_PEERS, BY_USE> {
                &$peers
            }

            fn vteps() -> &'static HashMap<$address_key, Vtep, MAX_PEERS, BY_USE> {
                &$vteps
            }

            fn endpoints() -> &'static HashMap<$address_key, Endpoint, MAX_ENDPOINTS> {
                &$endpoints
            }
        }
    };
}

keyed!(Ip4: PrefixKey4 AddressKey4 peer_lengths4 PEERS4 VTEPS4 ENDPOINTS4);
keyed!(Ip6: PrefixKey6 AddressKey6 peer_lengths6 PEERS6 VTEPS6 ENDPOINTS6);

/// The peer whose subnet an address belongs to: the longest prefix wins.
#[inline(always)]
pub(crate) fn peer<A: Keyed>(network: &Network, address: A) -> Option<&'static Peer> {
    for &length in A::lengths(network) {
        if length == 0 {
            break;
        }
        let prefix = address.masked(A::mask(length));
        let key = A::prefix_key(network.vni, length.into(), prefix);
        // SAFETY: as for `network`.
        if let Some(peer) = unsafe { A::peers().get(key) } {
            return Some(peer);
        }
    }
    None
}

/// The node with this outer address, if it may send to us in this network.
pub(crate) fn vtep<A: Keyed>(network: &Network, address: A) -> Option<&'static Vtep> {
    // SAFETY: as for `network`.
    unsafe { A::vteps().get(A::address_key(network.vni, address)) }
}

/// The endpoint of this node with this address in the network with this VNI.
pub(crate) fn endpoint<A: Keyed>(vni: u32, address: A) -> Option<&'static Endpoint> {
    // SAFETY: as for `network`.
    unsafe { A::endpoints().get(A::address_key(vni, address)) }
}

/// The endpoint behind this device may send from this address, too.
pub(crate) fn is_allowed_source<A: Address>(interface: u32, address: A) -> bool {
    const BITS: u32 = u32::BITS + u128::BITS;
    let source = SourceKey {
        ifindex_be: interface.to_be_bytes(),
        prefix: address.mapped().octets(),
    };
    SOURCES.get(&Key::new(BITS, source)).is_some()
}

/// The VNI of the network that an address is in, of all that this node takes part in.
pub(crate) fn network_around<A: Address>(address: A) -> Option<u32> {
    const BITS: u32 = u128::BITS;
    let prefix = address.mapped().octets();
    CIDRS.get(&Key::new(BITS, CidrKey { prefix })).copied()
}

/// Changes this CPU's counters of a peer; a slot that does not exist counts nothing.
pub(crate) fn count_for_peer(index: u32, count: impl FnOnce(&mut PeerStats)) {
    if let Some(stats) = PEER_STATS.get_ptr_mut(index) {
        // SAFETY: the value is this CPU's alone, our hooks run with softirqs off, and
        // `count` gets the only reference.
        count(unsafe { &mut *stats });
    }
}

/// Changes this CPU's counters of an endpoint, likewise.
pub(crate) fn count_for_endpoint(slot: u32, count: impl FnOnce(&mut EndpointStats)) {
    if let Some(stats) = ENDPOINT_STATS.get_ptr_mut(slot) {
        // SAFETY: as for `count_for_peer`.
        count(unsafe { &mut *stats });
    }
}

/// Changes this CPU's counters of a program's drops.
pub(crate) fn count_drop(program: u32, count: impl FnOnce(&mut Drops)) {
    if let Some(drops) = DROPS.get_ptr_mut(program) {
        // SAFETY: as for `count_for_peer`.
        count(unsafe { &mut *drops });
    }
}

/// Changes this CPU's count of a sender's drops; where there is no room for it, none.
pub(crate) fn count_drop_of(key: &SenderKey, count: impl FnOnce(&mut Count)) {
    count_of(&DROPS_BY_SENDER, key, count);
}

/// Changes this CPU's count of what was left to the kernel of a peer, likewise.
pub(crate) fn count_pass_of(key: PassedKey, count: impl FnOnce(&mut Count)) {
    count_of(&PASSES_BY_PEER, &key, count);
}

#[inline(always)]
fn count_of<K>(
    map: &PerCpuHashMap<K, Count, MAX_SENDERS, BY_USE>,
    key: &K,
    count: impl FnOnce(&mut Count),
) {
    if let Some(known) = map.get_ptr_mut(key) {
        // SAFETY: as for `count_for_peer`.
        count(unsafe { &mut *known });
        return;
    }
    let mut first = Count::default();
    count(&mut first);
    // Another CPU may have been faster: its count stays, this sets that of this CPU alone.
    // When the map is full, the packet is counted everywhere else.
    let _ = map.insert(key, first, BPF_ANY.into());
}

/// Changes this CPU's counters of a program's passes.
pub(crate) fn count_pass(program: u32, count: impl FnOnce(&mut Passes)) {
    if let Some(passes) = PASSES.get_ptr_mut(program) {
        // SAFETY: as for `count_for_peer`.
        count(unsafe { &mut *passes });
    }
}

/// Not 0 once the kernel has translated a flow.
pub(crate) fn flows_in_use() -> u32 {
    FLOWS_IN_USE.get(0).copied().unwrap_or(0)
}

/// What the kernel does with a flow, one of [`translated`](overlay_common::maps::translated).
pub(crate) fn flow(key: &FlowKey) -> Option<*mut u32> {
    FLOWS.get_ptr_mut(key)
}

/// Writes down what the kernel does with a flow.
pub(crate) fn set_flow(key: &FlowKey, translated: u32) {
    // Refused only where no row can be taken from another flow: then this one is as before.
    let _ = FLOWS.insert(key, translated, BPF_ANY.into());
}

/// From now on it is worth a look what the kernel does with flows.
pub(crate) fn use_flows() {
    if flows_in_use() == 0 {
        // An element of an array is always there.
        let _ = FLOWS_IN_USE.set(0, 1, BPF_ANY.into());
    }
}

/// When a packet of the flow was last left to the kernel on its way to an endpoint.
pub(crate) fn entered(key: &FlowKey) -> Option<u64> {
    // SAFETY: as for `network`.
    unsafe { ENTERED.get(key) }.copied()
}

/// Writes down that one is.
pub(crate) fn set_entered(key: &FlowKey, now: u64) {
    // As in `set_flow`.
    let _ = ENTERED.insert(key, now, BPF_ANY.into());
}
