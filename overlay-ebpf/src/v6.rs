//! IPv6, in a frame and under the tunnel.

use core::mem::offset_of;

use aya_ebpf::bindings::{BPF_F_ADJ_ROOM_DECAP_L3_IPV6, BPF_F_ADJ_ROOM_ENCAP_L3_IPV6};
use network_types::{
    eth::{EthHdr, EtherType},
    ip::{IpProto, Ipv6Hdr},
};
use overlay_common::{
    maps::{Network, Peer, Port, peer_flags},
    reasons::PassReason,
    wire::{OUTER_TTL, OVERHEAD_V6},
};

use crate::{
    addresses::{Address as _, Ip6, Mac},
    checksum,
    family::Family,
    frame::{ETHER_TYPE, Ethernet, Forwarded, Frame},
    headers::Headers,
    neighbours,
    outer::{self, Flow, Outer, Tunnel},
    packet::Packet,
    received::Received,
    verdict::Exit,
};

/// A frame as far as it is read.
pub(crate) const LEN: usize = EthHdr::LEN + Ipv6Hdr::LEN;
/// The tunnel's headers, and where the inner frame starts.
const INNER: usize = LEN + outer::LEN;

/// Version, traffic class and flow label; the class ends four bits before the first half does.
const VERSION_TO_LABEL: usize = EthHdr::LEN + offset_of!(Ipv6Hdr, vcf);
const PAYLOAD_LENGTH: usize = EthHdr::LEN + offset_of!(Ipv6Hdr, payload_len);
const NEXT_HEADER: usize = EthHdr::LEN + offset_of!(Ipv6Hdr, next_hdr);
const HOP_LIMIT: usize = EthHdr::LEN + offset_of!(Ipv6Hdr, hop_limit);
const SOURCE: usize = EthHdr::LEN + offset_of!(Ipv6Hdr, src_addr);
const DESTINATION: usize = EthHdr::LEN + offset_of!(Ipv6Hdr, dst_addr);
/// Where the second half of an address is, see [`Ip6::tail`].
const TAIL: usize = 8;

const VERSION: u16 = 6 << 12;
const VERSION_MASK: u16 = 0xf000;
const CLASS_SHIFT: u32 = 4;
const CLASS_MASK: u16 = 0xff << CLASS_SHIFT;

const _: () = assert!(INNER == OVERHEAD_V6 as usize);

impl Family for Ip6 {
    const ETHER_TYPE: u16 = EtherType::Ipv6 as u16;
    const HEADER: usize = Ipv6Hdr::LEN;
    const OVERHEAD: u16 = OVERHEAD_V6;
    const NUMBER: u32 = 10;
    const ENCAP: u64 = BPF_F_ADJ_ROOM_ENCAP_L3_IPV6 as u64;
    const DECAP: u64 = BPF_F_ADJ_ROOM_DECAP_L3_IPV6 as u64;

    #[inline(always)]
    fn read(packet: &mut impl Received, offset: usize, ethernet: Ethernet) -> Option<Frame<Self>> {
        read(&packet.headers::<LEN>(offset)?, ethernet)
    }

    fn sum(_: &mut impl Received, _: usize) -> Option<u64> {
        Some(checksum::RIGHT)
    }

    // The addresses are the same in both.
    #[inline(always)]
    fn pseudo_for_header(outer: &Outer<Self>) -> u64 {
        checksum::finish(outer.unsummed).into()
    }

    #[inline(always)]
    fn routed_words(packet: &mut Packet) -> Option<u64> {
        let headers = packet.linear::<LEN>(0)?;
        Some(routed_words(&headers))
    }

    /// The shape is the kind of header that follows; encrypted payload is payload.
    fn oddity(shape: u32) -> Option<PassReason> {
        const HOP_BY_HOP: u32 = IpProto::HopOpt as u32;
        const ROUTING: u32 = IpProto::Ipv6Route as u32;
        const FRAGMENT: u32 = IpProto::Ipv6Frag as u32;
        const AUTHENTICATION: u32 = IpProto::Ah as u32;
        const OPTIONS: u32 = IpProto::Ipv6Opts as u32;
        const MOBILITY: u32 = IpProto::MobilityHeader as u32;
        const HOST_IDENTITY: u32 = IpProto::Hip as u32;
        const SHIM: u32 = IpProto::Shim6 as u32;
        match shape {
            FRAGMENT => Some(PassReason::Fragment),
            HOP_BY_HOP | ROUTING | AUTHENTICATION | OPTIONS | MOBILITY | HOST_IDENTITY | SHIM => {
                Some(PassReason::IpOptions)
            }
            _ => None,
        }
    }

    fn checksum(_: &Frame<Self>, _: u8, _: u8) -> u16 {
        0
    }

    /// `ip6_forward()` sets none.
    fn priority(_: u8) -> Option<u32> {
        None
    }

    #[inline(always)]
    fn write(
        packet: &mut impl Received,
        offset: usize,
        ethernet: &Ethernet,
        forwarded: Option<&Forwarded>,
    ) -> Option<()> {
        let mut headers = packet.linear::<LEN>(offset)?;
        ethernet.write(&mut headers.part::<0, { EthHdr::LEN }>());
        if let Some(forwarded) = forwarded {
            write_forwarded(&mut headers, forwarded);
        }
        Some(())
    }

    #[inline(always)]
    fn read_outer(packet: &mut impl Received) -> Result<Outer<Self>, PassReason> {
        let mut headers = packet.headers::<INNER>(0).ok_or(PassReason::NotOurs)?;
        read_outer(&mut headers)
    }

