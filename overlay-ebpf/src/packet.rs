//! A packet as the kernel hands it over: its metadata, its headers, and the helpers that
//! resize and redirect it.

use core::mem::offset_of;

use aya_ebpf::{
    bindings::{
        __sk_buff, BPF_CSUM_LEVEL_DEC, BPF_F_ADJ_ROOM_ENCAP_L2_ETH, BPF_F_ADJ_ROOM_ENCAP_L4_UDP,
        BPF_F_ADJ_ROOM_FIXED_GSO, BPF_F_ADJ_ROOM_NO_CSUM_RESET,
        bpf_adj_room_mode::BPF_ADJ_ROOM_MAC, bpf_redir_neigh, bpf_redir_neigh__bindgen_ty_1,
    },
    bpf_f_adj_room_encap_l2,
    helpers::{
        bpf_csum_level, bpf_get_hash_recalc, bpf_get_prandom_u32, bpf_redirect_neigh,
        bpf_redirect_peer, bpf_skb_adjust_room, bpf_skb_change_head, bpf_skb_change_tail,
        bpf_skb_change_type, bpf_skb_load_bytes, bpf_skb_pull_data, bpf_skb_vlan_pop,
    },
    programs::TcContext,
};
use network_types::eth::EthHdr;

use crate::{
    addresses::{Address as _, Ip4, Ip6},
    family::Family,
    headers::Headers,
    outer::Outer,
    received::Received,
};
#[cfg(feature = "watched")]
use crate::{journal::Shown, verifier::a_header_at_least};

/// `PACKET_HOST` of `linux/if_packet.h`: addressed to this machine.
const PACKET_HOST: u32 = 0;
/// The bits of a VLAN tag that number its VLAN (IEEE 802.1Q §9.6).
const VLAN_NUMBER: u32 = 0x0fff;

/// Bytes of an Ethernet header.
const ETHERNET: u32 = 14;
const _: () = assert!(ETHERNET as usize == EthHdr::LEN);

/// Segment sizes stay as they are: the sender's MSS already leaves room for the tunnel.
const KEEP_SEGMENTS: u64 = BPF_F_ADJ_ROOM_FIXED_GSO as u64 | BPF_F_ADJ_ROOM_NO_CSUM_RESET as u64;
/// What the kernel must know of the new headers to segment and checksum behind them, but
/// for their family.
const VXLAN: u64 = BPF_F_ADJ_ROOM_ENCAP_L4_UDP as u64
    | BPF_F_ADJ_ROOM_ENCAP_L2_ETH as u64
    | bpf_f_adj_room_encap_l2(EthHdr::LEN as u64);

/// The kernel declined to change the packet, and left it as it was.
#[derive(Debug)]
pub(crate) struct Refused;

/// The packet that a program was called for.
pub(crate) struct Packet {
    ctx: TcContext,
}

impl Packet {
    /// The packet of a program's context.
    pub(crate) fn new(ctx: TcContext) -> Self {
        Self { ctx }
    }

    pub(crate) fn skb(&self) -> *mut __sk_buff {
        self.ctx.skb.skb
    }

    /// Index of the device at which the program runs.
    pub(crate) fn interface(&self) -> u32 {
        // SAFETY: the kernel passes a valid context; the field is one that TC programs may read.
        unsafe { (*self.skb()).ifindex }
    }

    /// Index of the device that the packet came by, 0 for what the node itself sends. Behind a
    /// VXLAN device it is that one's.
    pub(crate) fn came_by(&self) -> u32 {
        // SAFETY: as for `interface`.
        unsafe { (*self.skb()).ingress_ifindex }
    }

    /// A VLAN tag stands in the metadata, not in the bytes.
    pub(crate) fn has_vlan_tag(&self) -> bool {
        // SAFETY: as for `interface`.
        unsafe { (*self.skb()).vlan_present != 0 }
    }

    /// It belongs to a VLAN: a tag for VLAN 0 tells a priority alone.
    pub(crate) fn is_in_vlan(&self) -> bool {
        // SAFETY: as for `interface`.
        self.has_vlan_tag() && unsafe { (*self.skb()).vlan_tci } & VLAN_NUMBER != 0
    }

    /// The flow's hash, as the kernel's VXLAN device would ask for it.
    pub(crate) fn flow_hash(&self) -> u32 {
        // SAFETY: the context is valid, and the helper keeps no pointer to it.
        unsafe { bpf_get_hash_recalc(self.skb()) }
    }

