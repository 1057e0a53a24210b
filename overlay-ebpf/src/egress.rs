//! From an endpoint or from the node itself, to an endpoint here or a peer.

use overlay_common::{
    journal::Step,
    maps::{Endpoint, Network, Peer, Port, endpoint_flags, network_flags, peer_flags},
    reasons::{DropReason, PassReason},
};

use crate::{
    addresses::{Ip4, Ip6, Mac},
    encap::{encapsulate, encapsulate_routed},
    family::Family,
    fits::must_fit,
    flows,
    frame::{Ethernet, Frame},
    journal::tell,
    own,
    packet::Packet,
    padding,
    received::Received as _,
    tables,
    verdict::{Exit, Sender, Sent, Way, malformed},
};

/// What a container sends.
#[inline(always)]
pub(crate) fn from_endpoint(packet: &mut Packet) -> Result<Sent, Exit> {
    let port = tables::port(packet.interface()).ok_or(PassReason::UnknownPort)?;
    tell(Step::Port, [port.network.vni.into()]);
    let ethernet = Ethernet::of(packet, 0).ok_or(PassReason::Malformed)?;
    own::must_have_its_mac(&ethernet, port)?;
    tell(Step::OwnMac, []);
    if packet.is_in_vlan() {
        return Err(PassReason::NotIp.into());
    }
    match ethernet.kind {
        Ip4::ETHER_TYPE => from_address::<Ip4>(packet, port, ethernet),
        Ip6::ETHER_TYPE => from_address::<Ip6>(packet, port, ethernet),
        kind => Err(own::without_ip(packet, port, kind)),
    }
}

fn from_address<F: Family>(
    packet: &mut Packet,
    port: &Port,
    ethernet: Ethernet,
) -> Result<Sent, Exit> {
    let network = &port.network;
    let frame = read::<F>(packet, network, ethernet)?;
    own::must_have_its_address(packet, &frame, port)?;
    F::must_claim_own(packet, &frame, port)?;
    tell(Step::OwnAddress, []);
    if packet.has_vlan_tag() {
        return Err(PassReason::NotIp.into());
    }
    frame.must_be_unicast()?;
    tell(Step::Unicast, []);
    if frame.source.is_link_local() {
        // Between neighbours on the bridge, and never beyond it.
        return Err(PassReason::NoRoute.into());
    }
    must_be_plain(packet, &frame, network)?;
    let hooked = packet.mark() | u32::from(port.flags & endpoint_flags::HOOKED);
    if is_here(frame.destination, network) {
        tell(Step::Here, []);
        let endpoint = local_endpoint(&frame, port)?;
        let hooked = hooked | u32::from(endpoint.flags & endpoint_flags::HOOKED);
        flows::must_be_free(packet, 0, &frame, network, hooked)?;
        return deliver(packet, &frame, port, endpoint);
    }
    let peer = match way_to_peer(network, frame.destination) {
        Ok(peer) => peer,
        Err(reason) => {
            must_be_no_other_network(network, frame.destination)?;
            return Err(reason.into());
        }
    };
    tell(Step::Peer, [peer.index.into(), peer.mtu.into()]);
    flows::must_come_back(network, peer)?;
    let hooked = hooked | (network.flags & network_flags::HOOKED);
    flows::must_be_free(packet, 0, &frame, network, hooked)?;
    must_be_addressed_to(network.gateway_mac, &frame)?;
    let forwarded = frame.forwarded(frame.tos)?;
    tell(Step::Ttl, [forwarded.ttl.into()]);
    must_fit(packet, 0, &frame, peer.mtu)?;
    encapsulate(packet, &frame, &forwarded, port, peer)
}

/// What the node itself sends or routes through its VXLAN device: TTL, MACs and the way
/// are decided already, by the kernel.
#[inline(always)]
pub(crate) fn from_host(packet: &mut Packet) -> Result<Sent, Exit> {
    let port = tables::port(packet.interface()).ok_or(PassReason::UnknownPort)?;
    tell(Step::Port, [port.network.vni.into()]);
    let ethernet = Ethernet::of(packet, 0).ok_or(PassReason::Malformed)?;
    if packet.has_vlan_tag() {
        return Err(PassReason::NotIp.into());
    }
    match ethernet.kind {
        Ip4::ETHER_TYPE => from_kernel::<Ip4>(packet, port, ethernet),
        Ip6::ETHER_TYPE => from_kernel::<Ip6>(packet, port, ethernet),
        _ => Err(PassReason::NotIp.into()),
    }
}

