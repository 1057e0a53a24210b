//! Flows that are the kernel's: it translates their addresses, in both directions or not at all.
//!
//! Only what the kernel carries leaves by the VXLAN device and by the node's side of a container's
//! veth. A packet that leaves there between addresses for which the programs would have taken it,
//! had it come with those, came with others: it was translated. Of such a flow the answers, and
//! ICMP errors about it, are left to the kernel; it alone knows how to translate them back.
//!
//! A packet that goes the same way as the translated ones and does come with these addresses shows
//! that nothing is translated, or not any more: so a mistake, made while programs come and go,
//! costs a few packets their speed.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use bytemuck::cast;
use network_types::{eth::EthHdr, ip::IpProto};
use overlay_common::{
    maps::{
        FlowKey, NODE_SLOT, Network, Peer, Port, network_flags, peer_flags, peer_ways, translated,
    },
    reasons::PassReason,
};

use crate::{
    addresses::{Address as _, Ip4, Ip6, Mac},
    family::Family,
    frame::{Ethernet, Frame},
    outer::Outer,
    packet::Packet,
    received::Received,
    tables,
};

/// For how long a packet may be on its way through the kernel, in nanoseconds. Ports that are used
/// again after that may be another connection's, which is translated.
const ON_ITS_WAY: u64 = 1_000_000_000;

/// Leaves what would be forwarded to the kernel, where that has to see all of a connection, or where
/// something of somebody else's is on its way that is to have its turn (`hooked` is not 0), be it that
/// a program before ours has marked the packet for it.
#[inline(always)]
pub(crate) fn must_be_free<P: Received, F: Family>(
    packet: &P,
    offset: usize,
    frame: &Frame<F>,
    network: &Network,
    hooked: u32,
) -> Result<(), PassReason> {
    if network.flags & network_flags::TRACKED != 0 {
        return Err(PassReason::Tracked);
    }
    // One number: with two the kernel's verifier would walk through what follows three times.
    if tables::flows_in_use() | hooked == 0 {
        return Ok(());
    }
    if let Some(tuple) = Tuple::of(packet, offset, frame) {
        let (key, direction) = tuple.key(network.vni);
        if is_translated(&key, direction, tuple.is_quoted) {
            return Err(PassReason::Translated);
        }
        if hooked != 0 && P::IS_LAST {
            tables::set_entered(&key, now());
        }
    }
    if hooked == 0 {
        Ok(())
    } else {
        Err(PassReason::Hooked)
    }
}

/// Of a packet that comes in this direction, and may be quoted.
#[inline(always)]
fn is_translated(key: &FlowKey, direction: u32, is_quoted: bool) -> bool {
    let Some(flow) = tables::flow(key) else {
        return false;
    };
    // SAFETY: the kernel frees no entry while a program runs; any number may stand there.
    let known = unsafe { flow.read_volatile() };
    if known == translated::NOT {
        return false;
    }
    if known == direction && !is_quoted {
        // SAFETY: as above. Whoever writes at the same time has seen the same.
        unsafe { flow.write_volatile(translated::NOT) };
        return false;
    }
    true
}

/// Leaves what goes to a peer to the kernel if what comes from it may have to go there, and rules
/// drop what belongs to no connection that it has seen.
#[inline(always)]
pub(crate) fn must_come_back(network: &Network, peer: &Peer) -> Result<(), PassReason> {
    let is_free = network.flags & network_flags::ONE_PATH == 0
        || way_of(network.vni, Ip6::from(peer.vtep)) == Some(peer_ways::FAST);
    if is_free {
        Ok(())
    } else {
        Err(PassReason::Tracked)
    }
}

/// The same for what comes from a peer, whose ways are learned here: `is_verified` is false when
/// the kernel has to verify this packet.
#[inline(always)]
pub(crate) fn must_go_back<P: Received, O: Family>(
    outer: &Outer<O>,
    network: &Network,
    is_verified: bool,
) -> Result<(), PassReason> {
    if network.flags & network_flags::ONE_PATH == 0 {
        return Ok(());
    }
    let vtep = outer.source.mapped();
    let known = way_of(network.vni, vtep);
    let way = match (is_verified, known) {
        // In XDP it is not known what the device has verified.
        (false, _) if !P::IS_LAST => return Ok(()),
        (false, _) => peer_ways::KERNEL,
        (true, Some(known)) => known,
        (true, None) => peer_ways::FAST,
    };
    if known != Some(way) {
        tables::set_flow(&of_peer(network.vni, vtep), way);
    }
    if way == peer_ways::KERNEL && is_verified {
        return Err(PassReason::Tracked);
    }
    Ok(())
}

