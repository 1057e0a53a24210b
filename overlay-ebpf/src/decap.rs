//! Out of the tunnel: shrink, address to the endpoint, hand over.

use network_types::ip::IpProto;
use overlay_common::{
    journal::Step,
    maps::{Endpoint, endpoint_flags},
    reasons::{DropReason, PassReason},
};

use crate::{
    family::Family,
    frame::{Ethernet, Forwarded, Frame},
    journal::tell,
    packet::Packet,
    received::Received,
    verdict::{Exit, Sender, Sent, Way},
};

/// What was decided about a packet in the tunnel, which has passed every check.
pub(crate) struct Delivery {
    /// Who gets it.
    pub(crate) endpoint: &'static Endpoint,
    /// What it says after it was routed here.
    pub(crate) forwarded: Forwarded,
    /// The peer that it is from.
    pub(crate) sender: Sender,
}

/// An aggregate that a program strips keeps the kernel's mark of a tunnel. A TCP socket
/// takes it whole and never looks; for UDP, and when it is sent on, it would be cut up by
/// that mark, and be lost.
pub(crate) fn must_be_strippable<I>(
    packet: &impl Received,
    frame: &Frame<I>,
    endpoint: &Endpoint,
) -> Result<(), PassReason> {
    if packet.segment_size() == 0 {
        return Ok(());
    }
    if endpoint.flags & endpoint_flags::FORWARDING != 0 {
        return Err(PassReason::ForwardingAggregate);
    }
    if frame.protocol != IpProto::Tcp as u8 {
        return Err(PassReason::NotResizable);
    }
    Ok(())
}

/// Strips the headers of a tunnel over `O` and delivers what was inside.
#[inline(always)]
pub(crate) fn decapsulate<O: Family, I: Family>(
    packet: &mut Packet,
    delivery: &Delivery,
) -> Result<Sent, Exit> {
    packet
        .shrink::<O, I>()
        .map_err(|_| PassReason::NotResizable)?;
    // The outer Ethernet header is still there, and serves the inner packet from now on.
    let ethernet = Ethernet {
        destination: delivery.endpoint.mac.into(),
        source: delivery.endpoint.network.gateway_mac.into(),
        kind: I::ETHER_TYPE,
    };
    delivery
        .forwarded
        .write::<I>(packet, &ethernet)
        .ok_or(Exit::Drop(DropReason::ResizeFailed, delivery.sender))?;
    tell(Step::Stripped, []);
    packet.forget_outer_checksum();
    packet.forget_queue();
    packet.deliver_through(delivery.endpoint.ifindex);
    tell(Step::Delivered, [delivery.endpoint.ifindex.into()]);
    Ok(Sent {
        way: Way::FromPeer {
            peer: delivery.sender.0,
            to: delivery.endpoint.slot,
        },
        bytes: packet.length(),
    })
}