    #[inline(always)]
    fn write_outer(packet: &mut Packet, network: &Network, peer: &Peer, flow: &Flow) -> Option<()> {
        write_outer(&mut packet.linear::<INNER>(0)?, network, peer, flow);
        Some(())
    }

    fn must_claim_own(packet: &Packet, frame: &Frame<Self>, port: &Port) -> Result<(), Exit> {
        neighbours::discovery_must_claim_own(packet, frame, port)
    }

    fn of_port(port: &Port) -> Self {
        port.address6.into()
    }

    fn subnet(network: &Network) -> (Self, Self) {
        (network.subnet6.into(), network.subnet6_mask.into())
    }

    fn vtep(network: &Network) -> Self {
        network.vtep6.into()
    }

    fn vtep_mac(network: &Network) -> Mac {
        network.vtep6_mac.into()
    }

    fn leads_to(peer: &Peer) -> bool {
        peer.flags & peer_flags::IPV6 != 0
    }
}

#[inline(always)]
fn read(headers: &Headers<'_, LEN>, ethernet: Ethernet) -> Option<Frame<Ip6>> {
    let version_and_class = u16::from_be(headers.read::<u16, VERSION_TO_LABEL>());
    if version_and_class & VERSION_MASK != VERSION {
        return None;
    }
    let protocol = headers.read::<u8, NEXT_HEADER>();
    Some(Frame {
        ethernet,
        source: read_address::<SOURCE, { SOURCE + TAIL }, LEN>(headers),
        destination: read_address::<DESTINATION, { DESTINATION + TAIL }, LEN>(headers),
        tos: class(version_and_class),
        ttl: headers.read::<u8, HOP_LIMIT>(),
        protocol,
        length: length(headers.read::<u16, PAYLOAD_LENGTH>()),
        checksum: 0,
        shape: protocol.into(),
    })
}

/// The words in which the traffic class and the hop limit stand, added up.
#[inline(always)]
fn routed_words(headers: &Headers<'_, LEN>) -> u64 {
    u64::from(headers.read::<u32, VERSION_TO_LABEL>())
        + u64::from(headers.read::<u32, PAYLOAD_LENGTH>())
}

#[inline(always)]
fn read_address<const HEAD: usize, const TAIL: usize, const LEN: usize>(
    headers: &Headers<'_, LEN>,
) -> Ip6 {
    Ip6 {
        head: headers.read::<u64, HEAD>(),
        tail: headers.read::<u64, TAIL>(),
    }
}

/// Bytes of the whole packet.
fn length(payload_be: u16) -> usize {
    Ipv6Hdr::LEN + usize::from(u16::from_be(payload_be))
}

fn class(version_and_class: u16) -> u8 {
    let [_, class] = (version_and_class >> CLASS_SHIFT).to_be_bytes();
    class
}

#[inline(always)]
fn write_forwarded(headers: &mut Headers<'_, LEN>, forwarded: &Forwarded) {
    let others = u16::from_be(headers.read::<u16, VERSION_TO_LABEL>()) & !CLASS_MASK;
    let class = u16::from(forwarded.tos) << CLASS_SHIFT;
    headers.write::<u16, VERSION_TO_LABEL>((others | class).to_be());
    headers.write::<u8, HOP_LIMIT>(forwarded.ttl);
}

#[inline(always)]
fn read_outer(headers: &mut Headers<'_, INNER>) -> Result<Outer<Ip6>, PassReason> {
    let version_and_class = u16::from_be(headers.read::<u16, VERSION_TO_LABEL>());
    if version_and_class & VERSION_MASK != VERSION {
        return Err(PassReason::NotOurs);
    }
    let next_header = headers.read::<u8, NEXT_HEADER>();
    if next_header != IpProto::Udp as u8 {
        return Err(Ip6::oddity(next_header.into()).unwrap_or(PassReason::NotOurs));
    }
    Ok(Outer {
        source: read_address::<SOURCE, { SOURCE + TAIL }, INNER>(headers),
        destination: read_address::<DESTINATION, { DESTINATION + TAIL }, INNER>(headers),
        tos: class(version_and_class),
        length: length(headers.read::<u16, PAYLOAD_LENGTH>()),
        unsummed: routed_words(&headers.part::<0, LEN>()),
        tunnel: Tunnel::read(&headers.part::<LEN, { outer::LEN }>()),
    })
}

/// Without a flow label, as Linux's VXLAN device sends it.
#[inline(always)]
fn write_outer(headers: &mut Headers<'_, INNER>, network: &Network, peer: &Peer, flow: &Flow) {
    let source = Ip6::vtep(network);
    let destination = Ip6::unmapped(peer.vtep);
    let version_and_class = VERSION | u16::from(flow.tos) << CLASS_SHIFT;
    let length_to_hop_limit =
        u32::from(flow.length) << 16 | u32::from_be_bytes([0, 0, IpProto::Udp as u8, OUTER_TTL]);
    headers.write::<u16, ETHER_TYPE>(Ip6::ETHER_TYPE);
    headers.write::<u32, VERSION_TO_LABEL>((u32::from(version_and_class) << 16).to_be());
    headers.write::<u32, PAYLOAD_LENGTH>(length_to_hop_limit.to_be());
    headers.write::<u64, SOURCE>(source.head);
    headers.write::<u64, { SOURCE + TAIL }>(source.tail);
    headers.write::<u64, DESTINATION>(destination.head);
    headers.write::<u64, { DESTINATION + TAIL }>(destination.tail);
    outer::write(&mut headers.part::<LEN, { outer::LEN }>(), network, flow);
}

#[cfg(test)]
mod tests;
