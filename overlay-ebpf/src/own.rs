//! An endpoint speaks for itself alone: what it may say about who it is.

use overlay_common::{
    maps::{Port, endpoint_flags, network_flags},
    reasons::{DropReason, PassReason},
};

use crate::{
    addresses::Mac,
    family::Family,
    frame::{Ethernet, Frame},
    packet::Packet,
    tables,
    verdict::{Exit, Sender},
};

const SPOOFED: Exit = Exit::Drop(DropReason::SpoofedSource, Sender::UNKNOWN);

/// The network does not ask.
pub(crate) fn may_be_anybody(port: &Port) -> bool {
    port.network.flags & network_flags::ANY_ENDPOINT_SOURCE != 0
}

/// Every frame has the endpoint's MAC.
pub(crate) fn must_have_its_mac(ethernet: &Ethernet, port: &Port) -> Result<(), Exit> {
    if ethernet.source != Mac::from(port.mac) && !may_be_anybody(port) {
        return Err(SPOOFED);
    }
    Ok(())
}

/// Every packet has an address of the endpoint.
#[inline(always)]
pub(crate) fn must_have_its_address<F: Family>(
    packet: &Packet,
    frame: &Frame<F>,
    port: &Port,
) -> Result<(), Exit> {
    let own = F::of_port(port);
    if frame.source == own && !own.is_unspecified() || may_be_anybody(port) {
        return Ok(());
    }
    // Who has no address yet asks all others, by DHCP or neighbour discovery.
    if frame.source.is_unspecified() && frame.destination.is_for_many()
        || frame.source.is_link_local()
        || is_behind(packet, port, frame.source)
    {
        return Ok(());
    }
    Err(SPOOFED)
}

/// The endpoint is a router, and the address is one that it routes for.
pub(crate) fn is_behind<F: Family>(packet: &Packet, port: &Port, address: F) -> bool {
    port.flags & endpoint_flags::FORWARDING != 0
        && tables::is_allowed_source(packet.interface(), address)
}

/// Frames without IP.
pub(crate) fn must_not_hide(_: &mut Packet, _: &Port, _: &Ethernet) -> Exit {
    PassReason::NotIp.into()
}