    /// What XDP has written before the packet.
    pub(crate) fn note<const N: usize>(&mut self) -> Option<Headers<'_, N>> {
        // SAFETY: as for `interface`.
        let start = unsafe { (*self.skb()).data_meta } as usize;
        // SAFETY: the bounds are the note's, and what moves it needs `self`.
        unsafe { Headers::new(start, self.ctx.data()) }
    }

    /// Makes room for the headers of a tunnel over `O` between the Ethernet header and what
    /// follows it.
    pub(crate) fn grow<O: Family>(&mut self) -> Result<(), Refused> {
        self.adjust_room(i32::from(O::OVERHEAD), KEEP_SEGMENTS | VXLAN | O::ENCAP)
    }

    /// Takes the headers of a tunnel over `O` away from before a packet of `I`; the first
    /// Ethernet header remains.
    pub(crate) fn shrink<O: Family, I: Family>(&mut self) -> Result<(), Refused> {
        // Kernels before 6.3 know no change of family, and refuse it.
        let family = if O::NUMBER == I::NUMBER { 0 } else { I::DECAP };
        self.adjust_room(-i32::from(O::OVERHEAD), KEEP_SEGMENTS | family)
    }

    fn adjust_room(&mut self, by: i32, flags: u64) -> Result<(), Refused> {
        // SAFETY: as for `flow_hash`.
        match unsafe { bpf_skb_adjust_room(self.skb(), by, BPF_ADJ_ROOM_MAC, flags) } {
            0 => Ok(()),
            _ => Err(Refused),
        }
    }

    /// What the packet is, as an Ethernet header would say: on devices that have none, too.
    pub(crate) fn protocol(&self) -> u16 {
        // SAFETY: as for `interface`.
        let protocol = unsafe { (*self.skb()).protocol };
        #[expect(clippy::cast_possible_truncation, reason = "16 bits, in network order")]
        let protocol = protocol as u16;
        protocol
    }

    /// Puts an Ethernet header without addresses before a packet that has none. For the kernel it
    /// is the same packet, since its other headers stay where they are.
    pub(crate) fn put_ethernet(&mut self, kind: u16) -> Result<(), Refused> {
        // SAFETY: as for `flow_hash`. It refuses flags, of which there are none.
        if unsafe { bpf_skb_change_head(self.skb(), ETHERNET, 0) } != 0 {
            return Err(Refused);
        }
        let mut header = self.headers::<{ EthHdr::LEN }>(0).ok_or(Refused)?;
        header.write::<u16, { offset_of!(EthHdr, ether_type) }>(kind);
        Ok(())
    }

    /// Takes away what stands behind so many bytes. An aggregate would no longer be one; and what is
    /// in a tunnel the kernel refuses.
    pub(crate) fn trim(&mut self, length: usize) -> Result<(), Refused> {
        let length = u32::try_from(length).map_err(|_| Refused)?;
        // SAFETY: as for `flow_hash`. It refuses flags, of which there are none.
        match unsafe { bpf_skb_change_tail(self.skb(), length, 0) } {
            0 => Ok(()),
            _ => Err(Refused),
        }
    }

    /// The headers that vouched for the payload's checksum are gone: count one level less.
    pub(crate) fn forget_outer_checksum(&mut self) {
        // SAFETY: as for `flow_hash`. It fails for no value of its second argument that it knows.
        unsafe { bpf_csum_level(self.skb(), u64::from(BPF_CSUM_LEVEL_DEC)) };
    }

    /// Takes off a tag that stands in the metadata.
    pub(crate) fn forget_priority_tag(&mut self) -> Result<(), Refused> {
        // SAFETY: as for `flow_hash`.
        match unsafe { bpf_skb_vlan_pop(self.skb()) } {
            0 => Ok(()),
            _ => Err(Refused),
        }
    }

    /// The receive queue of the underlay means nothing to the next device.
    pub(crate) fn forget_queue(&mut self) {
        // SAFETY: as for `interface`.
        write_field(unsafe { &raw mut (*self.skb()).queue_mapping }, 0);
    }

    /// What queueing disciplines tell packets of different importance apart by.
    pub(crate) fn prioritise(&mut self, priority: u32) {
        // SAFETY: as for `interface`.
        write_field(unsafe { &raw mut (*self.skb()).priority }, priority);
    }

    /// Redirects the packet into the namespace at the other end of a veth, without what a packet
    /// that passes the veth itself does not bring along.
    pub(crate) fn deliver_through(&mut self, interface: u32) {
        self.prioritise(0);
        // SAFETY: as for `interface`.
        write_field(unsafe { &raw mut (*self.skb()).mark }, 0);
        // SAFETY: the helper takes numbers alone. It refuses flags, of which there are none.
        unsafe { bpf_redirect_peer(interface, 0) };
    }

    /// Its MAC is this machine's: not another's that came here by chance, nor everybody's.
    pub(crate) fn is_to_this_machine(&self) -> bool {
        // SAFETY: as for `interface`.
        unsafe { (*self.skb()).pkt_type == PACKET_HOST }
    }

    /// Lets the packet be received although its MAC was another's when it arrived here.
    ///
    /// `bpf_redirect_peer` does this itself since Linux 6.15.
    pub(crate) fn address_to_this_machine(&mut self) {
        if !self.is_to_this_machine() {
            // SAFETY: as for `flow_hash`. It fails only for types that do not exist.
            unsafe { bpf_skb_change_type(self.skb(), PACKET_HOST) };
        }
    }
}

