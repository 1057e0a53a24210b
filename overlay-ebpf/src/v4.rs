//! IPv4, in a frame and under the tunnel.

use core::mem::offset_of;

use aya_ebpf::bindings::{BPF_F_ADJ_ROOM_DECAP_L3_IPV4, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4};
use network_types::{
    eth::{EthHdr, EtherType},
    ip::{IpProto, Ipv4Hdr},
};
use overlay_common::{
    maps::{Network, Peer, Port, peer_flags},
    reasons::PassReason,
    wire::{OUTER_TTL, OVERHEAD_V4},
};

use crate::{
    addresses::{Address as _, Ip4, Mac},
    checksum,
    family::Family,
    frame::{ETHER_TYPE, Ethernet, Forwarded, Frame},
    headers::Headers,
    outer::{self, Flow, Outer, Tunnel},
    packet::{Packet, random},
    received::Received,
    verdict::Exit,
};

/// A frame as far as it is read.
const LEN: usize = EthHdr::LEN + Ipv4Hdr::LEN;
/// The tunnel's headers, and where the inner frame starts.
const INNER: usize = LEN + outer::LEN;

const VERSION_AND_LENGTH: usize = EthHdr::LEN + offset_of!(Ipv4Hdr, vihl);
const TOS: usize = EthHdr::LEN + offset_of!(Ipv4Hdr, tos);
const TOTAL_LENGTH: usize = EthHdr::LEN + offset_of!(Ipv4Hdr, tot_len);
const ID: usize = EthHdr::LEN + offset_of!(Ipv4Hdr, id);
const FRAGMENT: usize = EthHdr::LEN + offset_of!(Ipv4Hdr, frags);
const TTL: usize = EthHdr::LEN + offset_of!(Ipv4Hdr, ttl);
const PROTOCOL: usize = EthHdr::LEN + offset_of!(Ipv4Hdr, proto);
const CHECKSUM: usize = EthHdr::LEN + offset_of!(Ipv4Hdr, check);
const SOURCE: usize = EthHdr::LEN + offset_of!(Ipv4Hdr, src_addr);
const DESTINATION: usize = EthHdr::LEN + offset_of!(Ipv4Hdr, dst_addr);

/// Version 4, header of five words.
const PLAIN: u8 = 0x45;
const HEADER_BYTES: u32 = 4 * (PLAIN & 0x0f) as u32;
/// "More fragments" and the offset; "don't fragment" is no matter here.
const IS_FRAGMENT: u32 = 0x3fff;

/// Bits of TOS, by which a byte among four is found without a look into memory.
const HIGH_THROUGHPUT: u8 = 1 << 3;
const LOW_DELAY: u8 = 1 << 4;
const TC_PRIO_BESTEFFORT: u8 = 0;
const TC_PRIO_BULK: u8 = 2;
const TC_PRIO_INTERACTIVE_BULK: u8 = 4;
const TC_PRIO_INTERACTIVE: u8 = 6;

const _: () = assert!(INNER == OVERHEAD_V4 as usize);

impl Family for Ip4 {
    const ETHER_TYPE: u16 = EtherType::Ipv4 as u16;
    const HEADER: usize = Ipv4Hdr::LEN;
    const OVERHEAD: u16 = OVERHEAD_V4;
    const NUMBER: u32 = 2;
    const ENCAP: u64 = BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 as u64;
    const DECAP: u64 = BPF_F_ADJ_ROOM_DECAP_L3_IPV4 as u64;

    #[inline(always)]
    fn read(packet: &mut impl Received, offset: usize, ethernet: Ethernet) -> Option<Frame<Self>> {
        read(&packet.headers::<LEN>(offset)?, ethernet)
    }

    #[inline(always)]
    fn sum(packet: &mut impl Received, offset: usize) -> Option<u64> {
        packet.linear::<LEN>(offset).map(|headers| sum(&headers))
    }

    #[inline(always)]
    fn pseudo_for_header(outer: &Outer<Self>) -> u64 {
        outer.source.added_up() + outer.destination.added_up()
    }

    fn routed_words(_: &mut Packet) -> Option<u64> {
        None
    }

    fn oddity(shape: u32) -> Option<PassReason> {
        if shape >> u16::BITS != u32::from(PLAIN) {
            return Some(PassReason::IpOptions);
        }
        (shape & IS_FRAGMENT != 0).then_some(PassReason::Fragment)
    }

    fn checksum(frame: &Frame<Self>, tos: u8, ttl: u8) -> u16 {
        let age = |ttl| u16::from_ne_bytes([ttl, frame.protocol]);
        let older = checksum::replace(frame.checksum, age(frame.ttl), age(ttl));
        if tos == frame.tos {
            return older;
        }
        let service = |tos| u16::from_ne_bytes([PLAIN, tos]);
        checksum::replace(older, service(frame.tos), service(tos))
    }

    /// The kernel's `rt_tos2priority()`: by the bits of RFC 1349 §3 for throughput and delay.
    fn priority(tos: u8) -> Option<u32> {
        const PRIORITIES: u32 = u32::from_le_bytes([
            TC_PRIO_BESTEFFORT,
            TC_PRIO_BULK,
            TC_PRIO_INTERACTIVE,
            TC_PRIO_INTERACTIVE_BULK,
        ]);
        Some(PRIORITIES >> (tos & (LOW_DELAY | HIGH_THROUGHPUT)) & 0xff)
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
        write_outer(
            &mut packet.linear::<INNER>(0)?,
            network,
            peer,
            flow,
            random(),
        );
        Some(())
    }

