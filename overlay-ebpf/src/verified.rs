//! Whether the outer UDP checksum of a packet that has one is known to be right.
//!
//! The kernel keeps what it knows of checksums in `skb->ip_summed`, which programs cannot read, but
//! which helpers act by. What is known of nobody is left to the kernel, which adds up all bytes.

use aya_ebpf::{
    bindings::{__sk_buff, BPF_CSUM_LEVEL_QUERY},
    helpers::{
        bpf_csum_level, bpf_csum_update, bpf_l4_csum_replace, bpf_skb_load_bytes,
        bpf_skb_store_bytes,
    },
};
use network_types::ip::IpProto;

use crate::{
    checksum,
    family::Family,
    outer::{self, Outer},
    packet::Packet,
};

/// Bytes of a UDP checksum; `bpf_l4_csum_replace` is told so that words of that size change.
const SIZE: u32 = 2;

impl Packet {
    /// Whether it is right, by any who can know.
    #[inline(always)]
    pub(crate) fn has_right_checksum<O: Family>(&mut self, outer: &Outer<O>) -> bool {
        let protocol = u64::from(u16::from(IpProto::Udp as u8).to_be());
        let beside = O::pseudo_for_header(outer) + outer.datagram() + protocol;
        // SAFETY: the kernel passes a valid context.
        unsafe {
            is_right(
                self.skb(),
                beside,
                outer::checksum_place::<O>(),
                outer.checksum(),
            )
        }
    }

    /// Has the kernel know that what it has added up has changed by the difference of such words.
    #[inline(always)]
    pub(crate) fn add_to_sum(&mut self, difference: u32) {
        // SAFETY: the context is valid, and the helper keeps no pointer to it. It fails for packets
        // of which there is no sum.
        unsafe { bpf_csum_update(self.skb(), difference) };
    }
}

/// Whether the checksum at `place` is right, where `beside` is to be added to the sum of all words from
/// the IP header on, so that it becomes that of the datagram and its pseudo header (RFC 768,
/// RFC 8200 §8.1).
///
/// A function of its own: the verifier would go each of its ways for each pair of families.
///
/// # Safety
/// `skb` is a program's context.
#[inline(never)]
unsafe fn is_right(skb: *mut __sk_buff, beside: u64, place: u32, checksum: u16) -> bool {
    // `CHECKSUM_UNNECESSARY`: a device has verified it.
    // SAFETY: the context is valid by the caller's promise, and the helper keeps no pointer to it.
    let is_verified = unsafe { bpf_csum_level(skb, u64::from(BPF_CSUM_LEVEL_QUERY)) } >= 0;
    // GRO verifies what it merges, and an aggregate of a sender here has no checksum yet.
    // SAFETY: the same; the field is one that TC programs may read.
    if is_verified || unsafe { (*skb).gso_size } != 0 {
        return true;
    }
    // `CHECKSUM_COMPLETE`: a device has added up all words behind the Ethernet header.
    // SAFETY: as above. Adding nothing changes nothing.
    if let Ok(sum) = u32::try_from(unsafe { bpf_csum_update(skb, 0) }) {
        return checksum::finish(u64::from(sum) + beside) == 0;
    }
    // `CHECKSUM_PARTIAL`: the packet is from this machine, or from one that vouches for it as for its
    // own, and whoever sends it over a wire fills in its checksums. The kernel changes the checksum of
    // any other packet when a word that it covers changes (`inet_proto_csum_replace2`).
    // SAFETY: as above.
    if unsafe { bpf_l4_csum_replace(skb, place, 0, 1, SIZE.into()) } != 0 {
        return false;
    }
    let mut after = checksum;
    // SAFETY: as above, and `after` has `SIZE` bytes, as `checksum` has. Those of the packet have just
    // become writable: neither call fails.
    unsafe { bpf_skb_load_bytes(skb.cast(), place, (&raw mut after).cast(), SIZE) };
    // SAFETY: as above.
    unsafe { bpf_skb_store_bytes(skb, place, (&raw const checksum).cast(), SIZE, 0) };
    after == checksum
}
