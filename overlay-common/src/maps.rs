//! Keys, values, names and sizes of the maps.
//!
//! All types are `repr(C)` without padding, so a value that is written is
//! entirely defined and can be compared byte by byte.

mod counters;
mod flows;

use bytemuck::{Pod, Zeroable};

pub use self::{
    counters::{Count, EndpointStats, PassedKey, PeerStats, SenderKey, SenderKind},
    flows::{ENTERED, FLOWS, FLOWS_IN_USE, FlowKey, MAX_ENTERED, MAX_FLOWS, peer_ways, translated},
};

/// VNI → [`Network`]: the networks that this node takes part in.
pub const NETWORKS: &str = "NETWORKS";
/// [`PrefixKey4`] → [`Peer`]: whose subnet an inner IPv4 address belongs to.
pub const PEERS4: &str = "PEERS4";
/// [`PrefixKey6`] → [`Peer`]: whose subnet an inner IPv6 address belongs to.
pub const PEERS6: &str = "PEERS6";
/// [`AddressKey4`] → [`Vtep`]: the outer IPv4 addresses that may send to us.
pub const VTEPS4: &str = "VTEPS4";
/// [`AddressKey6`] → [`Vtep`]: the outer IPv6 addresses that may send to us.
pub const VTEPS6: &str = "VTEPS6";
/// [`AddressKey4`] → [`Endpoint`]: the containers on this node, by IPv4 address.
pub const ENDPOINTS4: &str = "ENDPOINTS4";
/// [`AddressKey6`] → [`Endpoint`]: the containers on this node, by IPv6 address.
pub const ENDPOINTS6: &str = "ENDPOINTS6";
/// Interface index → [`Port`]: which network a device of ours belongs to.
pub const PORTS: &str = "PORTS";
/// [`SourceKey`], a trie → 1: what an endpoint may send from besides its own addresses.
pub const SOURCES: &str = "SOURCES";
/// [`CidrKey`], a trie → VNI: the network that an address is in.
pub const CIDRS: &str = "CIDRS";
/// [`Vtep::index`] → [`PeerStats`], per CPU.
pub const PEER_STATS: &str = "PEER_STATS";
/// [`Endpoint::slot`] → [`EndpointStats`], per CPU.
pub const ENDPOINT_STATS: &str = "ENDPOINT_STATS";
/// [`Program`](crate::programs::Program) → [`Drops`](crate::reasons::Drops), per CPU.
pub const DROPS: &str = "DROPS";
/// [`SenderKey`] → [`Count`], per CPU: drops by who sent the packet, once there was one. What
/// no peer and no endpoint has sent, or there is no room for, is in [`DROPS`] alone.
pub const DROPS_BY_SENDER: &str = "DROPS_BY_SENDER";
/// [`Program`](crate::programs::Program) → [`Passes`](crate::reasons::Passes), per CPU.
pub const PASSES: &str = "PASSES";
/// [`PassedKey`] → [`Count`], per CPU: what the programs knew to be a peer's and left to the kernel.
/// What there is no room for is in [`PASSES`] alone.
pub const PASSES_BY_PEER: &str = "PASSES_BY_PEER";
/// Networks that a node can be part of.
pub const MAX_NETWORKS: usize = 256;
/// Peer subnets of one family in all networks together; VTEPs likewise.
pub const MAX_PEERS: usize = 131_072;
/// Endpoints of all networks on one node.
pub const MAX_ENDPOINTS: usize = 4_096;
/// Endpoints' host-side devices and, for each network, one VXLAN device per underlay family.
pub const MAX_PORTS: usize = MAX_ENDPOINTS + 2 * MAX_NETWORKS;
/// Prefixes of all endpoints together that they may send from besides their own addresses.
pub const MAX_SOURCES: usize = 4_096;
/// Address ranges of all networks together.
pub const MAX_CIDRS: usize = 2 * MAX_NETWORKS;
/// Different lengths of peer prefixes of one family in one network; each costs a lookup.
pub const MAX_PREFIX_LENGTHS: usize = 8;

/// Next hops that the flows to one peer are spread over.
pub const MAX_NEXT_HOPS: usize = 8;
/// Parts that the flows to a peer with several next hops are divided in; a power of two.
pub const BUCKETS: usize = 16;

