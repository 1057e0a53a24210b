//! A packet as a driver hands it over, before the kernel makes an skb of it.

use aya_ebpf::{
    helpers::{bpf_xdp_adjust_head, bpf_xdp_adjust_meta, bpf_xdp_get_buff_len, bpf_xdp_load_bytes},
    programs::XdpContext,
};

use crate::{family::Family, headers::Headers, outer::Outer, received::Received};
#[cfg(feature = "watched")]
use crate::{journal::Shown, verifier::a_header_at_least};

/// A packet that is no skb yet.
pub(crate) struct Raw {
    ctx: XdpContext,
}

impl Raw {
    /// The packet of a program's context.
    pub(crate) fn new(ctx: XdpContext) -> Self {
        Self { ctx }
    }

    /// Room for a note of `N` bytes before the packet, which the skb will have, too; not
    /// every driver can give it. The note is to be written, and empty until then.
    pub(crate) fn reserve_note<const N: usize>(&mut self) -> Option<()> {
        let size = i32::try_from(N).ok()?;
        // SAFETY: the context is valid, and the helper keeps no pointer to it.
        if unsafe { bpf_xdp_adjust_meta(self.ctx.ctx, -size) } != 0 {
            return None;
        }
        self.note::<N>().map(|mut note| note.write::<u32, 0>(0))
    }

    /// The note before the packet.
    pub(crate) fn note<const N: usize>(&mut self) -> Option<Headers<'_, N>> {
        // SAFETY: the bounds are the note's, and what moves it needs `self`.
        unsafe { Headers::new(self.ctx.metadata(), self.ctx.metadata_end()) }
    }

    /// Takes bytes away from the front; the note stays before what remains.
    pub(crate) fn strip(&mut self, bytes: u16) -> Option<()> {
        // SAFETY: as for `reserve_note`.
        (unsafe { bpf_xdp_adjust_head(self.ctx.ctx, bytes.into()) } == 0).then_some(())
    }
}

impl Received for Raw {
    const IS_LAST: bool = false;

    fn arrived_by(&self) -> u32 {
        // SAFETY: the kernel passes a valid context; the field is one that programs may read.
        unsafe { (*self.ctx.ctx).ingress_ifindex }
    }

    fn mark(&self) -> u32 {
        0
    }

    /// Further buffers included.
    fn length(&self) -> usize {
        // SAFETY: the kernel passes a valid context.
        let length = unsafe { bpf_xdp_get_buff_len(self.ctx.ctx) };
        usize::try_from(length).unwrap_or_default()
    }

    fn segment_size(&self) -> usize {
        0
    }

    // What a device says of checksums, it says to the kernel alone.
    fn checksum_is_verified<O: Family>(&mut self, _: &Outer<O>) -> bool {
        false
    }

    fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let offset = u32::try_from(offset).ok()?;
        let length = u32::try_from(N).ok()?;
        let mut bytes = [0; N];
        // SAFETY: the context is valid and `bytes` is writable for the `N` bytes asked for.
        let result =
            unsafe { bpf_xdp_load_bytes(self.ctx.ctx, offset, bytes.as_mut_ptr().cast(), length) };
        (result == 0).then_some(bytes)
    }

    // The first buffer holds the headers, or it is for the kernel to put them together.
    #[inline(always)]
    fn headers<const LEN: usize>(&mut self, offset: usize) -> Option<Headers<'_, LEN>> {
        self.linear(offset)
    }

    #[inline(always)]
    fn linear<const LEN: usize>(&mut self, offset: usize) -> Option<Headers<'_, LEN>> {
        // SAFETY: the bounds are the packet's, which nothing here moves.
        unsafe { Headers::new(self.ctx.data() + offset, self.ctx.data_end()) }
    }
}

#[cfg(feature = "watched")]
impl Shown for Raw {
    fn device(&self) -> u32 {
        self.arrived_by()
    }

    #[inline(always)]
    unsafe fn copy(&self, to: *mut u8, length: u32) -> bool {
        let length = a_header_at_least(length);
        // SAFETY: the context is valid, and the caller vouches for `to`.
        unsafe { bpf_xdp_load_bytes(self.ctx.ctx, 0, to.cast(), length) == 0 }
    }
}
