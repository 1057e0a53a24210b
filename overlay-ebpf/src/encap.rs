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
    outer::{self, Flow, INNER, Lengths},
    packet::{Packet, random, send_to_neighbour},
    verdict::{Account, Exit, Sent},
};

/// Puts a frame that fits into the tunnel to `peer`, with the header changes of a router
/// if one is passed on the way.
#[inline(always)]
pub(crate) fn encapsulate(
    packet: &mut Packet,
    frame: &Frame,
    forwarded: Option<&Forwarded>,
    network: &Network,
    peer: &Peer,
) -> Result<Sent, Exit> {
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
    if let Some(forwarded) = forwarded {
        forwarded.write(&mut headers.part::<INNER, _>());
    }
    send_to_neighbour(peer.underlay_ifindex, Ip::from(peer.next_hop));
    Ok(Sent {
        account: Account::To(peer.index),
        bytes,
    })
}
