//! From the underlay, to an endpoint here.

use network_types::eth::{EthHdr, EtherType};
use overlay_common::{
    journal::Step,
    maps::{Endpoint, Network, endpoint_flags, network_flags, peer_flags},
    reasons::{DropReason, PassReason},
};

use crate::{
    addresses::{Ip4, Ip6},
    bare, checksum,
    decap::{Delivery, decapsulate, must_be_strippable},
    ecn,
    family::Family,
    fits::must_fit,
    flows,
    frame::{Ethernet, Frame},
    journal::tell,
    outer::Outer,
    packet::Packet,
    padding,
    received::Received,
    strip::{self, Note},
    tables,
    verdict::{Exit, Sender, Sent, malformed},
};

/// What other nodes send, among everything else that arrives on the underlay.
#[inline(always)]
pub(crate) fn from_underlay(packet: &mut Packet) -> Result<Sent, Exit> {
    if strip::is_on()
        && let Some(note) = Note::before(packet)
    {
        return strip::deliver(packet, &note);
    }
    if packet.has_vlan_tag() || !packet.is_to_this_machine() {
        return Err(PassReason::NotOurs.into());
    }
    if bare::is_bare(packet)? {
        bare::complete(packet)?;
    }
    // Asked anew, so that the verifier goes on from here once.
    match packet.protocol() {
        Ip4::ETHER_TYPE => over::<Ip4>(packet),
        Ip6::ETHER_TYPE => over::<Ip6>(packet),
        _ => Err(PassReason::NotOurs.into()),
    }
}

/// On an underlay of `O`.
#[inline(always)]
fn over<O: Family>(packet: &mut Packet) -> Result<Sent, Exit> {
    let outer = O::read_outer(packet)?;
    match Ethernet::of(packet, O::OVERHEAD.into()) {
        Some(ethernet) if ethernet.kind == Ip4::ETHER_TYPE => {
            inside::<O, Ip4>(packet, &outer, ethernet)
        }
        Some(ethernet) if ethernet.kind == Ip6::ETHER_TYPE => {
            inside::<O, Ip6>(packet, &outer, ethernet)
        }
        Some(ethernet) => Err(without_ip(packet, &outer, ethernet.kind)),
        None => Err(cut_off(packet, &outer)),
    }
}

/// The network of ours that a packet claims to belong to.
#[inline(always)]
pub(crate) fn ours<O: Family>(
    packet: &impl Received,
    outer: &Outer<O>,
) -> Result<&'static Network, Exit> {
    let network = tables::network(outer.vni()).ok_or(PassReason::NotOurs)?;
    must_be_decrypted(network, packet, outer)?;
    must_be_for(network, outer)?;
    Ok(network)
}

/// What is for an encrypted network has been decrypted by its own device.
// In its callers: what a function of its own would return, no verifier takes, as half of it may be
// unwritten.
#[inline(always)]
fn must_be_decrypted<O: Family>(
    network: &Network,
    packet: &impl Received,
    outer: &Outer<O>,
) -> Result<(), Exit> {
    if network.flags & network_flags::ENCRYPTED != 0
        && packet.arrived_by() != network.decrypted_by
        && outer.is_for(network)
    {
        let sender = vtep(outer, network);
        return Err(Exit::Drop(DropReason::Unencrypted, sender));
    }
    Ok(())
}

/// Our port, our address, and valid VXLAN.
fn must_be_for<O: Family>(network: &Network, outer: &Outer<O>) -> Result<(), Exit> {
    if !outer.is_for(network) {
        return Err(PassReason::NotOurs.into());
    }
    tell(Step::Ours, [network.vni.into()]);
    if !outer.is_valid_vxlan() {
        let sender = vtep(outer, network);
        return Err(Exit::Drop(DropReason::InvalidVxlanHeader, sender));
    }
    tell(Step::Valid, []);
    Ok(())
}

/// A packet of `I` in a tunnel over `O`.
#[inline(always)]
fn inside<O: Family, I: Family>(
    packet: &mut Packet,
    outer: &Outer<O>,
    ethernet: Ethernet,
) -> Result<Sent, Exit> {
    let delivery = judge::<O, I, _>(packet, outer, ethernet)?;
    decapsulate::<O, I>(packet, &delivery).map_err(|exit| exit.of(delivery.sender))
}

