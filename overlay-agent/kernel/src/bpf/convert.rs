//! Between the agent's types and those of the maps.
//!
//! What cannot be translated there and back was not written by us: a key that is no VNI, a
//! MAC that is none. Such a row is a stray: overwritten where an entry is needed, else removed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use aya::maps::lpm_trie::Key;
use bytemuck::Zeroable as _;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use overlay_common::maps::{
    AddressKey4, AddressKey6, BUCKETS, CidrKey, Endpoint, MAX_NEXT_HOPS, NextHop, Peer, PrefixKey4,
    PrefixKey6, SourceKey, endpoint_flags, mapped, peer_flags,
};
use overlay_core::{
    model::{IfName, Mac, Vni},
    objects::{EndpointEntry, LinkRef, PeerEntry, Spread},
};

use super::by_family::ByFamily;
use crate::{KernelError, Result};

/// Bits before an IPv4 address that is mapped to IPv6.
const MAPPED: u8 = 96;
/// Bits of the index before a source.
const INDEX: u32 = 32;

/// The key of a peer's subnet.
pub(super) fn prefix_key((vni, net): (Vni, IpNet)) -> ByFamily<PrefixKey4, PrefixKey6> {
    let (vni, length) = (vni.get(), net.prefix_len().into());
    match net {
        IpNet::V4(net) => ByFamily::V4(PrefixKey4 {
            vni,
            length,
            prefix: net.network().octets(),
        }),
        IpNet::V6(net) => ByFamily::V6(PrefixKey6 {
            vni,
            length,
            prefix: net.network().octets(),
        }),
    }
}

/// The key of an endpoint or VTEP.
pub(super) fn address_key((vni, address): (Vni, IpAddr)) -> ByFamily<AddressKey4, AddressKey6> {
    let vni = vni.get();
    match address {
        IpAddr::V4(address) => ByFamily::V4(AddressKey4 {
            vni,
            address: address.octets(),
        }),
        IpAddr::V6(address) => ByFamily::V6(AddressKey6 {
            vni,
            address: address.octets(),
        }),
    }
}

/// The network and address of a key.
pub(super) fn address_of(key: ByFamily<AddressKey4, AddressKey6>) -> Option<(Vni, IpAddr)> {
    let (vni, address) = match key {
        ByFamily::V4(key) => (key.vni, Ipv4Addr::from(key.address).into()),
        ByFamily::V6(key) => (key.vni, Ipv6Addr::from(key.address).into()),
    };
    Some((Vni::try_from(vni).ok()?, address))
}

/// The network and subnet of a key.
pub(super) fn prefix_of(key: ByFamily<PrefixKey4, PrefixKey6>) -> Option<(Vni, IpNet)> {
    let length = |length: u32| u8::try_from(length).ok();
    let (vni, net) = match key {
        ByFamily::V4(key) => {
            let net = Ipv4Net::new(key.prefix.into(), length(key.length)?).ok()?;
            (key.vni, net.into())
        }
        ByFamily::V6(key) => {
            let net = Ipv6Net::new(key.prefix.into(), length(key.length)?).ok()?;
            (key.vni, net.into())
        }
    };
    let found = (Vni::try_from(vni).ok()?, net);
    // With bits behind the prefix it is another key, which the programs never look up.
    (prefix_key(found) == key).then_some(found)
}

/// The key of a network's range.
pub(super) fn cidr_key(cidr: IpNet) -> Key<CidrKey> {
    let (prefix, length) = mapped_net(cidr);
    Key::new(length, CidrKey { prefix })
}

/// The range of a key.
pub(super) fn cidr_of(key: &Key<CidrKey>) -> Option<IpNet> {
    let found = unmapped_net(key.data().prefix, key.prefix_len())?;
    (cidr_key(found).data() == key.data()).then_some(found)
}

/// The key of what an endpoint may send from.
pub(super) fn source_key(
    (link, prefix): (LinkRef, IpNet),
    index_of: impl Fn(IfName) -> Option<u32>,
) -> Result<Key<SourceKey>> {
    let (prefix, length) = mapped_net(prefix);
    let ifindex_be = index(link, index_of)?.to_be_bytes();
    let key = SourceKey { ifindex_be, prefix };
    Ok(Key::new(INDEX + length, key))
}

/// The endpoint's device and the prefix of a key.
pub(super) fn source_of(
    key: &Key<SourceKey>,
    name_of: impl Fn(u32) -> Option<IfName>,
) -> Option<(LinkRef, IpNet)> {
    let SourceKey { ifindex_be, prefix } = key.data();
    let net = unmapped_net(prefix, key.prefix_len().checked_sub(INDEX)?)?;
    let whole = mapped_net(net).0 == prefix;
    whole.then(|| (link(u32::from_be_bytes(ifindex_be), name_of), net))
}

fn mapped_net(net: IpNet) -> ([u8; 16], u32) {
    match net {
        IpNet::V4(net) => (
            mapped(net.network().octets()),
            (MAPPED + net.prefix_len()).into(),
        ),
        IpNet::V6(net) => (net.network().octets(), net.prefix_len().into()),
    }
}

