//! Keys, values, names and sizes of the maps.
//!
//! All types are `repr(C)` without padding, so a value that is written is
//! entirely defined and can be compared byte by byte.

use bytemuck::{Pod, Zeroable};

/// VNI → [`Network`]: the networks that this node takes part in.
pub const NETWORKS: &str = "NETWORKS";
/// [`PrefixKey4`] → [`Peer`]: whose subnet an inner address belongs to.
pub const PEERS4: &str = "PEERS4";
/// [`AddressKey4`] → [`Vtep`]: the outer addresses that may send to us.
pub const VTEPS4: &str = "VTEPS4";
/// [`AddressKey4`] → [`Endpoint`]: the containers on this node.
pub const ENDPOINTS4: &str = "ENDPOINTS4";
/// Interface index → [`Port`]: which network a device of ours belongs to.
pub const PORTS: &str = "PORTS";
/// [`Vtep::index`] → [`PeerStats`], per CPU.
pub const PEER_STATS: &str = "PEER_STATS";
/// One value, per CPU: [`crate::reasons::Drops`].
pub const DROPS: &str = "DROPS";
/// One value, per CPU: [`crate::reasons::Passes`].
pub const PASSES: &str = "PASSES";

/// Networks that a node can be part of.
pub const MAX_NETWORKS: usize = 256;
/// Peer subnets of all networks together.
pub const MAX_PEERS: usize = 131_072;
/// Endpoints of all networks on one node.
pub const MAX_ENDPOINTS: usize = 4_096;
/// Endpoints' host-side devices and one VXLAN device per network.
pub const MAX_PORTS: usize = MAX_ENDPOINTS + MAX_NETWORKS;
/// Different lengths of peer prefixes in one network; each costs a lookup.
pub const MAX_PREFIX_LENGTHS: usize = 6;

/// The slot in [`PEER_STATS`] that counts deliveries between endpoints of this node.
pub const LOCAL_INDEX: u32 = 0;

/// What the data plane must know of a network, by its VNI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Network {
    /// VXLAN network identifier, 24 bits (RFC 7348 §5).
    pub vni: u32,
    /// This node's outer address.
    pub vtep: [u8; 4],
    /// This node's share of the network; every endpoint of this node is in it.
    pub subnet: [u8; 4],
    /// Netmask of `subnet`.
    pub subnet_mask: [u8; 4],
    /// Netmasks that peer prefixes have, longest first, ended by 0.0.0.0 when fewer.
    pub peer_masks: [[u8; 4]; MAX_PREFIX_LENGTHS],
    /// Reserved for switches of the security rules; 0.
    pub flags: u32,
    /// Largest inner IP packet in bytes that the underlay carries in one piece.
    pub mtu: u16,
    /// UDP destination port, network order.
    pub port_be: [u8; 2],
    /// Inner source MAC of what this node sends; inner destination of what it receives.
    pub vtep_mac: [u8; 6],
    /// MAC of the bridge: endpoints address it to reach what is not their neighbour.
    pub gateway_mac: [u8; 6],
}

/// A network and an address masked to one of its prefix lengths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct PrefixKey4 {
    /// VXLAN network identifier.
    pub vni: u32,
    /// The address with all host bits 0.
    pub prefix: [u8; 4],
}

/// A network and an address: inner for endpoints, outer for VTEPs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct AddressKey4 {
    /// VXLAN network identifier.
    pub vni: u32,
    /// The whole address.
    pub address: [u8; 4],
}

/// The node that a subnet is behind, and the way to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Peer {
    /// Outer destination address.
    pub vtep: [u8; 4],
    /// Underlay neighbour that gets the packet: a router, or the VTEP itself.
    pub next_hop: [u8; 4],
    /// Netmask of the subnet. Prefixes of another length can share the key: an entry
    /// counts only when it was found with its own mask.
    pub subnet_mask: [u8; 4],
    /// Underlay interface; 0 while there is no way there.
    pub underlay_ifindex: u32,
    /// Slot in [`PEER_STATS`].
    pub index: u32,
    /// Inner destination MAC.
    pub mac: [u8; 6],
    /// Reserved; 0.
    pub flags: u16,
}

/// A node that may send to us in a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Vtep {
    /// Slot in [`PEER_STATS`].
    pub index: u32,
}

/// A container of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Endpoint {
    /// Host side of its veth.
    pub ifindex: u32,
    /// MAC of the interface inside the container.
    pub mac: [u8; 6],
    /// Reserved; 0.
    pub flags: u16,
}

/// What a packet that enters at a device of ours is measured against.
///
/// The network stands here by value, not by VNI: it saves the fast path a lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Port {
    /// The network of the device.
    pub network: Network,
    /// The only IPv4 source address allowed; 0.0.0.0 for a VXLAN device.
    pub address: [u8; 4],
    /// The only source MAC allowed.
    pub mac: [u8; 6],
    /// Reserved; 0.
    pub flags: u16,
}

/// Packets and bytes; a GSO or GRO packet counts once, as `ip -s link` counts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Count {
    /// Number of packets.
    pub packets: u64,
    /// Frame length, Ethernet header included: the inner frame's where it was delivered,
    /// else that of the whole packet as it arrived.
    pub bytes: u64,
}

/// Traffic with one peer as seen by one CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct PeerStats {
    /// Encapsulated and handed to the underlay; for [`LOCAL_INDEX`], delivered on this node.
    pub tx: Count,
    /// Decapsulated and delivered to an endpoint.
    pub rx: Count,
    /// Received from it and dropped, for any reason.
    pub dropped: Count,
}

// The sizes are part of the ABI: bpftool users and older agents rely on them.
const _: () = {
    assert!(size_of::<Network>() == 60);
    assert!(size_of::<PrefixKey4>() == 8);
    assert!(size_of::<AddressKey4>() == 8);
    assert!(size_of::<Peer>() == 28);
    assert!(size_of::<Vtep>() == 4);
    assert!(size_of::<Endpoint>() == 12);
    assert!(size_of::<Port>() == 72);
    assert!(size_of::<Count>() == 16);
    assert!(size_of::<PeerStats>() == 48);
};

#[cfg(feature = "aya")]
mod pod {
    use super::{AddressKey4, Endpoint, Network, Peer, PeerStats, Port, PrefixKey4, Vtep};
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
        Drops,
        Endpoint,
        Network,
        Passes,
        Peer,
        PeerStats,
        Port,
        PrefixKey4,
        Vtep,
    );
}
