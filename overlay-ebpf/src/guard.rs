//! On the underlay, before the kernel has spent a packet's memory on it: what cannot be
//! anybody's who is known is dropped.

use crate::{
    addresses::{Ip4, Ip6},
    family::Family,
    frame::Ethernet,
    ingress::{known_vtep, ours},
    raw::Raw,
    strip,
    verdict::Exit,
};

/// Drops VXLAN to us that is not valid, or not from a VTEP of its network.
pub(crate) fn underlay_guard(packet: &mut Raw) -> Result<(), Exit> {
    match Ethernet::of(packet, 0).map(|ethernet| ethernet.kind) {
        Some(Ip4::ETHER_TYPE) => must_be_known::<Ip4>(packet),
        Some(Ip6::ETHER_TYPE) => must_be_known::<Ip6>(packet),
        _ => Ok(()),
    }
}

fn must_be_known<O: Family>(packet: &mut Raw) -> Result<(), Exit> {
    let outer = O::read_outer(packet)?;
    known_vtep(&outer, ours(packet, &outer)?)?;
    if strip::is_on() {
        return strip::strip(packet, &outer);
    }
    Ok(())
}
