//! An endpoint speaks for itself alone: what it may say about who it is.

use network_types::eth::EtherType;
use overlay_common::{
    maps::{Port, endpoint_flags, network_flags},
    reasons::{DropReason, PassReason},
};

use crate::{
    addresses::Mac,
    family::Family,
    frame::{Ethernet, Frame},
    neighbours::arp_must_claim_own,
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
    if is_own(packet, port, frame.source)
        || may_be_anybody(port)
        || frame.source.is_link_local()
        // Who has no address yet asks all others, by DHCP or neighbour discovery.
        || frame.source.is_unspecified() && frame.destination.is_for_many()
    {
        return Ok(());
    }
    Err(SPOOFED)
}

/// The address is the endpoint's, or one that it routes for.
#[inline(always)]
pub(crate) fn is_own<F: Family>(packet: &Packet, port: &Port, address: F) -> bool {
    if address == F::of_port(port) {
        // Without an address of the family, 0 stands in its place.
        return !address.is_unspecified();
    }
    port.flags & endpoint_flags::FORWARDING != 0
        && tables::is_allowed_source(packet.interface(), address)
}

/// What has no IP to look at must not hide any, nor claim others' addresses.
pub(crate) fn without_ip(packet: &mut Packet, port: &Port, kind: u16) -> Exit {
    const ARP: u16 = EtherType::Arp as u16;
    const TAGGED: u16 = EtherType::Ieee8021q as u16;
    const TAGGED_TWICE: u16 = EtherType::Ieee8021ad as u16;
    let claim = match kind {
        _ if may_be_anybody(port) => Ok(()),
        ARP => arp_must_claim_own(packet, port),
        // Behind a tag for VLAN 0 the kernel takes off another one.
        TAGGED | TAGGED_TWICE if packet.has_vlan_tag() => {
            Err(Exit::Drop(DropReason::InnerVlanTag, Sender::UNKNOWN))
        }
        _ => Ok(()),
    };
    claim.err().unwrap_or(PassReason::NotIp.into())
}
