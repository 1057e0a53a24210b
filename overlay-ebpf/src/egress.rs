//! From an endpoint or from the node itself, to an endpoint here or a peer.

use overlay_common::{
    maps::{Endpoint, LOCAL_INDEX, Network, Peer, Port},
    reasons::{DropReason, PassReason},
};

use crate::{
    addresses::{Ip, Mac},
    encap::{encapsulate, encapsulate_routed},
    fits::must_fit,
    frame::{self, Frame},
    packet::{Packet, deliver_through},
    tables,
    verdict::{Account, Exit, Sent},
};

/// What a container sends.
pub(crate) fn from_endpoint(packet: &mut Packet) -> Result<Sent, Exit> {
    let port = tables::port(packet.interface()).ok_or(PassReason::UnknownPort)?;
    let network = &port.network;
    let frame = read(packet)?;
    frame.must_be_unicast()?;
    must_be_own(&frame, port)?;
    frame.must_be_plain(packet.length())?;
    if is_local(frame.destination, network) {
        let endpoint = local_endpoint(&frame, port)?;
        return deliver(packet, &frame, network, endpoint);
    }
    let peer = reachable_peer(network, frame.destination)?;
    must_be_addressed_to(network.gateway_mac, &frame)?;
    let forwarded = frame.forwarded()?;
    must_fit(packet, 0, &frame, network)?;
    encapsulate(packet, &frame, &forwarded, network, peer)
}

/// What the node itself sends or routes through its VXLAN device: TTL, MACs and the way
/// are decided already, by the kernel.
pub(crate) fn from_host(packet: &mut Packet) -> Result<Sent, Exit> {
    let port = tables::port(packet.interface()).ok_or(PassReason::UnknownPort)?;
    let network = &port.network;
    let frame = read(packet)?;
    frame.must_be_unicast()?;
    frame.must_be_plain(packet.length())?;
    let peer = reachable_peer(network, frame.destination)?;
    must_be_addressed_to(peer.mac, &frame)?;
    must_fit(packet, 0, &frame, network)?;
    encapsulate_routed(packet, &frame, network, peer)
}

#[inline(always)]
fn read(packet: &mut Packet) -> Result<Frame, PassReason> {
    if packet.has_vlan_tag() {
        return Err(PassReason::NotIp);
    }
    let headers = packet
        .headers::<{ frame::LEN }>()
        .ok_or(PassReason::Malformed)?;
    Frame::read(&headers)
}

/// An endpoint speaks for itself alone.
fn must_be_own(frame: &Frame, port: &Port) -> Result<(), Exit> {
    if frame.source_mac != Mac::from(port.mac) || frame.source != Ip::from(port.address) {
        return Err(Exit::Drop(DropReason::SpoofedSource, None));
    }
    Ok(())
}

fn must_be_addressed_to(mac: [u8; 6], frame: &Frame) -> Result<(), PassReason> {
    if frame.destination_mac != Mac::from(mac) {
        return Err(PassReason::ForeignMac);
    }
    Ok(())
}

fn is_local(destination: Ip, network: &Network) -> bool {
    destination.masked(network.subnet_mask.into()) == Ip::from(network.subnet)
}

/// Another endpoint with the frame's destination; the port's own address is none.
fn local_endpoint(frame: &Frame, port: &Port) -> Result<&'static Endpoint, PassReason> {
    if frame.destination == Ip::from(port.address) {
        return Err(PassReason::NoRoute);
    }
    tables::endpoint(&port.network, frame.destination).ok_or(PassReason::NoRoute)
}

/// The peer that a destination is behind, if the underlay leads to it.
#[inline(always)]
fn reachable_peer(network: &Network, destination: Ip) -> Result<&'static Peer, PassReason> {
    tables::peer(network, destination)
        .filter(|peer| peer.underlay_ifindex != 0)
        .ok_or(PassReason::NoRoute)
}

/// To a neighbour on this node: through the gateway as by a router, or directly as by a bridge.
fn deliver(
    packet: &mut Packet,
    frame: &Frame,
    network: &Network,
    endpoint: &Endpoint,
) -> Result<Sent, Exit> {
    must_fit(packet, 0, frame, network)?;
    if frame.destination_mac != Mac::from(endpoint.mac) {
        must_be_addressed_to(network.gateway_mac, frame)?;
        let forwarded = frame.forwarded()?;
        let mut headers = packet
            .headers::<{ frame::LEN }>()
            .ok_or(PassReason::Malformed)?;
        frame::write_macs(
            &mut headers,
            Mac::from(endpoint.mac),
            Mac::from(network.gateway_mac),
        );
        forwarded.write(&mut headers);
    }
    packet.address_to_this_machine();
    deliver_through(endpoint.ifindex);
    Ok(Sent {
        account: Account::To(LOCAL_INDEX),
        bytes: packet.length(),
    })
}
