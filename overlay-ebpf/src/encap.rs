//! Into the tunnel: grow, write the headers, send to the underlay.

use overlay_common::{
    maps::{Network, Peer},
    reasons::{DropReason, PassReason},
    wire::source_port,
};

use crate::{
    addresses::Ip,
    ecn,
    frame::{Forwarded, Frame},
    headers::Headers,
    outer::{self, Flow, INNER, Lengths},
    packet::{Packet, random, send_by_route, send_to_neighbour},
    verdict::{Account, Exit, Sent},
};

/// Puts a container's frame that fits into the tunnel to `peer`, as the router that it passes.
#[inline(always)]
pub(crate) fn encapsulate(
    packet: &mut Packet,
    frame: &Frame,
    forwarded: &Forwarded,
    network: &Network,
    peer: &Peer,
) -> Result<Sent, Exit> {
    let (mut headers, sent) = wrap(packet, frame, network, peer)?;
    forwarded.write(&mut headers.part::<INNER, _>());
    send_to_neighbour(peer.underlay_ifindex, Ip::unmapped(peer.next_hop));
    Ok(sent)
}

/// Puts a frame of the node's own stack, which has routed it, into the tunnel to `peer`.
#[inline(always)]
pub(crate) fn encapsulate_routed(
    packet: &mut Packet,
    frame: &Frame,
    network: &Network,
    peer: &Peer,
) -> Result<Sent, Exit> {
    let (_, sent) = wrap(packet, frame, network, peer)?;
    send_by_route(peer.underlay_ifindex);
    Ok(sent)
}

/// Writes the tunnel's headers around a frame.
#[inline(always)]
fn wrap<'a>(
    packet: &'a mut Packet,
    frame: &Frame,
    network: &Network,
    peer: &Peer,
) -> Result<(Headers<'a, { outer::LEN }>, Sent), Exit> {
    let bytes = packet.length();
    let flow = Flow {
        // Only a GSO packet can be too long; the kernel's device segments it first.
        lengths: Lengths::around(bytes).ok_or(PassReason::NotResizable)?,
        tos: ecn::encapsulated(frame.tos()),
        // The hash is the inner flow's, so it must be asked for before there is an outer one.
        source_port: source_port(packet.flow_hash()),
        id: random(),
    };

    packet.grow().map_err(|_| PassReason::NotResizable)?;
    // From here on the packet is changed: it is sent, or dropped.
    let mut headers = packet
        .headers::<{ outer::LEN }>()
        .ok_or(Exit::Drop(DropReason::ResizeFailed, Some(peer.index)))?;
    outer::write(&mut headers, network, peer, &flow);
    let sent = Sent {
        account: Account::To(peer.index),
        bytes,
    };
    Ok((headers, sent))
}