/// Senders and reasons, in pairs, for which drops are counted apart; passes likewise.
pub const MAX_SENDERS: usize = 16_384;

/// The slot in [`PEER_STATS`] that counts deliveries between endpoints of this node.
pub const LOCAL_INDEX: u32 = 0;

/// The slot in [`ENDPOINT_STATS`] of the node itself: what it sends or routes through its VXLAN
/// devices.
pub const NODE_SLOT: u32 = 0;
/// The slot in [`ENDPOINT_STATS`] of endpoints that are no more, in which no program counts:
/// what they had counted comes here when somebody else gets their slot.
pub const FORMER_SLOT: u32 = 1;
/// The first slot in [`ENDPOINT_STATS`] that an endpoint can have.
pub const FIRST_ENDPOINT_SLOT: u32 = 2;
/// Slots in [`ENDPOINT_STATS`].
pub const MAX_ENDPOINT_SLOTS: usize = MAX_ENDPOINTS + FIRST_ENDPOINT_SLOT as usize;

/// What the data plane must know of a network, by its VNI.
///
/// Without an address or a subnet of a family, that family's fields are 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Network {
    /// VXLAN network identifier, 24 bits (RFC 7348 §5).
    pub vni: u32,
    /// This node's outer IPv4 address.
    pub vtep: [u8; 4],
    /// This node's share of the network; every endpoint of this node is in it.
    pub subnet: [u8; 4],
    /// Netmask of `subnet`.
    pub subnet_mask: [u8; 4],
    /// Lengths in bits that peers' IPv4 prefixes have, longest first, ended by 0 when fewer.
    pub peer_lengths4: [u8; MAX_PREFIX_LENGTHS],
    /// Lengths in bits that peers' IPv6 prefixes have, longest first, ended by 0 when fewer.
    pub peer_lengths6: [u8; MAX_PREFIX_LENGTHS],
    /// What differs from the defaults: see [`network_flags`].
    pub flags: u32,
    /// Interface that decrypts what comes in the tunnels, where they are encrypted; 0 before there is one.
    pub decrypted_by: u32,
    /// Largest inner IP packet in bytes that the underlay carries in one piece.
    pub mtu: u16,
    /// UDP destination port, network order.
    pub port_be: [u8; 2],
    /// Inner source MAC of what this node sends over IPv4, inner destination of what it receives.
    pub vtep_mac: [u8; 6],
    /// The same over IPv6.
    pub vtep6_mac: [u8; 6],
    /// MAC of the bridge: endpoints address it to reach what is not their neighbour.
    pub gateway_mac: [u8; 6],
    /// 0.
    pub reserved: [u8; 2],
    /// This node's outer IPv6 address.
    pub vtep6: [u8; 16],
    /// This node's share of the network in IPv6.
    pub subnet6: [u8; 16],
    /// Netmask of `subnet6`.
    pub subnet6_mask: [u8; 16],
}

/// Bits of [`Network::flags`]. A network without any is as strict as can be.
pub mod network_flags {
    /// Outer sources that no peer has are received.
    pub const ANY_VTEP: u32 = 1 << 0;
    /// Peers may send from any inner address.
    pub const ANY_INNER_SOURCE: u32 = 1 << 1;
    /// Endpoints may send from any address and MAC, and claim any as theirs.
    pub const ANY_ENDPOINT_SOURCE: u32 = 1 << 2;
    /// Packets to another network of this node are left to the kernel.
    pub const OTHER_NETWORKS: u32 = 1 << 3;
    /// Inner sources that nobody can have (RFC 1122 §3.2.1.3, RFC 4291 §2) are received.
    pub const MARTIANS: u32 = 1 << 4;
    /// Malformed packets are left to the kernel, which drops them itself.
    pub const MALFORMED: u32 = 1 << 5;
    /// The outer header carries the inner DSCP; otherwise 0.
    pub const COPY_DSCP: u32 = 1 << 6;
    /// What would be forwarded is left to the kernel, whose connection tracking has to see it:
    /// rules of others ask for the state of connections.
    pub const TRACKED: u32 = 1 << 7;
    /// A connection goes by the kernel in both directions or in none: rules of others drop what
    /// belongs to no connection that connection tracking has seen.
    pub const ONE_PATH: u32 = 1 << 8;
    /// Something of somebody else is on the tunnels' way that the programs would pass by: what
    /// goes to peers and comes from them is left to the kernel, once it has been checked.
    pub const HOOKED: u32 = 1 << 9;
    /// What comes in its tunnels by another interface than
    /// [`decrypted_by`](super::Network::decrypted_by) was not encrypted.
    pub const ENCRYPTED: u32 = 1 << 10;
    /// Forwarding over IPv4 leaves `skb->priority` as it is
    /// (`net.ipv4.ip_forward_update_priority` is 0).
    pub const KEEP_PRIORITY: u32 = 1 << 11;
}