impl Received for Packet {
    const IS_LAST: bool = true;

    fn arrived_by(&self) -> u32 {
        self.interface()
    }

    fn mark(&self) -> u32 {
        // SAFETY: as for `interface`.
        unsafe { (*self.skb()).mark }
    }

    fn length(&self) -> usize {
        self.ctx.len() as usize
    }

    fn segment_size(&self) -> usize {
        // SAFETY: as for `interface`.
        unsafe { (*self.skb()).gso_size as usize }
    }

    #[inline(always)]
    fn checksum_is_verified<O: Family>(&mut self, outer: &Outer<O>) -> bool {
        self.has_right_checksum(outer)
    }

    #[inline(always)]
    fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let offset = u32::try_from(offset).ok()?;
        let length = u32::try_from(N).ok()?;
        let mut bytes = [0; N];
        // SAFETY: the context is valid and `bytes` is writable for the `N` bytes asked for.
        let result = unsafe {
            bpf_skb_load_bytes(self.skb().cast(), offset, bytes.as_mut_ptr().cast(), length)
        };
        (result == 0).then_some(bytes)
    }

    // Exclusive access, here as in `adjust_room`: both may move the packet, and no
    // `Headers` from before outlives them.
    #[inline(always)]
    fn headers<const LEN: usize>(&mut self, offset: usize) -> Option<Headers<'_, LEN>> {
        let end = offset + LEN;
        if self.ctx.data() + end > self.ctx.data_end() {
            let bytes = u32::try_from(end).ok()?;
            // SAFETY: as for `flow_hash`.
            if self.length() < end || unsafe { bpf_skb_pull_data(self.skb(), bytes) } != 0 {
                return None;
            }
        }
        self.linear(offset)
    }

    #[inline(always)]
    fn linear<const LEN: usize>(&mut self, offset: usize) -> Option<Headers<'_, LEN>> {
        // SAFETY: the bounds are the packet's as it is now, and what moves it needs `self`.
        unsafe { Headers::new(self.ctx.data() + offset, self.ctx.data_end()) }
    }
}

#[cfg(feature = "watched")]
impl Shown for Packet {
    fn device(&self) -> u32 {
        self.interface()
    }

    #[inline(always)]
    unsafe fn copy(&self, to: *mut u8, length: u32) -> bool {
        let length = a_header_at_least(length);
        // SAFETY: the context is valid, and the caller vouches for `to`.
        unsafe { bpf_skb_load_bytes(self.skb().cast(), 0, to.cast(), length) == 0 }
    }
}

/// Writes a field of a context alone: LLVM would join two, which the kernel does not take.
fn write_field(field: *mut u32, value: u32) {
    // SAFETY: the field is one of a valid context that TC programs may write.
    unsafe { field.write_volatile(value) };
}

/// Redirects the packet to a neighbour on the underlay, whose MAC the kernel knows or
/// finds: by ARP or by neighbour discovery, as the neighbour's address is, whatever the family
/// of the packet (`bpf_out_neigh_v4` of Linux).
pub(crate) fn send_to_neighbour(interface: u32, address: [u8; 16]) {
    const SIZE: i32 = 20;
    const { assert!(size_of::<bpf_redir_neigh>() == SIZE as usize) };
    let next_hop = Ip4::unmapped(address);
    let (family, words) = if next_hop.mapped() == Ip6::from(address) {
        (Ip4::NUMBER, next_hop.words())
    } else {
        (Ip6::NUMBER, Ip6::from(address).words())
    };
    let mut neighbour = bpf_redir_neigh {
        nh_family: family,
        __bindgen_anon_1: bpf_redir_neigh__bindgen_ty_1 { ipv6_nh: words },
    };
    // SAFETY: the pointer is valid for `SIZE` initialised bytes, which the helper copies.
    // It refuses flags and shorter structs, of which there are none.
    unsafe { bpf_redirect_neigh(interface, &raw mut neighbour, SIZE, 0) };
}

/// Redirects the packet to where the underlay's routes lead its new outer header.
///
/// For packets of the node's own stack, which carry the route of their inner header: it
/// must be replaced, or else a packet that waits for its neighbour's MAC gets another's.
pub(crate) fn send_by_route(interface: u32) {
    // SAFETY: without a neighbour the helper takes numbers alone.
    unsafe { bpf_redirect_neigh(interface, core::ptr::null_mut(), 0, 0) };
}

/// A number for the outer header's identification field.
pub(crate) fn random() -> u16 {
    // SAFETY: the helper takes no arguments.
    let bits = unsafe { bpf_get_prandom_u32() };
    (bits >> 16) as u16
}