fn unmapped_net(prefix: [u8; 16], length: u32) -> Option<IpNet> {
    let length = u8::try_from(length).ok()?;
    let prefix = Ipv6Addr::from(prefix);
    match (prefix.to_ipv4_mapped(), length.checked_sub(MAPPED)) {
        (Some(prefix), Some(length)) => Ipv4Net::new(prefix, length).ok().map(IpNet::V4),
        _ => Ipv6Net::new(prefix, length).ok().map(IpNet::V6),
    }
}

pub(super) fn peer(entry: &PeerEntry, index_of: impl Fn(IfName) -> Option<u32>) -> Result<Peer> {
    let family = if entry.vtep.is_ipv6() {
        peer_flags::IPV6
    } else {
        0
    };
    let checksum = u16::from(entry.needs_checksum) * peer_flags::NEEDS_CHECKSUM;
    let hooked = u16::from(entry.hooked) * peer_flags::HOOKED;
    let spread = entry.spread.as_deref();
    let used = spread.map_or(&[][..], |spread| &spread.more);
    let mut more = [NextHop::zeroed(); MAX_NEXT_HOPS - 1];
    for (place, &(address, underlay)) in more.iter_mut().zip(used) {
        *place = NextHop {
            address: octets(address),
            ifindex: index(underlay, &index_of)?,
        };
    }
    Ok(Peer {
        vtep: octets(entry.vtep),
        next_hop: octets(entry.next_hop),
        underlay_ifindex: index(entry.underlay, &index_of)?,
        index: entry.index,
        mac: entry.mac.octets(),
        flags: family | checksum | hooked,
        mtu: entry.mtu,
        others: u8::try_from(used.len()).unwrap_or_default(),
        reserved: 0,
        spread: spread.map_or([0; BUCKETS], |spread| spread.buckets),
        more,
    })
}

fn spread(peer: &Peer, name_of: impl Fn(u32) -> Option<IfName>) -> Option<Box<Spread>> {
    let used = peer.more.get(..peer.others.into())?;
    let hop = |hop: &NextHop| {
        let address = Ipv6Addr::from(hop.address).to_canonical();
        (address, link(hop.ifindex, &name_of))
    };
    let spread = Spread {
        more: used.iter().map(hop).collect(),
        buckets: peer.spread,
    };
    (!used.is_empty()).then(|| spread.into())
}

/// `None` for what [`peer`] never makes.
pub(super) fn peer_entry(
    peer: &Peer,
    name_of: impl Fn(u32) -> Option<IfName>,
) -> Option<PeerEntry> {
    let entry = PeerEntry {
        vtep: Ipv6Addr::from(peer.vtep).to_canonical(),
        next_hop: Ipv6Addr::from(peer.next_hop).to_canonical(),
        underlay: link(peer.underlay_ifindex, &name_of),
        mac: Mac::unicast(peer.mac)?,
        index: peer.index,
        mtu: peer.mtu,
        needs_checksum: peer.flags & peer_flags::NEEDS_CHECKSUM != 0,
        spread: spread(peer, &name_of),
        hooked: peer.flags & peer_flags::HOOKED != 0,
    };
    let of_name = |name| {
        let more = peer.more.iter().map(|hop| hop.ifindex);
        let mut all = std::iter::once(peer.underlay_ifindex).chain(more);
        all.find(|index| name_of(*index) == Some(name))
    };
    let again = self::peer(&entry, of_name).ok()?;
    (again == *peer).then_some(entry)
}

pub(super) fn endpoint(
    entry: &EndpointEntry,
    index_of: impl Fn(IfName) -> Option<u32>,
) -> Result<Endpoint> {
    Ok(Endpoint {
        network: entry.network,
        ifindex: index(entry.link, index_of)?,
        slot: entry.slot,
        mac: entry.mac.octets(),
        flags: (u16::from(entry.forwarding) * endpoint_flags::FORWARDING)
            | (u16::from(entry.hooked) * endpoint_flags::HOOKED),
    })
}

/// `None` for what [`endpoint`] never makes.
pub(super) fn endpoint_entry(
    endpoint: &Endpoint,
    name_of: impl Fn(u32) -> Option<IfName>,
) -> Option<EndpointEntry> {
    let mac = Mac::unicast(endpoint.mac)?;
    let entry = EndpointEntry {
        network: endpoint.network,
        link: link(endpoint.ifindex, name_of),
        slot: endpoint.slot,
        mac,
        forwarding: endpoint.flags & endpoint_flags::FORWARDING != 0,
        hooked: endpoint.flags & endpoint_flags::HOOKED != 0,
    };
    let again = self::endpoint(&entry, |_| Some(endpoint.ifindex)).ok()?;
    (again == *endpoint).then_some(entry)
}

/// The device with an index.
pub(super) fn link(ifindex: u32, name_of: impl Fn(u32) -> Option<IfName>) -> LinkRef {
    name_of(ifindex).map_or(LinkRef::Gone(ifindex), LinkRef::Name)
}

/// The index of a device.
pub(super) fn index(link: LinkRef, index_of: impl Fn(IfName) -> Option<u32>) -> Result<u32> {
    match link {
        LinkRef::Gone(index) => Ok(index),
        LinkRef::Name(name) => index_of(name).ok_or_else(|| {
            KernelError::os(format!("look up device {name}"), nix::errno::Errno::ENODEV)
        }),
    }
}

fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => mapped(address.octets()),
        IpAddr::V6(address) => address.octets(),
    }
}

#[cfg(test)]
mod tests;