/// Whether a packet may come in, and what becomes of it.
#[inline(always)]
pub(crate) fn judge<O: Family, I: Family, P: Received>(
    packet: &mut P,
    outer: &Outer<O>,
    ethernet: Ethernet,
) -> Result<Delivery, Exit> {
    let Some(frame) = I::read(packet, O::OVERHEAD.into(), ethernet) else {
        return Err(cut_off(packet, outer));
    };
    let endpoint = tables::endpoint(outer.vni(), frame.destination);
    let network = if let Some(endpoint) = endpoint {
        must_be_decrypted(&endpoint.network, packet, outer)?;
        must_be_for(&endpoint.network, outer)?;
        &endpoint.network
    } else {
        ours(packet, outer)?
    };
    let (sender, hooked) = sender_of(outer, &frame, network)?;
    tell(Step::Sender, [sender.0.into()]);
    of_sender::<O, I, P>(packet, outer, &frame, network, endpoint, (sender, hooked))
        .map_err(|exit| exit.of(sender))
}

/// What becomes of a packet whose sender may send it.
#[inline(always)]
fn of_sender<O: Family, I: Family, P: Received>(
    packet: &mut P,
    outer: &Outer<O>,
    frame: &Frame<I>,
    network: &'static Network,
    endpoint: Option<&'static Endpoint>,
    (sender, hooked): (Sender, u32),
) -> Result<Delivery, Exit> {
    if !outer.is_whole(packet.length()) {
        return Err(malformed(packet, network, sender));
    }
    outer.must_fill_its_packet()?;
    let is_verified = !outer.has_checksum() || packet.checksum_is_verified(outer);
    flows::must_go_back::<P, O>(outer, network, is_verified)?;
    if !is_verified {
        if endpoint.is_some() {
            flows::enters(packet, O::OVERHEAD.into(), frame, network);
        }
        return Err(PassReason::UnverifiedChecksum.into());
    }
    tell(Step::Verified, []);
    frame.must_be_unicast()?;
    tell(Step::Unicast, []);
    // A frame that claims to be from this end of the tunnel is a loop; the kernel drops it.
    let own = O::vtep_mac(network);
    if frame.ethernet.destination != own || frame.ethernet.source == own {
        return Err(PassReason::ForeignMac.into());
    }
    tell(Step::InnerMac, []);
    frame.must_be_plain()?;
    if !is_inside(packet, outer, frame) {
        return Err(malformed(packet, network, sender));
    }
    tell(Step::Plain, []);
    let endpoint = endpoint.ok_or_else(|| frame.destination.unrouted(network))?;
    tell(
        Step::Endpoint,
        [endpoint.ifindex.into(), endpoint.flags.into()],
    );
    must_add_up::<O, I>(packet)?;
    tell(Step::AddsUp, []);
    padding::must_be_none(packet, O::OVERHEAD.into(), frame, network)?;
    must_fit(packet, O::OVERHEAD.into(), frame, network.mtu)?;
    must_be_strippable(packet, frame, endpoint)?;
    let tos =
        ecn::decapsulated(outer.tos, frame.tos).map_err(|reason| Exit::Drop(reason, sender))?;
    tell(Step::Ecn, [tos.into()]);
    let forwarded = frame.forwarded(tos)?;
    tell(Step::Ttl, [forwarded.ttl.into()]);
    let hooked = hooked
        | packet.mark()
        | (network.flags & network_flags::HOOKED)
        | u32::from(endpoint.flags & endpoint_flags::HOOKED);
    flows::must_be_free(packet, O::OVERHEAD.into(), frame, network, hooked)?;
    Ok(Delivery {
        endpoint,
        forwarded,
        sender,
    })
}

/// The packet in the tunnel ends where the one around it does, or before. That of an aggregate may be
/// longer than its header can say.
#[inline(always)]
fn is_inside<O: Family, I: Family>(
    packet: &impl Received,
    outer: &Outer<O>,
    frame: &Frame<I>,
) -> bool {
    let offset = O::OVERHEAD.into();
    frame.is_whole(offset, outer.end())
        || packet.segment_size() != 0 && frame.is_whole(offset, packet.length())
}

