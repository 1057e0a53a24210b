//! The maps: pinned, filled, read, emptied.

use std::collections::{BTreeMap, BTreeSet};

use bytemuck::Zeroable;
use overlay_common::{
    maps::{self, MAX_NETWORKS},
    programs::Program,
    reasons::{Drops, Passes},
};
use overlay_core::{
    model::{IfName, Vni},
    objects::{Entries, LinkRef},
};
use overlay_kernel::bpf::{self, AttachMode, Maps};

use crate::{
    entries::wanted,
    node::{Node, ifname},
};

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
    let (wanted, peers) = wanted(vni, LinkRef::Name(ifname("eth1")));
    let name_of = |index| (index == 42).then(|| ifname("eth1"));
    let index_of = |name: IfName| (name == ifname("eth1")).then_some(42);
    let maps = dataplane.maps_mut();
    maps.set_network(vni, &wanted.networks[&vni]).unwrap();
    peers
        .subnets
        .iter()
        .for_each(|(key, peer)| maps.set_peer(*key, peer, index_of).unwrap());
    peers
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
    assert_eq!(
        maps.peer_entries(name_of).unwrap(),
        (peers.clone(), BTreeSet::new())
    );

    peers
        .subnets
        .keys()
        .for_each(|key| maps.delete_peer(*key).unwrap());
    peers
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
    assert_eq!(maps.peer_entries(name_of).unwrap(), Default::default());
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
    let counters = dataplane.maps_mut().counters_mut();
    counters.clear_peer(5).unwrap();
    counters.clear_endpoint(5).unwrap();
    assert_eq!(counters.peer(5).unwrap(), maps::PeerStats::default());
    assert_eq!(
        counters.endpoint(5).unwrap(),
        maps::EndpointStats::default()
    );
    for program in Program::ALL {
        assert_eq!(counters.drops(program).unwrap(), Drops::default());
        assert_eq!(counters.passes(program).unwrap(), Passes::default());
    }
    assert!(counters.peers().unwrap().is_empty());
    assert!(counters.endpoints().unwrap().is_empty());
    assert!(counters.drops_by_sender().unwrap().is_empty());
    assert!(counters.peer(u32::MAX).is_err());
}
