//! Between the agent's types and those of the maps.
//!
//! What cannot be translated was not written by us: a key that is no VNI, a MAC that
//! is none. Such an entry counts as missing, and is overwritten when it is needed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};
use overlay_common::maps::{AddressKey4, Endpoint, Peer, PrefixKey4, mapped};

use crate::{
    kernel::{KernelError, Result},
    model::{IfName, Mac, Vni},
    objects::{EndpointEntry, LinkRef, PeerEntry},
};

/// The key of a peer's subnet.
pub(super) fn prefix_key((vni, net): (Vni, IpNet)) -> Result<PrefixKey4> {
    let address = address_key((vni, net.network()))?;
    Ok(PrefixKey4 {
        vni: address.vni,
        length: net.prefix_len().into(),
        prefix: address.address,
    })
}

/// The key of an endpoint or VTEP.
pub(super) fn address_key((vni, address): (Vni, IpAddr)) -> Result<AddressKey4> {
    Ok(AddressKey4 {
        vni: vni.get(),
        address: v4(address)?.octets(),
    })
}

/// The network and address of a key.
pub(super) fn address_of(key: AddressKey4) -> Option<(Vni, IpAddr)> {
    Some((
        Vni::try_from(key.vni).ok()?,
        Ipv4Addr::from(key.address).into(),
    ))
}

/// The network and subnet of a key.
pub(super) fn prefix_of(key: PrefixKey4) -> Option<(Vni, IpNet)> {
    let net = Ipv4Net::new(key.prefix.into(), u8::try_from(key.length).ok()?).ok()?;
    Some((Vni::try_from(key.vni).ok()?, net.into()))
}

pub(super) fn peer(entry: &PeerEntry, index_of: impl Fn(IfName) -> Option<u32>) -> Result<Peer> {
    Ok(Peer {
        vtep: mapped(v4(entry.vtep)?.octets()),
        next_hop: mapped(v4(entry.next_hop)?.octets()),
        underlay_ifindex: index(entry.underlay, index_of)?,
        index: entry.index,
        mac: entry.mac.octets(),
        flags: 0,
    })
}

pub(super) fn peer_entry(
    peer: &Peer,
    name_of: impl Fn(u32) -> Option<IfName>,
) -> Option<PeerEntry> {
    Some(PeerEntry {
        vtep: Ipv6Addr::from(peer.vtep).to_canonical(),
        next_hop: Ipv6Addr::from(peer.next_hop).to_canonical(),
        underlay: link(peer.underlay_ifindex, name_of),
        mac: Mac::unicast(peer.mac)?,
        index: peer.index,
    })
}

pub(super) fn endpoint(
    entry: &EndpointEntry,
    index_of: impl Fn(IfName) -> Option<u32>,
) -> Result<Endpoint> {
    Ok(Endpoint {
        ifindex: index(entry.link, index_of)?,
        mac: entry.mac.octets(),
        flags: 0,
    })
}

pub(super) fn endpoint_entry(
    endpoint: &Endpoint,
    name_of: impl Fn(u32) -> Option<IfName>,
) -> Option<EndpointEntry> {
    let mac = Mac::unicast(endpoint.mac)?;
    Some(EndpointEntry {
        link: link(endpoint.ifindex, name_of),
        mac,
    })
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

fn v4(address: IpAddr) -> Result<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Ok(address),
        IpAddr::V6(address) => Err(KernelError::new(
            format!("put {address} in a map"),
            "the maps hold IPv4 only",
        )),
    }
}

#[cfg(test)]
mod tests {
    use ipnet::IpNet;
    use overlay_common::maps::{AddressKey4, mapped};

    use super::{
        address_key, address_of, endpoint, endpoint_entry, peer, peer_entry, prefix_key, prefix_of,
    };
    use crate::{
        model::{IfName, Vni},
        objects::{EndpointEntry, LinkRef, PeerEntry},
    };

    fn eth1() -> IfName {
        "eth1".parse().unwrap()
    }

    fn name_of(index: u32) -> Option<IfName> {
        (index == 5).then(eth1)
    }

    fn index_of(name: IfName) -> Option<u32> {
        (name == eth1()).then_some(5)
    }

    fn vni() -> Vni {
        Vni::try_from(7).unwrap()
    }

    #[test]
    fn entries_come_back_as_they_went() {
        let entry = PeerEntry {
            vtep: "192.0.2.2".parse().unwrap(),
            next_hop: "192.0.2.254".parse().unwrap(),
            underlay: LinkRef::Name(eth1()),
            mac: "02:4f:c0:00:02:02".parse().unwrap(),
            index: 3,
        };
        let value = peer(&entry, index_of).unwrap();
        assert_eq!(
            (value.vtep, value.underlay_ifindex, value.flags),
            (mapped([192, 0, 2, 2]), 5, 0)
        );
        assert_eq!(peer_entry(&value, name_of), Some(entry));

        let entry = EndpointEntry {
            link: LinkRef::Gone(9),
            mac: "02:4f:c0:00:02:02".parse().unwrap(),
        };
        let value = endpoint(&entry, index_of).unwrap();
        assert_eq!(endpoint_entry(&value, name_of), Some(entry));
    }

    #[test]
    fn a_device_must_be_there() {
        let entry = EndpointEntry {
            link: LinkRef::Name("eth2".parse().unwrap()),
            mac: "02:4f:c0:00:02:02".parse().unwrap(),
        };
        let error = endpoint(&entry, index_of).unwrap_err();
        assert!(error.not_there());
        assert_eq!(error.to_string(), "look up device eth2: No such device");
    }

    #[test]
    fn keys_are_addresses_as_they_stand_in_packets() {
        let key = address_key((vni(), "10.244.1.10".parse().unwrap())).unwrap();
        assert_eq!((key.vni, key.address), (7, [10, 244, 1, 10]));
        assert_eq!(
            address_of(key),
            Some((vni(), "10.244.1.10".parse().unwrap()))
        );
        assert!(address_key((vni(), "fd00::1".parse().unwrap())).is_err());
        assert_eq!(
            address_of(AddressKey4 {
                vni: 0,
                address: [1; 4]
            }),
            None
        );
    }

    #[test]
    fn a_key_tells_a_subnet_and_its_length() {
        for net in ["10.244.0.0/24", "10.244.0.0/16", "10.244.2.1/32"] {
            let subnet: (Vni, IpNet) = (vni(), net.parse().unwrap());
            assert_eq!(prefix_of(prefix_key(subnet).unwrap()), Some(subnet));
        }
    }
}
