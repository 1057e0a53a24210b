//! Why a packet did not take the fast path to its end.
//!
//! A packet that enters a program leaves it in exactly one way: delivered
//! (counted in [`crate::maps::ENDPOINT_STATS`] and [`crate::maps::PEER_STATS`]), passed to the
//! kernel's own stack (counted in [`Passes`]) or dropped (counted in [`Drops`]).

use bytemuck::{CheckedBitPattern, NoUninit, Pod, Zeroable};

use crate::maps::Count;

/// Defines an enum of reasons together with the struct that counts them, field by
/// field in the same order, so that a map dump names each counter.
macro_rules! reasons {
    (
        $(#[$enum_doc:meta])* $enum:ident counted by $(#[$struct_doc:meta])* $struct:ident;
        $($(#[$doc:meta])* $variant:ident = $field:ident: $text:literal,)+
    ) => {
        $(#[$enum_doc])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, NoUninit, CheckedBitPattern,
        )]
        #[repr(u32)]
        pub enum $enum {
            $($(#[$doc])* $variant,)+
        }

        impl $enum {
            /// Every reason, in the order of its number.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name as counters, logs and JSON carry it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => stringify!($field),)+
                }
            }

            /// One sentence for people: what was seen.
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }

        $(#[$struct_doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
        #[repr(C)]
        pub struct $struct {
            $(
                #[doc = $text]
                pub $field: Count,
            )+
        }

        impl $struct {
            /// The counters by number of their reason.
            pub fn counts_mut(&mut self) -> &mut [Count; $enum::ALL.len()] {
                bytemuck::cast_mut(self)
            }

            /// The count of one reason.
            pub const fn of(&self, reason: $enum) -> Count {
                match reason {
                    $($enum::$variant => self.$field,)+
                }
            }
        }
    };
}

reasons! {
    /// Why a packet was dropped.
    DropReason counted by
    /// Drops of one program by reason, as seen by one CPU.
    Drops;
    /// The source MAC or address is not the endpoint's own.
    SpoofedSource = spoofed_source: "an endpoint sent from a MAC or address that is not its own",
    /// An ARP or neighbour discovery message that claims an address of somebody else.
    SpoofedNeighbour = spoofed_neighbour: "an endpoint claimed a MAC or address that is not its own",
    /// The destination is in another network that this node takes part in.
    OtherNetwork = other_network: "an endpoint sent to another network",
    /// RFC 7348 §5: the I flag is clear or a reserved bit is set.
    InvalidVxlanHeader = invalid_vxlan_header: "the VXLAN flags are not those of RFC 7348",
    /// No peer of this network has this outer source address.
    UnknownVtep = unknown_vtep: "the outer source address is no VTEP of this network",
    /// RFC 7348 §6.1: a frame with a VLAN tag must not be taken out of the tunnel.
    InnerVlanTag = inner_vlan_tag: "the inner frame has a VLAN tag",
    /// The inner source belongs to another node's subnet, or to nobody's.
    SourceNotBehindVtep = source_not_behind_vtep: "the inner source address is not behind the VTEP that sent it",
    /// The inner source is an address that nobody can send from.
    MartianSource = martian_source: "the inner source is a loopback, multicast, broadcast or unspecified address",
    /// Truncated, or its lengths contradict each other.
    Malformed = malformed: "truncated or contradictory lengths",
    /// RFC 6040 §4.2: congestion was experienced by a packet that cannot carry the mark.
    EcnNotCapable = ecn_not_capable: "outer congestion mark on an inner packet that is not ECN-capable",
    /// The kernel resized a packet to something unexpected.
    ResizeFailed = resize_failed: "the packet's headers were not there any more after it was resized",
    /// The network is encrypted, and this came by another device than its `WireGuard`'s.
    Unencrypted = unencrypted: "the network is encrypted, and the packet was not",
}

reasons! {
    /// Why a packet was left to the kernel's stack and its VXLAN device.
    PassReason counted by
    /// Passes of one program by reason, as seen by one CPU.
    Passes;
    /// The device has no entry in `PORTS`.
    UnknownPort = unknown_port: "the device is not in the map of ports",
    /// ARP, VLAN-tagged and everything else that is neither plain IPv4 nor plain IPv6.
    NotIp = not_ip: "not an untagged IP packet",
    /// Broadcast or multicast, by MAC or by address.
    NotUnicast = not_unicast: "broadcast or multicast",
    /// IPv4 options or IPv6 extension headers: only the stack processes them.
    IpOptions = ip_options: "the IP header has options or extension headers",
    /// A fragment, inner or outer.
    Fragment = fragment: "a fragment",
    /// Truncated or contradictory where the kernel is the judge; it drops and counts it.
    Malformed = malformed: "truncated or contradictory lengths, left to the kernel",
    /// On the underlay: not for a UDP port, address and VNI of ours.
    NotOurs = not_ours: "underlay traffic to another address, port or VNI than those of this node's tunnels",
    /// Only where the network takes packets from anybody.
    AnyVtep = any_vtep: "from a VTEP that no peer has, in a network that accepts any",
    /// A node speaks from its underlay address. What is sent to that address goes by the kernel, so
    /// this does, too: connection tracking sees a flow in both directions or not at all.
    NodeAddress = node_address: "from the underlay address of the peer's node",
    /// The destination is the gateway of the network, or this node's end of its tunnels: the node's own
    /// stack is who gets it.
    ToNode = to_node: "the destination is the node itself: its gateway address, or its underlay address",
    /// The destination is neither an endpoint here nor in the subnet of a peer to which there is a way; or
    /// the source is a link-local address, which speaks to neighbours on the bridge alone.
    NoRoute = no_route: "no endpoint here and no peer that can be reached has the destination, or the source is link-local",
    /// The destination MAC is neither the gateway's nor the right neighbour's.
    ForeignMac = foreign_mac: "the destination MAC is not the one that belongs to the destination address",
    /// The stack answers with ICMP time exceeded.
    TtlExpired = ttl_expired: "the TTL or hop limit ends here",
    /// The stack fragments it, or answers with ICMP fragmentation needed or packet too big.
    TooBig = too_big: "larger than the network's MTU",
    /// A UDP checksum is present that no device has verified yet.
    UnverifiedChecksum = unverified_checksum: "the outer UDP checksum is still to be verified",
    /// Over IPv6 to a peer that does not accept UDP without a checksum.
    PeerNeedsChecksum = peer_needs_checksum: "the peer needs a UDP checksum, which the kernel's device computes",
    /// An aggregate for an endpoint that forwards: once stripped, it could not be sent on.
    ForwardingAggregate = forwarding_aggregate: "an aggregate for an endpoint that forwards",
    /// In a tunnel already, too long for the outer length field, of a foreign GSO type, or with padding
    /// that no program can take off.
    NotResizable = not_resizable: "a program cannot add or take away tunnel headers or padding on this packet",
    /// Rules of the node ask for the state of connections: connection tracking has to see every
    /// packet of a connection, or none. Of a network whose rules only drop what it has not seen,
    /// these are packets to and from peers that send checksums, or of which nothing is known yet.
    Tracked = tracked: "rules of the node follow connections of this network",
    /// The kernel has translated what this answers: it has to translate the answer back.
    Translated = translated: "the kernel translates addresses of this flow",
    /// What somebody else has put there has its turn on the kernel's way alone.
    Hooked = hooked: "somebody else's hook is on the kernel's way, and the programs would pass it by",
}

impl PassReason {
    /// One sentence for people: what becomes of it then.
    pub const fn kernel(self) -> &'static str {
        match self {
            Self::UnknownPort => "the kernel bridges and routes it as without the fast path",
            Self::NotIp => "the kernel answers or bridges it: ARP and the like",
            Self::NotUnicast => "the kernel's bridge floods it to the containers of this node",
            Self::IpOptions => "the kernel heeds them, and carries it by its VXLAN device",
            Self::Fragment => "the kernel carries it by its VXLAN device",
            Self::Malformed => "the kernel drops it, and counts that itself",
            Self::NotOurs => "the kernel receives or forwards it; it is not the overlay's",
            Self::AnyVtep => "the kernel's VXLAN device receives it",
            Self::NodeAddress => {
                "the kernel's VXLAN device receives it, as the kernel carries what is sent back"
            }
            Self::ToNode => "the node's own stack receives it",
            Self::NoRoute => "the kernel delivers or routes it by its own tables",
            Self::ForeignMac => "the kernel bridges it to that MAC, or drops it",
            Self::TtlExpired => "the kernel answers with ICMP time exceeded",
            Self::TooBig => "the kernel fragments it, or answers with ICMP what would fit",
            Self::UnverifiedChecksum => "the kernel verifies it, and its VXLAN device receives it",
            Self::PeerNeedsChecksum => "the kernel's VXLAN device sends it",
            Self::ForwardingAggregate => "the kernel's VXLAN device receives it, and cuts it up",
            Self::NotResizable => {
                "the kernel cuts it up or trims it, and carries it by its VXLAN device"
            }
            Self::Tracked => {
                "the kernel's connection tracking sees it, its rules hold, and it carries it"
            }
            Self::Translated => "the kernel translates it back, and carries it",
            Self::Hooked => "the kernel carries it, and what was hooked in has its turn",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Count, DropReason, Drops, PassReason, Passes};

    #[test]
    fn a_counter_stands_where_its_reason_points() {
        for (number, &reason) in DropReason::ALL.iter().enumerate() {
            let mut drops = Drops::default();
            drops.counts_mut()[number] = Count {
                packets: 1,
                bytes: 60,
            };
            assert_eq!(drops.of(reason).packets, 1, "{}", reason.name());
            assert_eq!(reason as usize, number);
        }
        for (number, &reason) in PassReason::ALL.iter().enumerate() {
            let mut passes = Passes::default();
            passes.counts_mut()[number].packets = 1;
            assert_eq!(passes.of(reason).packets, 1, "{}", reason.name());
        }
    }
}
