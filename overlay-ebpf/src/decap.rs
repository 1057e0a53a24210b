//! Out of the tunnel: shrink, address to the endpoint, hand over.

use network_types::ip::IpProto;
use overlay_common::{
    maps::{Endpoint, Network},
    reasons::{DropReason, PassReason},
};

use crate::{
    addresses::Mac,
    frame::{self, Forwarded, Frame},
    packet::{Packet, deliver_through},
    verdict::{Account, Exit, Sent},
};

/// An aggregate that a program strips keeps the kernel's mark of a tunnel. A TCP socket
/// takes it whole and never looks; for UDP it would be cut up by that mark, and be lost.
pub(crate) fn must_be_strippable(packet: &Packet, frame: &Frame) -> Result<(), PassReason> {
    if frame.protocol != IpProto::Tcp as u8 && packet.segment_size() != 0 {
        return Err(PassReason::NotResizable);
    }
    Ok(())
}

/// Strips the tunnel's headers and delivers what was inside, which has passed every check.
#[inline(always)]
pub(crate) fn decapsulate(
    packet: &mut Packet,
    forwarded: &Forwarded,
    network: &Network,
    endpoint: &Endpoint,
    peer: u32,
) -> Result<Sent, Exit> {
    packet.shrink().map_err(|_| PassReason::NotResizable)?;
    // The outer Ethernet header is still there, and serves the inner packet from now on.
    let mut headers = packet
        .headers::<{ frame::LEN }>()
        .ok_or(Exit::Drop(DropReason::ResizeFailed, Some(peer)))?;
    frame::write_macs(
        &mut headers,
        Mac::from(endpoint.mac),
        Mac::from(network.gateway_mac),
    );
    forwarded.write(&mut headers);
    packet.forget_outer_checksum();
    packet.forget_queue();
    deliver_through(endpoint.ifindex);
    Ok(Sent {
        account: Account::From(peer),
        bytes: packet.length(),
    })
}
