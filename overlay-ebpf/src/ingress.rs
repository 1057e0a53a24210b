//! From the underlay, to an endpoint here.

use overlay_common::{
    maps::Network,
    reasons::{DropReason, PassReason},
};

use crate::{
    addresses::{Ip, Mac},
    decap::{decapsulate, must_be_strippable},
    ecn,
    fits::must_fit,
    frame::{self, Frame},
    outer::{self, INNER, Outer},
    packet::Packet,
    tables,
    verdict::{Exit, Sent},
};

/// What other nodes send, among everything else that arrives on the underlay.
pub(crate) fn from_underlay(packet: &mut Packet) -> Result<Sent, Exit> {
    let (outer, network) = ours(packet)?;
    if !outer.is_valid_vxlan() {
        return Err(Exit::Drop(
            DropReason::InvalidVxlanHeader,
            tables::vtep(network, outer.source).map(|vtep| vtep.index),
        ));
    }
    let (frame, peer) = from_known_sender(packet, &outer, network)?;
    outer.must_be_whole(packet.length())?;
    if outer.has_checksum() && !packet.checksum_is_verified() {
        return Err(PassReason::UnverifiedChecksum.into());
    }
    frame.must_be_unicast()?;
    if frame.destination_mac != Mac::from(network.vtep_mac) {
        return Err(PassReason::ForeignMac.into());
    }
    frame.must_be_plain(packet.length() - INNER)?;
    let endpoint = tables::endpoint(network, frame.destination).ok_or(PassReason::NoRoute)?;
    must_fit(packet, INNER, &frame, network)?;
    must_be_strippable(packet, &frame)?;
    let tos = ecn::decapsulated(outer.tos, frame.tos())
        .map_err(|reason| Exit::Drop(reason, Some(peer)))?;
    let forwarded = frame.forwarded()?.marked(tos);
    decapsulate(packet, &forwarded, network, endpoint, peer)
}

/// Our port, our address, a network of ours. Most packets of an underlay end here.
fn ours(packet: &mut Packet) -> Result<(Outer, &'static Network), PassReason> {
    if packet.has_vlan_tag() {
        return Err(PassReason::NotOurs);
    }
    let headers = packet.headers::<INNER>().ok_or(PassReason::NotOurs)?;
    let outer = Outer::read(&headers)?;
    let network = tables::network(outer.vni()).ok_or(PassReason::NotOurs)?;
    if !outer.is_for(network) {
        return Err(PassReason::NotOurs);
    }
    Ok((outer, network))
}

/// The inner frame, and the slot of the peer that sent it: it must come from a subnet
/// behind that peer, or from that peer itself, which answers containers from its
/// underlay address.
fn from_known_sender(
    packet: &mut Packet,
    outer: &Outer,
    network: &Network,
) -> Result<(Frame, u32), Exit> {
    let frame = match inner(packet) {
        Ok(frame) => frame,
        Err(reason) => {
            known_vtep(outer, network)?;
            return Err(reason.into());
        }
    };
    if let Some(peer) = tables::peer(network, frame.source)
        && outer.source == Ip::unmapped(peer.vtep)
    {
        return Ok((frame, peer.index));
    }
    let index = known_vtep(outer, network)?;
    if frame.source != outer.source {
        return Err(Exit::Drop(DropReason::SourceNotBehindVtep, Some(index)));
    }
    Ok((frame, index))
}

fn inner(packet: &mut Packet) -> Result<Frame, PassReason> {
    let mut headers = packet
        .headers::<{ outer::LEN }>()
        .ok_or(PassReason::Malformed)?;
    Frame::read(&headers.part::<INNER, { frame::LEN }>())
}

/// The slot of the peer at the other end of the tunnel.
fn known_vtep(outer: &Outer, network: &Network) -> Result<u32, Exit> {
    tables::vtep(network, outer.source)
        .map(|vtep| vtep.index)
        .ok_or(Exit::Drop(DropReason::UnknownVtep, None))
}
