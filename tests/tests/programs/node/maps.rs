//! What the agent would have told a node's programs.

use std::net::{IpAddr, Ipv4Addr};

use aya::maps::{
    HashMap, MapData, MapError,
    lpm_trie::{Key, LpmTrie},
};
use bytemuck::Zeroable as _;
use overlay_common::maps::{
    AddressKey4, AddressKey6, CIDRS, CidrKey, ENDPOINTS4, ENDPOINTS6, Endpoint, NETWORKS, Network,
    PEERS4, PEERS6, PORTS, Peer, Port, PrefixKey4, PrefixKey6, SOURCES, SourceKey, VTEPS4, VTEPS6,
    Vtep, endpoint_flags, mapped, peer_flags,
};

use super::{INTERFACE, Node};
use crate::{
    frames::Mac,
    world::{
        BEHIND_ROUTER, BEHIND_ROUTER6, CHECKING_PEER, CHECKING_PEER_INDEX, CHECKING_PEER_MAC,
        CUT_OFF_INDEX, DATABASE, DATABASE_MAC, DATABASE_SLOT, DATABASE6, GATEWAY_MAC,
        IN_OTHER_NETWORK, IN_OTHER_NETWORK6, MTU, NODE, NODE_MAC, NODE6, NODE6_MAC, OTHER_PEER,
        OTHER_PEER_INDEX, OTHER_PEER_MAC, OTHER_VNI, PEER, PEER_INDEX, PEER_MAC, PEER6,
        PEER6_INDEX, PEER6_MAC, PORT, ROUTER, ROUTER_MAC, ROUTER_SLOT, ROUTER6, VNI, WEB, WEB_MAC,
        WEB_SLOT, WEB6,
    },
};

/// The lengths of the peers' prefixes by family, and the prefixes themselves.
const LENGTHS4: [u8; 2] = [26, 24];
const LENGTHS6: [u8; 2] = [65, 64];
const PEERS: [(&str, u8, Neighbour); 14] = [
    ("10.244.2.0", 24, NEAR),
    ("10.244.3.0", 24, NEAR),
    ("10.244.3.64", 26, OTHER),
    ("10.244.4.0", 26, OTHER),
    ("10.244.5.0", 24, CUT_OFF),
    ("10.244.6.0", 24, NEAR6),
    ("10.244.7.0", 24, CHECKING),
    ("fd00:244:0:2::", 64, NEAR),
    ("fd00:244:0:3::", 64, NEAR),
    ("fd00:244:0:3:8000::", 65, OTHER),
    ("fd00:244:0:4::", 65, OTHER),
    ("fd00:244:0:5::", 64, CUT_OFF),
    ("fd00:244:0:6::", 64, NEAR6),
    ("fd00:244:0:7::", 64, CHECKING),
];

#[derive(Clone, Copy)]
struct Neighbour {
    vtep: IpAddr,
    mac: Mac,
    index: u32,
    /// The device that leads there.
    interface: u32,
    flags: u16,
}

const NEAR: Neighbour = Neighbour {
    vtep: PEER,
    mac: PEER_MAC,
    index: PEER_INDEX,
    interface: INTERFACE,
    flags: 0,
};
const OTHER: Neighbour = Neighbour {
    vtep: OTHER_PEER,
    mac: OTHER_PEER_MAC,
    index: OTHER_PEER_INDEX,
    ..NEAR
};
const CUT_OFF: Neighbour = Neighbour {
    vtep: IpAddr::V4(Ipv4Addr::new(192, 168, 99, 14)),
    index: CUT_OFF_INDEX,
    interface: 0,
    ..NEAR
};
const NEAR6: Neighbour = Neighbour {
    vtep: PEER6,
    mac: PEER6_MAC,
    index: PEER6_INDEX,
    flags: peer_flags::IPV6,
    ..NEAR
};
const CHECKING: Neighbour = Neighbour {
    vtep: CHECKING_PEER,
    mac: CHECKING_PEER_MAC,
    index: CHECKING_PEER_INDEX,
    flags: peer_flags::IPV6 | peer_flags::NEEDS_CHECKSUM,
    ..NEAR
};

