//! What an endpoint tells its neighbours about itself: ARP and neighbour discovery.
//!
//! The kernel's bridge carries these messages; here they are only read. A claim is the
//! pair of an IP address and a MAC that the sender wants others to believe.

use core::mem::offset_of;

use network_types::{
    arp::ArpHdr,
    eth::EthHdr,
    icmp::Icmpv6Hdr,
    ip::{IpProto, Ipv6Hdr},
};
use overlay_common::{maps::Port, reasons::DropReason};

use crate::{
    addresses::{Address as _, Ip4, Ip6, Mac},
    family::Family as _,
    frame::Frame,
    own::{is_own, may_be_anybody},
    packet::Packet,
    received::Received as _,
    verdict::{Exit, Sender, malformed},
};

const ICMP: u8 = IpProto::Ipv6Icmp as u8;
const SPOOFED: Exit = Exit::Drop(DropReason::SpoofedNeighbour, Sender::UNKNOWN);

/// A message of ARP must name its sender's own MAC and address, or no address yet.
pub(crate) fn arp_must_claim_own(packet: &mut Packet, port: &Port) -> Result<(), Exit> {
    const FORMAT: usize = EthHdr::LEN + offset_of!(ArpHdr, htype);
    const LENGTHS: usize = EthHdr::LEN + offset_of!(ArpHdr, hlen);
    const SENDER_MAC: usize = EthHdr::LEN + offset_of!(ArpHdr, sha);
    const SENDER: usize = EthHdr::LEN + offset_of!(ArpHdr, spa);
    // Ethernet and IPv4, addresses of 6 and 4 bytes.
    const FORMAT_WE_KNOW: [u8; 4] = [0, 1, 8, 0];
    const LENGTHS_WE_KNOW: [u8; 2] = [6, 4];

    let Some(headers) = packet.headers::<{ EthHdr::LEN + size_of::<ArpHdr>() }>(0) else {
        return Err(malformed(packet, &port.network, Sender::UNKNOWN));
    };
    if headers.read::<u32, FORMAT>() != u32::from_ne_bytes(FORMAT_WE_KNOW)
        || headers.read::<u16, LENGTHS>() != u16::from_ne_bytes(LENGTHS_WE_KNOW)
    {
        // Whoever reads it does not understand it either.
        return Ok(());
    }
    let mac = Mac {
        head: headers.read::<u32, SENDER_MAC>(),
        tail: headers.read::<u16, { SENDER_MAC + 4 }>(),
    };
    let address = Ip4(headers.read::<u32, SENDER>());
    if mac != Mac::from(port.mac) || !(address.is_unspecified() || is_own(packet, port, address)) {
        return Err(SPOOFED);
    }
    Ok(())
}

const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;

/// A message of neighbour discovery (RFC 4861) must claim the sender's own MAC and, when it
/// advertises an address, an own one. Endpoints are no routers of the network's.
pub(crate) fn discovery_must_claim_own(
    packet: &Packet,
    frame: &Frame<Ip6>,
    port: &Port,
) -> Result<(), Exit> {
    const MESSAGE: usize = EthHdr::LEN + Ipv6Hdr::LEN;
    const TARGET: usize = MESSAGE + size_of::<Icmpv6Hdr>();
    const BEHIND_TARGET: usize = TARGET + size_of::<[u8; 16]>();

    if may_be_anybody(port) {
        return Ok(());
    }
    if frame.protocol != ICMP {
        return must_not_hide_discovery(packet, frame);
    }
    let end = EthHdr::LEN + frame.length;
    match packet.bytes(MESSAGE) {
        Some([ROUTER_ADVERTISEMENT | REDIRECT]) => Err(SPOOFED),
        Some([ROUTER_SOLICITATION]) => must_name_own_mac(packet, port, TARGET, end),
        Some([SOLICITATION]) => must_name_own_mac(packet, port, BEHIND_TARGET, end),
        Some([ADVERTISEMENT]) => {
            let target = packet.bytes::<16>(TARGET).map(Ip6::from);
            if target.is_some_and(|target| !target.is_link_local() && !is_own(packet, port, target))
            {
                return Err(SPOOFED);
            }
            must_name_own_mac(packet, port, BEHIND_TARGET, end)
        }
        _ => Ok(()),
    }
}

/// Nobody puts other headers before a message of discovery, but who hides it behind them.
#[inline(always)]
fn must_not_hide_discovery(packet: &Packet, frame: &Frame<Ip6>) -> Result<(), Exit> {
    const AUTHENTICATION: u8 = IpProto::Ah as u8;
    const FRAGMENT: u8 = IpProto::Ipv6Frag as u8;
    /// Nobody needs more. A longer chain is left to the kernel, whose bridge looks behind all of it
    /// for the guard's table.
    const MOST: usize = 6;
    /// Receivers believe no message that could have come by a router (RFC 4861 §6.1, §7.1, §8.1).
    const FROM_THE_LINK: u8 = 255;

    if frame.ttl != FROM_THE_LINK {
        return Ok(());
    }
    let mut place = EthHdr::LEN + Ipv6Hdr::LEN;
    let mut kind = frame.protocol;
    for _ in 0..MOST {
        if kind == ICMP {
            return match packet.bytes(place) {
                Some([ROUTER_SOLICITATION..=REDIRECT]) => Err(SPOOFED),
                _ => Ok(()),
            };
        }
        // Discovery in fragments is not listened to (RFC 6980).
        if kind == FRAGMENT || Ip6::oddity(kind.into()).is_none() {
            return Ok(());
        }
        let Some([next, length]) = packet.bytes(place) else {
            return Ok(());
        };
        place += match kind {
            AUTHENTICATION => 4 * (usize::from(length) + 2),
            _ => 8 * (usize::from(length) + 1),
        };
        kind = next;
    }
    Ok(())
}

/// The options of a message name no MAC but the sender's.
#[inline(always)]
fn must_name_own_mac(packet: &Packet, port: &Port, options: usize, end: usize) -> Result<(), Exit> {
    const SOURCE_MAC: u8 = 1;
    const TARGET_MAC: u8 = 2;
    /// Nobody needs as many.
    const MOST: usize = 6;

    let mut place = options;
    for _ in 0..MOST {
        if place >= end {
            return Ok(());
        }
        let Some([kind, length, mac @ ..]) = packet.bytes::<8>(place) else {
            return Ok(());
        };
        if matches!(kind, SOURCE_MAC | TARGET_MAC) && Mac::from(mac) != Mac::from(port.mac) {
            return Err(SPOOFED);
        }
        if length == 0 {
            // Receivers throw such a message away (RFC 4861 §4.6).
            return Ok(());
        }
        place += 8 * usize::from(length);
    }
    Err(SPOOFED)
}
