//! On the underlay, before the kernel has spent a packet's memory on it: what cannot be
//! anybody's who is known is dropped.

use aya_ebpf::{helpers::bpf_xdp_get_buff_len, programs::XdpContext};

use crate::{
    addresses::{Ip4, Ip6},
    family::Family,
    frame::Ethernet,
    headers::{Bytes, Headers},
    ingress::{known_vtep, ours},
    verdict::Exit,
};

/// Drops VXLAN to us that is not valid, or not from a VTEP of its network.
pub(crate) fn underlay_guard(packet: &mut Packet) -> Result<(), Exit> {
    match Ethernet::of(packet, 0).map(|ethernet| ethernet.kind) {
        Some(Ip4::ETHER_TYPE) => must_be_known::<Ip4>(packet),
        Some(Ip6::ETHER_TYPE) => must_be_known::<Ip6>(packet),
        _ => Ok(()),
    }
}

fn must_be_known<O: Family>(packet: &mut Packet) -> Result<(), Exit> {
    let (outer, network) = ours::<O>(packet)?;
    known_vtep(&outer, network)?;
    Ok(())
}

/// A packet as a driver hands it over.
pub(crate) struct Packet {
    ctx: XdpContext,
}

impl Packet {
    /// The packet of a program's context.
    pub(crate) fn new(ctx: XdpContext) -> Self {
        Self { ctx }
    }

    /// Bytes of the whole frame, further buffers included.
    pub(crate) fn length(&self) -> usize {
        // SAFETY: the kernel passes a valid context.
        let length = unsafe { bpf_xdp_get_buff_len(self.ctx.ctx) };
        usize::try_from(length).unwrap_or_default()
    }
}

impl Bytes for Packet {
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