/// A network and an IPv4 address masked to one of its prefix lengths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct PrefixKey4 {
    /// VXLAN network identifier.
    pub vni: u32,
    /// Length of the prefix in bits.
    pub length: u32,
    /// The address with all host bits 0.
    pub prefix: [u8; 4],
}

/// A network and an IPv6 address masked to one of its prefix lengths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct PrefixKey6 {
    /// VXLAN network identifier.
    pub vni: u32,
    /// Length of the prefix in bits.
    pub length: u32,
    /// The address with all host bits 0.
    pub prefix: [u8; 16],
}

/// A network and an IPv4 address: inner for endpoints, outer for VTEPs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct AddressKey4 {
    /// VXLAN network identifier.
    pub vni: u32,
    /// The whole address.
    pub address: [u8; 4],
}

/// A network and an IPv6 address: inner for endpoints, outer for VTEPs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct AddressKey6 {
    /// VXLAN network identifier.
    pub vni: u32,
    /// The whole address.
    pub address: [u8; 16],
}

/// An endpoint's device and a prefix, after the length that a trie wants first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct SourceKey {
    /// Host side of the endpoint's veth, network order: tries compare from the first bit on.
    pub ifindex_be: [u8; 4],
    /// IPv6, or IPv4 mapped to it ([`mapped`]).
    pub prefix: [u8; 16],
}

/// A prefix, after the length that a trie wants first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct CidrKey {
    /// IPv6, or IPv4 mapped to it ([`mapped`]).
    pub prefix: [u8; 16],
}

/// `::ffff:0:0/96` before an IPv4 address (RFC 4291 §2.5.5.2): one form for both families.
pub const fn mapped(address: [u8; 4]) -> [u8; 16] {
    let [a, b, c, d] = address;
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}

/// The node that a subnet is behind, and the way to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Peer {
    /// Outer destination address; IPv4 is [`mapped`].
    pub vtep: [u8; 16],
    /// Underlay neighbour that gets the packet: a router, or the VTEP itself. A router may be of
    /// the other family; IPv4 is [`mapped`].
    pub next_hop: [u8; 16],
    /// Underlay interface; 0 while there is no way there.
    pub underlay_ifindex: u32,
    /// Slot in [`PEER_STATS`].
    pub index: u32,
    /// Inner destination MAC.
    pub mac: [u8; 6],
    /// See [`peer_flags`].
    pub flags: u16,
    /// Largest inner IP packet in bytes that the whole path to it carries: the network's MTU,
    /// or less where the kernel has learned that a link on the way is narrower.
    pub mtu: u16,
    /// How many of `more` there are: with 0, all goes to `next_hop`.
    pub others: u8,
    /// 0.
    pub reserved: u8,
    /// Where flows go, by [`bucket`](crate::wire::bucket): 0 is `next_hop`, 1 the first of `more`.
    pub spread: [u8; BUCKETS],
    /// Next hops besides `next_hop`; what is not used is 0.
    pub more: [NextHop; MAX_NEXT_HOPS - 1],
}

/// One of several neighbours on the way to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct NextHop {
    /// As [`Peer::next_hop`].
    pub address: [u8; 16],
    /// Its interface.
    pub ifindex: u32,
}

