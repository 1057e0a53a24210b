//! What the maps can hold.

use bytemuck::Zeroable;
use overlay_common::maps;
use overlay_core::{
    model::Vni,
    objects::{EndpointEntry, Entries, LinkRef, PeerEntries, PeerEntry},
};

/// Something of everything, in both families.
pub(crate) fn wanted(vni: Vni, eth1: LinkRef) -> (Entries, PeerEntries) {
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
        mtu: 1450,
        needs_checksum: false,
        spread: None,
        hooked: true,
    };
    let endpoint = EndpointEntry {
        network,
        link: eth1,
        slot: 2,
        mac: "02:4f:0a:f4:01:0a".parse().unwrap(),
        forwarding: true,
        hooked: false,
    };
    let port = maps::Port {
        address: [10, 244, 1, 10],
        slot: 2,
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
    let peers = PeerEntries {
        subnets: [
            ((vni, net("10.244.2.0/24")), peer),
            ((vni, net("fd00:2::/64")), over6),
        ]
        .into(),
        vteps: [
            ((vni, "192.0.2.2".parse().unwrap()), 3),
            ((vni, "2001:db8::2".parse().unwrap()), 4),
        ]
        .into(),
    };
    let entries = Entries {
        networks: [(vni, network)].into(),
        endpoints: addresses.map(|key| (key, endpoint.clone())).into(),
        ports: [(eth1, port), (LinkRef::Gone(99), port)].into(),
        sources: [
            (eth1, net("10.99.0.0/24")),
            (LinkRef::Gone(99), net("fd99::/48")),
        ]
        .into(),
        cidrs: [(net("10.244.0.0/16"), vni), (net("fd00::/16"), vni)].into(),
        strays: [].into(),
    };
    (entries, peers)
}