    fn must_claim_own(_: &Packet, _: &Frame<Self>, _: &Port) -> Result<(), Exit> {
        // IPv4's neighbours speak ARP.
        Ok(())
    }

    fn of_port(port: &Port) -> Self {
        port.address.into()
    }

    fn subnet(network: &Network) -> (Self, Self) {
        (network.subnet.into(), network.subnet_mask.into())
    }

    fn vtep(network: &Network) -> Self {
        network.vtep.into()
    }

    fn vtep_mac(network: &Network) -> Mac {
        network.vtep_mac.into()
    }

    fn leads_to(peer: &Peer) -> bool {
        peer.flags & peer_flags::IPV6 == 0
    }
}

#[inline(always)]
fn read(headers: &Headers<'_, LEN>, ethernet: Ethernet) -> Option<Frame<Ip4>> {
    let version_and_length = headers.read::<u8, VERSION_AND_LENGTH>();
    if version_and_length < PLAIN || version_and_length >> 4 != 4 {
        return None;
    }
    Some(Frame {
        ethernet,
        source: Ip4(headers.read::<u32, SOURCE>()),
        destination: Ip4(headers.read::<u32, DESTINATION>()),
        tos: headers.read::<u8, TOS>(),
        ttl: headers.read::<u8, TTL>(),
        protocol: headers.read::<u8, PROTOCOL>(),
        length: u16::from_be(headers.read::<u16, TOTAL_LENGTH>()).into(),
        checksum: headers.read::<u16, CHECKSUM>(),
        shape: shape(headers),
    })
}

/// The words of a plain header, its checksum included.
#[inline(always)]
fn sum(headers: &Headers<'_, LEN>) -> u64 {
    [
        headers.read::<u32, VERSION_AND_LENGTH>(),
        headers.read::<u32, ID>(),
        headers.read::<u32, TTL>(),
        headers.read::<u32, SOURCE>(),
        headers.read::<u32, DESTINATION>(),
    ]
    .into_iter()
    .map(u64::from)
    .sum()
}

/// What must be [`PLAIN`], and the fragment's flags and offset.
#[inline(always)]
fn shape<const LEN: usize>(headers: &Headers<'_, LEN>) -> u32 {
    u32::from(headers.read::<u8, VERSION_AND_LENGTH>()) << u16::BITS
        | u32::from(u16::from_be(headers.read::<u16, FRAGMENT>()))
}

#[inline(always)]
fn write_forwarded(headers: &mut Headers<'_, LEN>, forwarded: &Forwarded) {
    headers.write::<u8, TOS>(forwarded.tos);
    headers.write::<u8, TTL>(forwarded.ttl);
    headers.write::<u16, CHECKSUM>(forwarded.checksum);
}

#[inline(always)]
fn read_outer(headers: &mut Headers<'_, INNER>) -> Result<Outer<Ip4>, PassReason> {
    if headers.read::<u8, PROTOCOL>() != IpProto::Udp as u8 {
        return Err(PassReason::NotOurs);
    }
    if let Some(oddity) = Ip4::oddity(shape(headers)) {
        return Err(oddity);
    }
    Ok(Outer {
        source: Ip4(headers.read::<u32, SOURCE>()),
        destination: Ip4(headers.read::<u32, DESTINATION>()),
        tos: headers.read::<u8, TOS>(),
        length: u16::from_be(headers.read::<u16, TOTAL_LENGTH>()).into(),
        // A right header adds up to nothing, and no other is received.
        unsummed: 0,
        tunnel: Tunnel::read(&headers.part::<LEN, { outer::LEN }>()),
    })
}

#[inline(always)]
fn write_outer(
    headers: &mut Headers<'_, INNER>,
    network: &Network,
    peer: &Peer,
    flow: &Flow,
    // DF is not set, so a router may fragment.
    id: u16,
) {
    let source = Ip4::vtep(network);
    let destination = Ip4::unmapped(peer.vtep);
    let length = u32::from(flow.length) + HEADER_BYTES;
    let version_to_length = (u32::from_be_bytes([PLAIN, flow.tos, 0, 0]) | length).to_be();
    let id_unfragmented = (u32::from(id) << 16).to_be();
    let ttl_and_protocol = u16::from_ne_bytes([OUTER_TTL, IpProto::Udp as u8]);
    let checksum = checksum::finish(
        [
            version_to_length,
            id_unfragmented,
            u32::from(ttl_and_protocol),
            source.0,
            destination.0,
        ]
        .into_iter()
        .map(u64::from)
        .sum(),
    );
    headers.write::<u16, ETHER_TYPE>(Ip4::ETHER_TYPE);
    headers.write::<u32, VERSION_AND_LENGTH>(version_to_length);
    headers.write::<u32, ID>(id_unfragmented);
    headers.write::<u16, TTL>(ttl_and_protocol);
    headers.write::<u16, CHECKSUM>(checksum);
    headers.write::<u32, SOURCE>(source.0);
    headers.write::<u32, DESTINATION>(destination.0);
    outer::write(&mut headers.part::<LEN, { outer::LEN }>(), network, flow);
}

#[cfg(test)]
mod tests;