fn from_kernel<F: Family>(
    packet: &mut Packet,
    port: &Port,
    ethernet: Ethernet,
) -> Result<Sent, Exit> {
    let network = &port.network;
    let frame = read::<F>(packet, network, ethernet)?;
    frame.must_be_unicast()?;
    tell(Step::Unicast, []);
    must_be_plain(packet, &frame, network)?;
    let peer = way_to_peer(network, frame.destination)?;
    tell(Step::Peer, [peer.index.into(), peer.mtu.into()]);
    must_be_addressed_to(peer.mac, &frame)?;
    must_fit(packet, 0, &frame, peer.mtu)?;
    flows::leaves_to_peer(packet, &frame, network, peer);
    if network.flags & network_flags::HOOKED != 0 {
        return Err(PassReason::Hooked.into());
    }
    encapsulate_routed(packet, &frame, port, peer)
}

#[inline(always)]
fn read<F: Family>(
    packet: &mut Packet,
    network: &Network,
    ethernet: Ethernet,
) -> Result<Frame<F>, Exit> {
    F::read(packet, 0, ethernet).ok_or_else(|| malformed(packet, network, Sender::UNKNOWN))
}

fn must_be_plain<F: Family>(
    packet: &Packet,
    frame: &Frame<F>,
    network: &Network,
) -> Result<(), Exit> {
    frame.must_be_plain()?;
    if !frame.is_whole(0, packet.length()) {
        return Err(malformed(packet, network, Sender::UNKNOWN));
    }
    tell(Step::Plain, []);
    Ok(())
}

fn must_be_addressed_to<F>(mac: [u8; 6], frame: &Frame<F>) -> Result<(), PassReason> {
    if frame.ethernet.destination != Mac::from(mac) {
        return Err(PassReason::ForeignMac);
    }
    tell(Step::RightMac, []);
    Ok(())
}

/// Networks of one node are strangers to each other, although the kernel could route.
fn must_be_no_other_network<F: Family>(network: &Network, destination: F) -> Result<(), Exit> {
    if network.flags & network_flags::OTHER_NETWORKS == 0
        && tables::network_around(destination).is_some_and(|vni| vni != network.vni)
    {
        return Err(Exit::Drop(DropReason::OtherNetwork, Sender::UNKNOWN));
    }
    Ok(())
}

fn is_here<F: Family>(destination: F, network: &Network) -> bool {
    let (subnet, mask) = F::subnet(network);
    destination.masked(mask) == subnet && !mask.is_unspecified()
}

/// Another endpoint with the frame's destination; the port's own address is none.
fn local_endpoint<F: Family>(
    frame: &Frame<F>,
    port: &Port,
) -> Result<&'static Endpoint, PassReason> {
    if frame.destination == F::of_port(port) {
        return Err(PassReason::NoRoute);
    }
    tables::endpoint(port.network.vni, frame.destination)
        .ok_or_else(|| frame.destination.unrouted(&port.network))
}

/// The peer that a destination is behind, or why there is no way to it.
#[inline(always)]
fn way_to_peer<F: Family>(network: &Network, destination: F) -> Result<&'static Peer, PassReason> {
    let peer = tables::peer(network, destination).ok_or_else(|| destination.unrouted(network))?;
    if peer.underlay_ifindex != 0 {
        Ok(peer)
    } else if peer.flags & peer_flags::HOOKED != 0 {
        Err(PassReason::Hooked)
    } else {
        Err(PassReason::NoRoute)
    }
}

/// To a neighbour on this node: through the gateway as by a router, or directly as by a bridge.
fn deliver<F: Family>(
    packet: &mut Packet,
    frame: &Frame<F>,
    port: &Port,
    endpoint: &Endpoint,
) -> Result<Sent, Exit> {
    let network = &port.network;
    tell(
        Step::Endpoint,
        [endpoint.ifindex.into(), endpoint.flags.into()],
    );
    must_fit(packet, 0, frame, network.mtu)?;
    if frame.ethernet.destination == Mac::from(endpoint.mac) {
        tell(Step::Bridged, []);
    } else {
        must_be_addressed_to(network.gateway_mac, frame)?;
        let forwarded = frame.forwarded(frame.tos)?;
        tell(Step::Ttl, [forwarded.ttl.into()]);
        padding::take_off(packet, frame, network)?;
        let ethernet = Ethernet {
            destination: endpoint.mac.into(),
            source: network.gateway_mac.into(),
            kind: F::ETHER_TYPE,
        };
        let written = forwarded.write::<F>(packet, &ethernet);
        written.ok_or(PassReason::Malformed)?;
    }
    packet.address_to_this_machine();
    packet.deliver_through(endpoint.ifindex);
    tell(Step::Delivered, [endpoint.ifindex.into()]);
    Ok(Sent {
        way: Way::Here {
            from: port.slot,
            to: endpoint.slot,
        },
        bytes: packet.length(),
    })
}
