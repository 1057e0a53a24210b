//! IPv4 and IPv6: what sets them apart. The journey itself is written once, for both.

use overlay_common::{
    maps::{Network, Peer, Port},
    reasons::PassReason,
};

use crate::{
    addresses::{Address, Mac},
    frame::{Ethernet, Forwarded, Frame},
    outer::{Flow, Outer},
    packet::Packet,
    received::Received,
    tables::Keyed,
    verdict::Exit,
};

/// A family of IP, by the type of its addresses.
pub(crate) trait Family: Address + Keyed {
    /// Its Ethernet type, as it stands in a packet.
    const ETHER_TYPE: u16;
    /// Bytes of its header without options and extension headers.
    const HEADER: usize;
    /// Bytes that a tunnel over it puts before an inner IP packet, and where the inner
    /// frame starts in a packet on the underlay.
    const OVERHEAD: u16;
    /// Its number in `linux/socket.h`.
    const NUMBER: u32;
    /// What `bpf_skb_adjust_room` must know of new headers, to segment behind them.
    const ENCAP: u64;
    /// What it must know when other headers of IP are taken away from before its own.
    const DECAP: u64;

    /// Reads the IP header in the frame at `offset`; `None` when it is cut off, or is not
    /// of this family.
    fn read(packet: &mut impl Received, offset: usize, ethernet: Ethernet) -> Option<Frame<Self>>;

    /// The words of the plain header in the frame at `offset`, added up; as if it were right
    /// where there is no checksum. `None` when the header is not linear.
    fn sum(packet: &mut impl Received, offset: usize) -> Option<u64>;

    /// What makes the addresses of UDP's pseudo header of the words of the header, in a sum of both.
    fn pseudo_for_header(outer: &Outer<Self>) -> u64;

    /// The words that a router changes, added up, where no checksum among them makes up for it.
    fn routed_words(packet: &mut Packet) -> Option<u64>;

    /// Why a frame of this shape is not to be carried: options, extension headers, a fragment.
    fn oddity(shape: u32) -> Option<PassReason>;

    /// What becomes of a frame's header checksum, if it has one, with another TOS and TTL.
    fn checksum(frame: &Frame<Self>, tos: u8, ttl: u8) -> u16;

    /// The `skb->priority` that routing a packet with this TOS or traffic class gives it, as
    /// queueing disciplines read it (`TC_PRIO_*` of `linux/pkt_sched.h`); `None` where it keeps
    /// what it has.
    fn priority(tos: u8) -> Option<u32>;

    /// Writes the frame at `offset`: its Ethernet header, and what a router changed in IP's.
    fn write(
        packet: &mut impl Received,
        offset: usize,
        ethernet: &Ethernet,
        forwarded: Option<&Forwarded>,
    ) -> Option<()>;

    /// Reads an underlay packet up to the inner frame; anything but plain UDP is the kernel's.
    fn read_outer(packet: &mut impl Received) -> Result<Outer<Self>, PassReason>;

    /// Writes the headers of the tunnel to `peer`, up to the inner frame.
    fn write_outer(packet: &mut Packet, network: &Network, peer: &Peer, flow: &Flow) -> Option<()>;

    /// What an endpoint tells its neighbours in packets of this family is about itself.
    fn must_claim_own(packet: &Packet, frame: &Frame<Self>, port: &Port) -> Result<(), Exit>;

    /// The endpoint's own address.
    fn of_port(port: &Port) -> Self;

    /// This node's share of the network, and its mask.
    fn subnet(network: &Network) -> (Self, Self);

    /// This node's outer address.
    fn vtep(network: &Network) -> Self;

    /// The MAC of this node's tunnel end over this family.
    fn vtep_mac(network: &Network) -> Mac;

    /// The peer is reached over this family.
    fn leads_to(peer: &Peer) -> bool;

    /// Why what is for this address is the kernel's, where it is no endpoint's and behind no peer.
    #[inline(always)]
    fn unrouted(self, network: &Network) -> PassReason {
        let (subnet, mask) = Self::subnet(network);
        let is_gateway = !mask.is_unspecified() && self == subnet.first_host();
        if is_gateway || !self.is_unspecified() && self == Self::vtep(network) {
            PassReason::ToNode
        } else {
            PassReason::NoRoute
        }
    }
}
