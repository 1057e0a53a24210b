//! Into the tunnel: grow, write the headers, send to the underlay.

use overlay_common::{
    journal::Step,
    maps::{Network, Peer, Port, network_flags, peer_flags},
    reasons::{DropReason, PassReason},
    wire::{bucket, source_port},
};

use crate::{
    addresses::{Ip4, Ip6},
    ecn,
    family::Family,
    frame::{Ethernet, Forwarded, Frame},
    journal::tell,
    outer::Flow,
    packet::{Packet, send_by_route, send_to_neighbour},
    padding,
    received::Received as _,
    verdict::{Exit, Sender, Sent, Way},
    verifier::forget_range,
};

/// Puts a frame that fits, of the container at `port`, into the tunnel to `peer`, as the router
/// that it passes.
#[inline(always)]
pub(crate) fn encapsulate<I: Family>(
    packet: &mut Packet,
    frame: &Frame<I>,
    forwarded: &Forwarded,
    port: &Port,
    peer: &Peer,
) -> Result<Sent, Exit> {
    let network = &port.network;
    must_take_no_checksum(peer)?;
    padding::take_off(packet, frame, network)?;
    let bytes = packet.length();
    if network.flags & network_flags::KEEP_PRIORITY == 0
        && let Some(priority) = I::priority(frame.tos)
    {
        packet.prioritise(priority);
    }
    let source_port = if Ip4::leads_to(peer) {
        wrap::<Ip4, I>(packet, frame, Some(forwarded), network, peer)?
    } else {
        wrap::<Ip6, I>(packet, frame, Some(forwarded), network, peer)?
    };
    let (ifindex, neighbour) = next_hop(peer, source_port);
    send_to_neighbour(ifindex, *neighbour);
    tell(Step::ToNeighbour, [ifindex.into()]);
    Ok(sent(port, peer, bytes))
}

/// Puts a frame of the node's own stack, which has routed it, into the tunnel to `peer`.
#[inline(always)]
pub(crate) fn encapsulate_routed<I: Family>(
    packet: &mut Packet,
    frame: &Frame<I>,
    port: &Port,
    peer: &Peer,
) -> Result<Sent, Exit> {
    let bytes = packet.length();
    let network = &port.network;
    must_take_no_checksum(peer)?;
    let source_port = if Ip4::leads_to(peer) {
        wrap::<Ip4, I>(packet, frame, None, network, peer)?
    } else {
        wrap::<Ip6, I>(packet, frame, None, network, peer)?
    };
    let (ifindex, _) = next_hop(peer, source_port);
    send_by_route(ifindex);
    tell(Step::ByRoute, [ifindex.into()]);
    Ok(sent(port, peer, bytes))
}

fn sent(port: &Port, peer: &Peer, bytes: usize) -> Sent {
    Sent {
        way: Way::ToPeer {
            from: port.slot,
            peer: peer.index,
        },
        bytes,
    }
}

/// Which of the next hops a flow takes: its interface and address.
#[inline(always)]
fn next_hop(peer: &Peer, source_port: u16) -> (u32, &[u8; 16]) {
    if peer.others != 0
        && let Some(&number) = peer.spread.get(bucket(source_port))
        && let Some(hop) = usize::from(number)
            .checked_sub(1)
            .and_then(|place| peer.more.get(forget_range(place)))
    {
        return (hop.ifindex, &hop.address);
    }
    (peer.underlay_ifindex, &peer.next_hop)
}

/// No program can compute one: of an aggregate, each segment has its own.
fn must_take_no_checksum(peer: &Peer) -> Result<(), PassReason> {
    if peer.flags & peer_flags::NEEDS_CHECKSUM != 0 {
        return Err(PassReason::PeerNeedsChecksum);
    }
    Ok(())
}

/// Writes the headers of a tunnel over `O` around a frame of `I`; the UDP source port.
#[inline(always)]
fn wrap<O: Family, I: Family>(
    packet: &mut Packet,
    frame: &Frame<I>,
    forwarded: Option<&Forwarded>,
    network: &Network,
    peer: &Peer,
) -> Result<u16, Exit> {
    let copies_dscp = network.flags & network_flags::COPY_DSCP != 0;
    let flow = Flow {
        // Only a GSO packet can be too long; the kernel's device segments it first.
        length: Flow::length_around::<O>(packet.length()).ok_or(PassReason::NotResizable)?,
        tos: ecn::encapsulated(frame.tos, copies_dscp),
        // The hash is the inner flow's, so it must be asked for before there is an outer one.
        source_port: source_port(packet.flow_hash()),
    };
    let ethernet = Ethernet {
        destination: peer.mac.into(),
        source: O::vtep_mac(network),
        kind: I::ETHER_TYPE,
    };

    packet.grow::<O>().map_err(|_| PassReason::NotResizable)?;
    // From here on the packet is changed: it is sent, or dropped.
    O::write_outer(packet, network, peer, &flow)
        .and_then(|()| I::write(packet, O::OVERHEAD.into(), &ethernet, forwarded))
        .ok_or(Exit::Drop(DropReason::ResizeFailed, Sender::UNKNOWN))?;
    tell(
        Step::Encapsulated,
        [flow.source_port.into(), O::NUMBER.into()],
    );
    Ok(flow.source_port)
}