/// Nothing else vouches for the headers of a datagram without a checksum. They are looked
/// at together: each has to be right, but for the chance that two wrong ones make up.
#[inline(always)]
fn must_add_up<O: Family, I: Family>(packet: &mut impl Received) -> Result<(), PassReason> {
    let outer = O::sum(packet, 0).ok_or(PassReason::Malformed)?;
    let inner = I::sum(packet, O::OVERHEAD.into()).ok_or(PassReason::Malformed)?;
    if checksum::finish(outer + inner) != 0 {
        return Err(PassReason::Malformed);
    }
    Ok(())
}

/// Too short for what it says is in it.
fn cut_off<O: Family>(packet: &impl Received, outer: &Outer<O>) -> Exit {
    let known = ours(packet, outer).and_then(|network| Ok((network, known_vtep(outer, network)?)));
    match known {
        Ok((network, sender)) => malformed(packet, network, sender),
        Err(exit) => exit,
    }
}

/// ARP and the like is the kernel's, but for tags of VLANs (RFC 7348 §6.1).
fn without_ip<O: Family>(packet: &Packet, outer: &Outer<O>, kind: u16) -> Exit {
    match ours(packet, outer).and_then(|network| known_vtep(outer, network)) {
        Ok(sender) if is_in_vlan(packet, O::OVERHEAD.into(), kind) => {
            Exit::Drop(DropReason::InnerVlanTag, sender)
        }
        Ok(sender) => Exit::Pass(PassReason::NotIp, sender),
        Err(exit) => exit,
    }
}

/// The frame at `offset`, of that type, belongs to a VLAN; a tag for VLAN 0 tells a
/// priority alone, and the kernel takes it off.
fn is_in_vlan(packet: &Packet, offset: usize, kind: u16) -> bool {
    const TAGGED: u16 = EtherType::Ieee8021q as u16;
    const TAGGED_TWICE: u16 = EtherType::Ieee8021ad as u16;
    const NUMBER: u16 = 0x0fff;
    matches!(kind, TAGGED | TAGGED_TWICE)
        && packet
            .bytes(offset + EthHdr::LEN)
            .is_none_or(|tag| u16::from_be_bytes(tag) & NUMBER != 0)
}

/// The peer that sent a packet, and whether what it sends is to meet a hook of somebody else's (not
/// 0). The packet must come from a subnet behind that
/// peer, or from that peer itself, which answers containers from its underlay address.
#[inline(always)]
fn sender_of<O: Family, I: Family>(
    outer: &Outer<O>,
    frame: &Frame<I>,
    network: &Network,
) -> Result<(Sender, u32), Exit> {
    if let Some(peer) = tables::peer(network, frame.source)
        && outer.source == O::unmapped(peer.vtep)
        && O::leads_to(peer)
    {
        return Ok((
            Sender(peer.index),
            u32::from(peer.flags & peer_flags::HOOKED),
        ));
    }
    let sender = known_vtep(outer, network)?;
    if network.flags & network_flags::MARTIANS == 0 && frame.source.is_martian() {
        return Err(Exit::Drop(DropReason::MartianSource, sender));
    }
    // On the link that the tunnel is, for the node itself: its kernel's business.
    if frame.source.is_link_local() {
        return Err(Exit::Pass(PassReason::NoRoute, sender));
    }
    if network.flags & network_flags::ANY_INNER_SOURCE == 0
        && frame.source.mapped() != outer.source.mapped()
    {
        return Err(Exit::Drop(DropReason::SourceNotBehindVtep, sender));
    }
    if sender == Sender::UNKNOWN {
        return Err(PassReason::AnyVtep.into());
    }
    if frame.source.mapped() == outer.source.mapped() {
        return Err(Exit::Pass(PassReason::NodeAddress, sender));
    }
    Ok((sender, 0))
}

/// The peer at the other end of the tunnel; an unknown one only if the network takes
/// packets from anybody.
pub(crate) fn known_vtep<O: Family>(outer: &Outer<O>, network: &Network) -> Result<Sender, Exit> {
    let sender = vtep(outer, network);
    if sender == Sender::UNKNOWN && network.flags & network_flags::ANY_VTEP == 0 {
        return Err(Exit::Drop(DropReason::UnknownVtep, sender));
    }
    tell(Step::Vtep, [sender.0.into()]);
    Ok(sender)
}

fn vtep<O: Family>(outer: &Outer<O>, network: &Network) -> Sender {
    tables::vtep(network, outer.source).map_or(Sender::UNKNOWN, |vtep| Sender(vtep.index))
}