fn way_of(vni: u32, vtep: Ip6) -> Option<u32> {
    // SAFETY: as in `is_translated`.
    tables::flow(&of_peer(vni, vtep)).map(|way| unsafe { way.read_volatile() })
}

fn of_peer(vni: u32, vtep: Ip6) -> FlowKey {
    FlowKey {
        vni,
        first: vtep.octets(),
        ..FlowKey::default()
    }
}

/// Notes a packet that the kernel has routed to a peer.
#[inline(always)]
pub(crate) fn leaves_to_peer<F: Family>(
    packet: &impl Received,
    frame: &Frame<F>,
    network: &Network,
    peer: &Peer,
) {
    // What the programs leave to the kernel anyway, left it as it came.
    let is_the_kernel_s = peer.flags & peer_flags::NEEDS_CHECKSUM != 0;
    if is_on(network)
        && !is_the_kernel_s
        && tables::endpoint(network.vni, frame.source).is_some()
        && let Some(tuple) = Tuple::of(packet, 0, frame)
    {
        learn(&tuple, network.vni);
    }
}

/// Notes a packet that the kernel delivers to an endpoint; `None` when there is nothing to note.
#[inline(always)]
pub(crate) fn to_endpoint(packet: &mut Packet) -> Option<()> {
    let port = tables::port(packet.interface())?;
    if !is_on(&port.network) || packet.has_vlan_tag() {
        return None;
    }
    let ethernet = Ethernet::of(packet, 0)?;
    // Others' frames come here when the bridge does not know where they belong.
    if ethernet.destination != Mac::from(port.mac) {
        return None;
    }
    match ethernet.kind {
        Ip4::ETHER_TYPE => leaves_to_endpoint::<Ip4>(packet, port, ethernet),
        Ip6::ETHER_TYPE => leaves_to_endpoint::<Ip6>(packet, port, ethernet),
        _ => None,
    }
}

#[inline(always)]
fn leaves_to_endpoint<F: Family>(
    packet: &mut Packet,
    port: &Port,
    ethernet: Ethernet,
) -> Option<()> {
    let network = &port.network;
    let frame = F::read(packet, 0, ethernet)?;
    frame.must_be_plain().ok()?;
    if frame.destination != F::of_port(port) {
        return None;
    }
    let is_neighbour = tables::endpoint(network.vni, frame.source).is_some();
    if !is_neighbour && tables::peer(network, frame.source).is_none() {
        return None;
    }
    let came_by_tunnel = tables::port(packet.came_by()).is_some_and(|by| by.slot == NODE_SLOT);
    // Some aggregates are the kernel's, of flows that are not.
    if came_by_tunnel && packet.segment_size() != 0 {
        return None;
    }
    let tuple = Tuple::of(packet, 0, &frame)?;
    learn(&tuple, network.vni);
    Some(())
}

/// Notes a packet from a peer that the kernel will deliver to an endpoint as it is.
#[inline(always)]
pub(crate) fn enters<P: Received, F: Family>(
    packet: &P,
    offset: usize,
    frame: &Frame<F>,
    network: &Network,
) {
    if P::IS_LAST
        && is_on(network)
        && frame.must_be_plain().is_ok()
        && let Some(tuple) = Tuple::of(packet, offset, frame)
    {
        tables::set_entered(&tuple.key(network.vni).0, now());
    }
}

/// There is something to learn: not all of the network is left to the kernel.
fn is_on(network: &Network) -> bool {
    network.flags & network_flags::TRACKED == 0
}

/// Notes that a packet of these addresses has left the kernel, unless one has just been left to it
/// that came with them.
#[inline(always)]
fn learn(tuple: &Tuple, vni: u32) {
    // Errors are of the kernel's own making.
    if tuple.is_quoted {
        return;
    }
    let (key, direction) = tuple.key(vni);
    // The look-up alone tells the kernel that the row is in use.
    // SAFETY: as in `is_translated`.
    let known = tables::flow(&key).map(|flow| unsafe { flow.read_volatile() });
    if known == Some(direction) {
        return;
    }
    let entered = tables::entered(&key);
    if entered.is_none_or(|then| now().wrapping_sub(then) >= ON_ITS_WAY) {
        tables::set_flow(&key, direction);
        tables::use_flows();
    }
}

fn now() -> u64 {
    // SAFETY: the helper takes no arguments.
    unsafe { bpf_ktime_get_ns() }
}

/// Who speaks to whom.
struct Tuple {
    source: Ip6,
    destination: Ip6,
    /// Ports as they stand in the packet; of an ICMP echo, its identifier twice.
    ports: [u16; 2],
    protocol: u8,
    /// That of the packet that an ICMP error is about.
    is_quoted: bool,
}