const ENDPOINTS: [(IpAddr, u32, Mac, u16); 6] = [
    (WEB, WEB_SLOT, WEB_MAC, 0),
    (WEB6, WEB_SLOT, WEB_MAC, 0),
    (DATABASE, DATABASE_SLOT, DATABASE_MAC, 0),
    (DATABASE6, DATABASE_SLOT, DATABASE_MAC, 0),
    (ROUTER, ROUTER_SLOT, ROUTER_MAC, endpoint_flags::FORWARDING),
    (ROUTER6, ROUTER_SLOT, ROUTER_MAC, endpoint_flags::FORWARDING),
];

impl Node {
    /// Fills the maps for the network of `world`.
    pub(super) fn fill(&mut self) {
        for (prefix, length, neighbour) in PEERS {
            self.add_peer(prefix.parse().unwrap(), length, neighbour);
        }
        for (address, bits) in [(BEHIND_ROUTER, 24), (BEHIND_ROUTER6, 64)] {
            self.allow_source(address, bits);
        }
        for (address, bits, vni) in [
            (WEB, 16, VNI),
            (WEB6, 48, VNI),
            (IN_OTHER_NETWORK, 16, OTHER_VNI),
            (IN_OTHER_NETWORK6, 48, OTHER_VNI),
        ] {
            self.add_cidr(address, bits, vni);
        }
        self.set_network(network());
    }

    /// The node with other flags of its network.
    pub(crate) fn with_network_flags(mut self, flags: u32) -> Self {
        self.set_network(Network { flags, ..network() });
        self
    }

    /// The node whose device is the forwarding endpoint's.
    pub(crate) fn for_router(mut self) -> Self {
        let port = Port {
            network: network(),
            address: octets4(ROUTER),
            address6: octets6(ROUTER6),
            slot: ROUTER_SLOT,
            mac: ROUTER_MAC,
            flags: endpoint_flags::FORWARDING,
        };
        self.hash::<u32, Port>(PORTS, |map| map.insert(INTERFACE, port, 0));
        self
    }

    /// Forgets what the device is.
    pub(crate) fn without_port(mut self) -> Self {
        self.hash::<u32, Port>(PORTS, |map| map.remove(&INTERFACE));
        self
    }

    /// In which slot what enters at the device is counted.
    pub(super) fn slot(&self) -> Option<u32> {
        let map = self.ebpf.map(PORTS).unwrap();
        let map = HashMap::<_, u32, Port>::try_from(map).unwrap();
        map.get(&INTERFACE, 0).ok().map(|port| port.slot)
    }

    fn set_network(&mut self, network: Network) {
        self.hash::<u32, Network>(NETWORKS, |map| map.insert(VNI, network, 0));
        let port = Port {
            network,
            address: octets4(WEB),
            address6: octets6(WEB6),
            slot: WEB_SLOT,
            mac: WEB_MAC,
            flags: 0,
        };
        self.hash::<u32, Port>(PORTS, |map| map.insert(INTERFACE, port, 0));
        for (address, slot, mac, flags) in ENDPOINTS {
            let endpoint = Endpoint {
                network,
                ifindex: INTERFACE,
                slot,
                mac,
                flags,
            };
            self.by_address(ENDPOINTS4, ENDPOINTS6, address, endpoint);
        }
    }