/// Bits of [`Peer::flags`].
pub mod peer_flags {
    /// The outer header is IPv6.
    pub const IPV6: u16 = 1 << 0;
    /// The kernel's device sends to it: it does not accept IPv6 UDP without a checksum.
    pub const NEEDS_CHECKSUM: u16 = 1 << 1;
    /// Somebody else has something on the kernel's way to these addresses: what comes from them is
    /// left to the kernel, once it has been checked.
    pub const HOOKED: u16 = 1 << 2;
}

/// A node that may send to us in a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Vtep {
    /// Slot in [`PEER_STATS`].
    pub index: u32,
}

/// A container of this node.
///
/// The network stands here by value, as in [`Port`]: a packet that arrives has to be looked up
/// by its container only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Endpoint {
    /// The network that it is in.
    pub network: Network,
    /// Host side of its veth.
    pub ifindex: u32,
    /// Slot in [`ENDPOINT_STATS`].
    pub slot: u32,
    /// MAC of the interface inside the container.
    pub mac: [u8; 6],
    /// See [`endpoint_flags`].
    pub flags: u16,
}

/// Bits of [`Endpoint::flags`] and of [`Port::flags`].
pub mod endpoint_flags {
    /// It forwards packets to others behind it.
    pub const FORWARDING: u16 = 1 << 0;
    /// Something of somebody else is at the device that the programs would pass by: what it sends
    /// and gets is left to the kernel, once it has been checked. In a [`Port`](super::Port), too.
    pub const HOOKED: u16 = 1 << 1;
}

/// What a packet that enters at a device of ours is measured against.
///
/// The network stands here by value, not by VNI: it saves the fast path a lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Port {
    /// The network of the device.
    pub network: Network,
    /// The endpoint's IPv4 address; 0.0.0.0 if it has none, and for a VXLAN device.
    pub address: [u8; 4],
    /// The endpoint's IPv6 address; :: if it has none, and for a VXLAN device.
    pub address6: [u8; 16],
    /// The endpoint's slot in [`ENDPOINT_STATS`]; [`NODE_SLOT`] for a VXLAN device.
    pub slot: u32,
    /// The endpoint's MAC, or the VXLAN device's.
    pub mac: [u8; 6],
    /// See [`endpoint_flags`].
    pub flags: u16,
}

// The sizes are part of the ABI: bpftool users and older agents rely on them.
const _: () = {
    assert!(size_of::<Network>() == 112);
    assert!(size_of::<PrefixKey4>() == 12);
    assert!(size_of::<PrefixKey6>() == 24);
    assert!(size_of::<AddressKey4>() == 8);
    assert!(size_of::<AddressKey6>() == 20);
    assert!(size_of::<SourceKey>() == 20);
    assert!(size_of::<CidrKey>() == 16);
    assert!(size_of::<Peer>() == 208);
    assert!(size_of::<Vtep>() == 4);
    assert!(size_of::<Endpoint>() == 128);
    assert!(size_of::<Port>() == 144);
    assert!(size_of::<Count>() == 16);
    assert!(size_of::<PeerStats>() == 48);
    assert!(size_of::<EndpointStats>() == 96);
    assert!(size_of::<SenderKey>() == 12);
    assert!(size_of::<PassedKey>() == 8);
    assert!(size_of::<FlowKey>() == 44);
};

#[cfg(feature = "aya")]
mod pod {
    use super::{
        AddressKey4, AddressKey6, CidrKey, Count, Endpoint, EndpointStats, FlowKey, Network, Peer,
        PeerStats, Port, PrefixKey4, PrefixKey6, SourceKey, Vtep,
    };
    use crate::reasons::{Drops, Passes};

    macro_rules! pod {
        ($($type:ty),+ $(,)?) => {$(
            // SAFETY: aya asks that every bit pattern is a value and that there is no
            // padding; `bytemuck::Pod`, derived with its checks for this type, is that proof.
            unsafe impl aya::Pod for $type {}
        )+};
    }

    pod!(
        AddressKey4,
        AddressKey6,
        CidrKey,
        Count,
        Drops,
        Endpoint,
        EndpointStats,
        FlowKey,
        Network,
        Passes,
        Peer,
        PeerStats,
        Port,
        PrefixKey4,
        PrefixKey6,
        SourceKey,
        Vtep,
    );
}
