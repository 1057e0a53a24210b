//! The maps: pinned, filled, read, emptied.

use std::collections::BTreeMap;

use bytemuck::Zeroable;
use overlay_agent::{
    kernel::bpf::{self, AttachMode, Maps},
    model::{IfName, Vni},
    objects::{EndpointEntry, Entries, LinkRef, PeerEntry},
};
use overlay_common::{
    maps::{self, MAX_NETWORKS},
    reasons::{Drops, Passes},
};

use crate::node::{Node, ifname};

#[test]
fn maps_outlive_the_agent_and_are_reused() {
    let node = Node::new();
    assert!(Maps::open(&node.pins).unwrap().is_none());
    let mut first = node.open(AttachMode::Auto);
    assert_ne!(first.mode(), AttachMode::Auto);
    let vni = Vni::try_from(7).unwrap();
    let network = maps::Network {
        vni: 7,
        mtu: 1450,
        ..maps::Network::zeroed()
    };
    first.maps_mut().set_network(vni, &network).unwrap();
    drop(first);

    let pinned = Maps::open(&node.pins).unwrap().unwrap();
    assert_eq!(
        pinned.entries(|_| None).unwrap().networks,
        BTreeMap::from([(vni, network)])
    );
    let second = node.open(AttachMode::Auto);
    assert_eq!(second.maps().entries(|_| None).unwrap().networks.len(), 1);

    bpf::remove_all(&node.pins).unwrap();
    assert!(Maps::open(&node.pins).unwrap().is_none());
    bpf::remove_all(&node.pins).unwrap();
}

#[test]
fn entries_come_back_as_they_went() {
    let node = Node::new();
    let mut dataplane = node.open(AttachMode::Auto);
    let vni = Vni::try_from(7).unwrap();
    let eth1 = LinkRef::Name(ifname("eth1"));
    let mut network = maps::Network {
        vni: 7,
        mtu: 1450,
        ..maps::Network::zeroed()
    };
    network.peer_lengths4[0] = 24;
    let peer = PeerEntry {
        vtep: "192.0.2.2".parse().unwrap(),
        next_hop: "192.0.2.2".parse().unwrap(),
        underlay: eth1,
        mac: "02:4f:c0:00:02:02".parse().unwrap(),
        index: 3,
        needs_checksum: false,
    };
    let endpoint = EndpointEntry {
        link: eth1,
        mac: "02:4f:0a:f4:01:0a".parse().unwrap(),
        forwarding: true,
    };
    let port = maps::Port {
        address: [10, 244, 1, 10],
        ..maps::Port::zeroed()
    };
    let over6 = PeerEntry {
        vtep: "2001:db8::2".parse().unwrap(),
        next_hop: "fe80::1".parse().unwrap(),
        needs_checksum: true,
        ..peer.clone()
    };
    let net = |text: &str| text.parse::<ipnet::IpNet>().unwrap();
    let addresses = ["10.244.1.10", "fd00:1::10"].map(|text| (vni, text.parse().unwrap()));
    let wanted = Entries {
        networks: [(vni, network)].into(),
        peers: [
            ((vni, net("10.244.2.0/24")), peer),
            ((vni, net("fd00:2::/64")), over6),
        ]
        .into(),
        vteps: [
            ((vni, "192.0.2.2".parse().unwrap()), 3),
            ((vni, "2001:db8::2".parse().unwrap()), 4),
        ]
        .into(),
        endpoints: addresses.map(|key| (key, endpoint.clone())).into(),
        ports: [(eth1, port), (LinkRef::Gone(99), port)].into(),
        sources: [
            (eth1, net("10.99.0.0/24")),
            (LinkRef::Gone(99), net("fd99::/48")),
        ]
        .into(),
        cidrs: [(net("10.244.0.0/16"), vni), (net("fd00::/16"), vni)].into(),
    };
    let name_of = |index| (index == 42).then(|| ifname("eth1"));
    let index_of = |name: IfName| (name == ifname("eth1")).then_some(42);
    let maps = dataplane.maps_mut();
    maps.set_network(vni, &network).unwrap();
    wanted
        .peers
        .iter()
        .for_each(|(key, peer)| maps.set_peer(*key, peer, index_of).unwrap());
    wanted
        .vteps
        .iter()
        .for_each(|(key, slot)| maps.set_vtep(*key, *slot).unwrap());
    for (key, endpoint) in &wanted.endpoints {
        maps.set_endpoint(*key, endpoint, index_of).unwrap();
    }
    wanted
        .ports
        .iter()
        .for_each(|(link, port)| maps.set_port(*link, port, index_of).unwrap());
    wanted
        .sources
        .iter()
        .for_each(|source| maps.set_source(*source, index_of).unwrap());
    wanted
        .cidrs
        .iter()
        .for_each(|(cidr, vni)| maps.set_cidr(*cidr, *vni).unwrap());
    assert_eq!(maps.entries(name_of).unwrap(), wanted);

    wanted
        .peers
        .keys()
        .for_each(|key| maps.delete_peer(*key).unwrap());
    wanted
        .vteps
        .keys()
        .for_each(|key| maps.delete_vtep(*key).unwrap());
    wanted
        .endpoints
        .keys()
        .for_each(|key| maps.delete_endpoint(*key).unwrap());
    wanted
        .ports
        .keys()
        .for_each(|link| maps.delete_port(*link, index_of).unwrap());
    wanted
        .sources
        .iter()
        .for_each(|source| maps.delete_source(*source, index_of).unwrap());
    wanted
        .cidrs
        .keys()
        .for_each(|cidr| maps.delete_cidr(*cidr).unwrap());
    maps.delete_network(vni).unwrap();
    assert_eq!(maps.entries(name_of).unwrap(), Entries::default());
    let error = maps.delete_network(vni).unwrap_err();
    assert!(error.not_there());
    assert_eq!(
        error.to_string(),
        "delete 7 from map NETWORKS: No such file or directory"
    );
}

#[test]
fn a_full_map_says_so() {
    let node = Node::new();
    let mut dataplane = node.open(AttachMode::Auto);
    let network = maps::Network::zeroed();
    let maps = dataplane.maps_mut();
    let mut vnis = (1..).map(|vni| Vni::try_from(vni).unwrap());
    for vni in vnis.by_ref().take(MAX_NETWORKS) {
        maps.set_network(vni, &network).unwrap();
    }
    let error = maps
        .set_network(vnis.next().unwrap(), &network)
        .unwrap_err();
    assert!(
        error.to_string().ends_with("it is full with 256 entries"),
        "{error}"
    );
}

#[test]
fn counters_start_at_nothing() {
    let node = Node::new();
    let mut dataplane = node.open(AttachMode::Auto);
    let maps = dataplane.maps_mut();
    maps.clear_peer_stats(5).unwrap();
    assert_eq!(maps.peer_stats(5).unwrap(), maps::PeerStats::default());
    assert_eq!(maps.drops().unwrap(), Drops::default());
    assert_eq!(maps.passes().unwrap(), Passes::default());
    assert!(maps.peer_stats(u32::MAX).is_err());
}