    fn add_peer(&mut self, prefix: IpAddr, length: u8, neighbour: Neighbour) {
        let peer = Peer {
            vtep: octets6(neighbour.vtep),
            next_hop: octets6(neighbour.vtep),
            underlay_ifindex: neighbour.interface,
            index: neighbour.index,
            mac: neighbour.mac,
            flags: neighbour.flags,
            mtu: MTU,
            ..Peer::zeroed()
        };
        let (vni, length) = (VNI, length.into());
        match prefix {
            IpAddr::V4(prefix) => {
                let prefix = prefix.octets();
                let key = PrefixKey4 {
                    vni,
                    length,
                    prefix,
                };
                self.hash::<PrefixKey4, Peer>(PEERS4, |map| map.insert(key, peer, 0));
            }
            IpAddr::V6(prefix) => {
                let prefix = prefix.octets();
                let key = PrefixKey6 {
                    vni,
                    length,
                    prefix,
                };
                self.hash::<PrefixKey6, Peer>(PEERS6, |map| map.insert(key, peer, 0));
            }
        }
        let vtep = Vtep { index: peer.index };
        self.by_address::<Vtep>(VTEPS4, VTEPS6, neighbour.vtep, vtep);
    }

    /// Inserts into the map of the address's family.
    fn by_address<V: aya::Pod>(&mut self, map4: &str, map6: &str, address: IpAddr, value: V) {
        let vni = VNI;
        match address {
            IpAddr::V4(address) => {
                let address = address.octets();
                let key = AddressKey4 { vni, address };
                self.hash::<AddressKey4, V>(map4, |map| map.insert(key, value, 0));
            }
            IpAddr::V6(address) => {
                let address = address.octets();
                let key = AddressKey6 { vni, address };
                self.hash::<AddressKey6, V>(map6, |map| map.insert(key, value, 0));
            }
        }
    }

    fn allow_source(&mut self, address: IpAddr, bits: u32) {
        let source = SourceKey {
            ifindex_be: INTERFACE.to_be_bytes(),
            prefix: octets6(address),
        };
        let key = Key::new(32 + mapped_bits(address, bits), source);
        let mut map = LpmTrie::try_from(self.ebpf.map_mut(SOURCES).unwrap()).unwrap();
        map.insert(&key, 1_u32, 0).unwrap();
    }

    fn add_cidr(&mut self, address: IpAddr, bits: u32, vni: u32) {
        let prefix = octets6(address);
        let key = Key::new(mapped_bits(address, bits), CidrKey { prefix });
        let mut map = LpmTrie::try_from(self.ebpf.map_mut(CIDRS).unwrap()).unwrap();
        map.insert(&key, vni, 0).unwrap();
    }

    fn hash<K: aya::Pod, V: aya::Pod>(
        &mut self,
        name: &str,
        change: impl FnOnce(&mut HashMap<&mut MapData, K, V>) -> Result<(), MapError>,
    ) {
        let map = self.ebpf.map_mut(name).unwrap();
        change(&mut HashMap::try_from(map).unwrap()).unwrap();
    }
}

fn network() -> Network {
    let mut network = Network {
        vni: VNI,
        vtep: octets4(NODE),
        subnet: [10, 244, 1, 0],
        subnet_mask: [255, 255, 255, 0],
        mtu: MTU,
        port_be: PORT.to_be_bytes(),
        vtep_mac: NODE_MAC,
        vtep6_mac: NODE6_MAC,
        gateway_mac: GATEWAY_MAC,
        vtep6: octets6(NODE6),
        subnet6: (u128::from_be_bytes(octets6(WEB6)) >> 64 << 64).to_be_bytes(),
        subnet6_mask: (u128::MAX << 64).to_be_bytes(),
        ..Network::zeroed()
    };
    network.peer_lengths4[..LENGTHS4.len()].copy_from_slice(&LENGTHS4);
    network.peer_lengths6[..LENGTHS6.len()].copy_from_slice(&LENGTHS6);
    network
}

fn octets4(address: IpAddr) -> [u8; 4] {
    match address {
        IpAddr::V4(address) => address.octets(),
        IpAddr::V6(_) => panic!("{address} is not an IPv4 address"),
    }
}

fn octets6(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => mapped(address.octets()),
        IpAddr::V6(address) => address.octets(),
    }
}

/// Bits of a prefix whose address is in IPv6's form.
fn mapped_bits(address: IpAddr, bits: u32) -> u32 {
    if address.is_ipv4() { 96 + bits } else { bits }
}
