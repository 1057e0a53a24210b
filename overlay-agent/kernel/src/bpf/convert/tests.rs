use std::net::IpAddr;

use bytemuck::Zeroable as _;
use ipnet::IpNet;
use overlay_common::maps::{AddressKey4, BUCKETS, Network, mapped, peer_flags};
use overlay_core::{
    model::{IfName, Vni},
    objects::{EndpointEntry, LinkRef, PeerEntry, Spread},
};

use super::{
    address_key, address_of, cidr_key, cidr_of, endpoint, endpoint_entry, peer, peer_entry,
    prefix_key, prefix_of, source_key, source_of,
};
use crate::bpf::by_family::ByFamily;

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

fn over(vtep: &str, needs_checksum: bool) -> PeerEntry {
    PeerEntry {
        vtep: vtep.parse().unwrap(),
        next_hop: vtep.parse().unwrap(),
        underlay: LinkRef::Name(eth1()),
        mac: "02:4f:c0:00:02:02".parse().unwrap(),
        index: 3,
        mtu: 1400,
        needs_checksum,
        spread: None,
        hooked: needs_checksum,
    }
}

#[test]
fn several_next_hops_come_back_as_they_went() {
    let mut entry = over("192.0.2.2", false);
    let more = [
        ("fe80::1", LinkRef::Name(eth1())),
        ("192.0.2.9", LinkRef::Gone(9)),
    ];
    let mut buckets = [0; BUCKETS];
    buckets[3] = 2;
    entry.spread = Some(Box::new(Spread {
        more: more
            .map(|(address, link)| (address.parse().unwrap(), link))
            .into(),
        buckets,
    }));
    let value = peer(&entry, index_of).unwrap();
    assert_eq!((value.others, value.spread[3]), (2, 2));
    assert_eq!(
        (value.more[1].address, value.more[1].ifindex),
        (mapped([192, 0, 2, 9]), 9)
    );
    assert_eq!(peer_entry(&value, name_of), Some(entry));
}

#[test]
fn peers_come_back_as_they_went() {
    let entry = over("192.0.2.2", false);
    let value = peer(&entry, index_of).unwrap();
    assert_eq!(
        (value.vtep, value.underlay_ifindex, value.flags),
        (mapped([192, 0, 2, 2]), 5, 0)
    );
    assert_eq!(peer_entry(&value, name_of), Some(entry));

    for needs_checksum in [false, true] {
        let entry = over("2001:db8::2", needs_checksum);
        let value = peer(&entry, index_of).unwrap();
        let flags = value.flags;
        assert_ne!(flags & peer_flags::IPV6, 0);
        assert_eq!(flags & peer_flags::NEEDS_CHECKSUM != 0, needs_checksum);
        assert_eq!(peer_entry(&value, name_of), Some(entry));
    }
}

#[test]
fn endpoints_come_back_as_they_went() {
    for forwarding in [false, true] {
        let entry = EndpointEntry {
            network: Network {
                vni: 7,
                ..Network::zeroed()
            },
            link: LinkRef::Gone(9),
            slot: 2,
            mac: "02:4f:c0:00:02:02".parse().unwrap(),
            forwarding,
            hooked: !forwarding,
        };
        let value = endpoint(&entry, index_of).unwrap();
        assert_eq!(endpoint_entry(&value, name_of), Some(entry));
    }
}

#[test]
fn a_device_must_be_there() {
    let entry = EndpointEntry {
        network: Network::zeroed(),
        link: LinkRef::Name("eth2".parse().unwrap()),
        slot: 2,
        mac: "02:4f:c0:00:02:02".parse().unwrap(),
        forwarding: false,
        hooked: false,
    };
    let error = endpoint(&entry, index_of).unwrap_err();
    assert!(error.not_there());
    assert_eq!(error.to_string(), "look up device eth2: No such device");
}

#[test]
fn keys_are_addresses_as_they_stand_in_packets() {
    let of = |address: &str| (vni(), address.parse::<IpAddr>().unwrap());
    let ByFamily::V4(key) = address_key(of("10.244.1.10")) else {
        panic!("an IPv4 address has a key of IPv4");
    };
    assert_eq!((key.vni, key.address), (7, [10, 244, 1, 10]));
    for address in ["10.244.1.10", "fd00::1"] {
        assert_eq!(address_of(address_key(of(address))), Some(of(address)));
    }
    let nobodys = AddressKey4 {
        vni: 0,
        address: [1; 4],
    };
    assert_eq!(address_of(ByFamily::V4(nobodys)), None);
}

#[test]
fn a_key_tells_a_subnet_and_its_length() {
    let nets = [
        "10.244.0.0/24",
        "10.244.0.0/16",
        "10.244.2.1/32",
        "fd00:2::/64",
        "fd00::1/128",
    ];
    for net in nets {
        let subnet: (Vni, IpNet) = (vni(), net.parse().unwrap());
        assert_eq!(prefix_of(prefix_key(subnet)), Some(subnet));
        assert_eq!(cidr_of(&cidr_key(subnet.1)), Some(subnet.1));
        let source = (LinkRef::Name(eth1()), subnet.1);
        let key = source_key(source, index_of).unwrap();
        assert_eq!(source_of(&key, name_of), Some(source));
    }
}

#[test]
fn tries_compare_the_device_first_and_ipv4_as_it_is_mapped() {
    let net: IpNet = "10.99.0.0/24".parse().unwrap();
    let key = source_key((LinkRef::Gone(9), net), index_of).unwrap();
    assert_eq!(key.prefix_len(), 32 + 96 + 24);
    let data = key.data();
    assert_eq!(data.ifindex_be, [0, 0, 0, 9]);
    assert_eq!(data.prefix, mapped([10, 99, 0, 0]));
    assert_eq!(cidr_key(net).prefix_len(), 96 + 24);
}