const ICMP: u8 = IpProto::Icmp as u8;
const ICMP6: u8 = IpProto::Ipv6Icmp as u8;

impl Tuple {
    /// Of the frame at `offset`, which is plain; `None` when it is cut off.
    #[inline(always)]
    fn of<F: Family>(packet: &impl Received, offset: usize, frame: &Frame<F>) -> Option<Self> {
        let transport = offset + EthHdr::LEN + F::HEADER;
        let mut ports = [0; 2];
        match frame.protocol {
            ICMP | ICMP6 => {
                let words: [u32; 2] = cast(packet.bytes::<8>(transport)?);
                if is_error(words) {
                    return quoted::<F>(packet, transport + size_of_val(&words));
                }
                ports = identifiers(words);
            }
            protocol if has_ports(protocol) => ports = cast(packet.bytes::<4>(transport)?),
            _ => {}
        }
        Some(Self {
            source: frame.source.mapped(),
            destination: frame.destination.mapped(),
            ports,
            protocol: frame.protocol,
            is_quoted: false,
        })
    }

    /// The key of the flow, and which of its directions this is.
    #[inline(always)]
    fn key(&self, vni: u32) -> (FlowKey, u32) {
        let ends = [
            (self.source, self.ports[0]),
            (self.destination, self.ports[1]),
        ];
        let number = |(address, port): (Ip6, u16)| (address.head, address.tail, port);
        let (direction, [first, second]) = if number(ends[0]) <= number(ends[1]) {
            (translated::FORTH, ends)
        } else {
            (translated::BACK, [ends[1], ends[0]])
        };
        let key = FlowKey {
            vni,
            first: first.0.octets(),
            second: second.0.octets(),
            first_port_be: first.1.to_ne_bytes(),
            second_port_be: second.1.to_ne_bytes(),
            protocol: self.protocol,
            reserved: [0; 3],
        };
        (key, direction)
    }
}

/// The tuple of the packet at `offset` that an ICMP error quotes: as much of it as RFC 792 asks
/// for; if it has options, it is not one that the programs would have forwarded.
#[inline(always)]
fn quoted<F: Family>(packet: &impl Received, offset: usize) -> Option<Tuple> {
    let (source, destination, protocol, transport): (Ip6, Ip6, u8, [u32; 2]) =
        if F::NUMBER == Ip4::NUMBER {
            const PLAIN: u8 = 0x45;
            let words: [u32; 7] = cast(packet.bytes::<28>(offset)?);
            if words[0].to_ne_bytes()[0] != PLAIN {
                return None;
            }
            (
                Ip4(words[3]).mapped(),
                Ip4(words[4]).mapped(),
                words[2].to_ne_bytes()[1],
                [words[5], words[6]],
            )
        } else {
            let words: [u64; 6] = cast(packet.bytes::<48>(offset)?);
            let address = |place: usize| Ip6 {
                head: words[place],
                tail: words[place + 1],
            };
            (
                address(1),
                address(3),
                words[0].to_ne_bytes()[6],
                cast(words[5]),
            )
        };
    let ports = match protocol {
        ICMP | ICMP6 => identifiers(transport),
        protocol if has_ports(protocol) => cast(transport[0]),
        _ => [0; 2],
    };
    Some(Tuple {
        source,
        destination,
        ports,
        protocol,
        is_quoted: true,
    })
}

/// Their ports come first.
fn has_ports(protocol: u8) -> bool {
    const TCP: u8 = IpProto::Tcp as u8;
    const UDP: u8 = IpProto::Udp as u8;
    const DCCP: u8 = IpProto::Dccp as u8;
    const SCTP: u8 = IpProto::Sctp as u8;
    const UDP_LITE: u8 = IpProto::UdpLite as u8;
    matches!(protocol, TCP | UDP | DCCP | SCTP | UDP_LITE)
}

/// By the types of both families, which do not overlap here: those of `ICMPv6` that are errors are
/// 1 to 4, and no query of ICMP has such a number.
fn is_error(words: [u32; 2]) -> bool {
    let [kind, ..] = words[0].to_ne_bytes();
    matches!(kind, 1..=5 | 11 | 12)
}

/// What tells echoes between the same addresses apart.
fn identifiers(words: [u32; 2]) -> [u16; 2] {
    const ECHOES: [u8; 4] = [0, 8, 128, 129];
    let [kind, ..] = words[0].to_ne_bytes();
    if !ECHOES.contains(&kind) {
        return [0; 2];
    }
    let [identifier, _]: [u16; 2] = cast(words[1]);
    [identifier; 2]
}

#[cfg(test)]
mod tests;
