//! Underlays whose packets begin with the IP header: VPNs and tunnels (TUN, `WireGuard`, IPIP).
//!
//! What is ours there gets an Ethernet header, and is then a packet like any other.

use core::mem::offset_of;

use network_types::{
    eth::EthHdr,
    ip::{IpProto, Ipv4Hdr, Ipv6Hdr},
};
use overlay_common::{programs::Program, reasons::PassReason};

use crate::{
    addresses::{Ip4, Ip6},
    family::Family,
    frame::ETHER_TYPE,
    headers::Headers,
    journal, outer,
    packet::Packet,
    received::Received as _,
    tables,
};

/// Version 4 and a header of five words.
const PLAIN4: u8 = 0x45;
const VERSION6: u8 = 6;
const PROTOCOL4: usize = offset_of!(Ipv4Hdr, proto);
const PROTOCOL6: usize = offset_of!(Ipv6Hdr, next_hdr);

/// Whether a packet has no Ethernet header.
///
/// With IPv4 it would be addressed to a group, which a packet to this machine is not. With IPv6
/// the kernel knows another type, unless a source address has that type in its third group:
/// such packets are the kernel's.
// Word by word, not as an `Ethernet`: that has bytes between its fields that nobody writes, LLVM
// copies it with them, and Linux 6.1 lets no program read what it has not written.
#[inline(always)]
pub(crate) fn is_bare(packet: &mut Packet) -> Result<bool, PassReason> {
    let headers: Headers<'_, { EthHdr::LEN }> = packet.headers(0).ok_or(PassReason::NotOurs)?;
    let first = headers.read::<u8, 0>();
    let kind = headers.read::<u16, ETHER_TYPE>();
    Ok(first == PLAIN4 || first >> 4 == VERSION6 && kind != packet.protocol())
}

/// Puts an Ethernet header before a packet of one of our tunnels.
#[inline(always)]
pub(crate) fn complete(packet: &mut Packet) -> Result<(), PassReason> {
    let kind = packet.protocol();
    match kind {
        Ip4::ETHER_TYPE => {
            must_be_ours::<{ Ipv4Hdr::LEN }, { Ipv4Hdr::LEN + outer::LEN }, PROTOCOL4>(packet)
        }
        Ip6::ETHER_TYPE => {
            must_be_ours::<{ Ipv6Hdr::LEN }, { Ipv6Hdr::LEN + outer::LEN }, PROTOCOL6>(packet)
        }
        _ => Err(PassReason::NotOurs),
    }?;
    packet
        .put_ethernet(kind)
        .map_err(|_| PassReason::NotResizable)?;
    // Whoever watches sees frames.
    journal::came(Program::FromUnderlay, packet);
    Ok(())
}

/// It is UDP to the port of the network that it names.
#[inline(always)]
fn must_be_ours<const IP: usize, const LEN: usize, const PROTOCOL: usize>(
    packet: &mut Packet,
) -> Result<(), PassReason> {
    let mut headers: Headers<'_, LEN> = packet.headers(0).ok_or(PassReason::NotOurs)?;
    if headers.read::<u8, PROTOCOL>() != IpProto::Udp as u8 {
        return Err(PassReason::NotOurs);
    }
    let tunnel = outer::Tunnel::read(&headers.part::<IP, { outer::LEN }>());
    let network = tables::network(tunnel.vni()).ok_or(PassReason::NotOurs)?;
    if tunnel.port_be != network.port_be {
        return Err(PassReason::NotOurs);
    }
    Ok(())
}
