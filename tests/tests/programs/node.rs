//! A node without an agent: the agent's embedded programs, maps filled by hand, and
//! packets run through them by `BPF_PROG_TEST_RUN`.

use std::net::IpAddr;

use aya::{
    Ebpf, EbpfLoader, TestRun as _,
    maps::{
        HashMap, MapData, MapError,
        lpm_trie::{Key, LpmTrie},
    },
    programs::{SchedClassifier, TestRunOptions, Xdp},
};
use bytemuck::Zeroable as _;
use nix::sched::{CloneFlags, unshare};
use overlay_common::{
    globals::STRIP,
    maps::{
        AddressKey4, AddressKey6, CIDRS, CidrKey, ENDPOINTS4, ENDPOINTS6, Endpoint, NETWORKS,
        Network, PEERS4, PEERS6, PORTS, Peer, Port, PrefixKey4, PrefixKey6, SOURCES, SourceKey,
        VTEPS4, VTEPS6, Vtep, endpoint_flags, mapped, peer_flags,
    },
    programs::{FROM_ENDPOINT, FROM_HOST, FROM_UNDERLAY, UNDERLAY_GUARD},
};

use crate::{
    counters::{Counters, Outcome},
    frames::{IPV6, Mac},
    world::{
        BEHIND_ROUTER, BEHIND_ROUTER6, CHECKING_PEER, CHECKING_PEER_INDEX, CHECKING_PEER_MAC,
        CUT_OFF_INDEX, DATABASE, DATABASE_MAC, DATABASE6, GATEWAY_MAC, IN_OTHER_NETWORK,
        IN_OTHER_NETWORK6, MTU, NODE, NODE_MAC, NODE6, NODE6_MAC, OTHER_PEER, OTHER_PEER_INDEX,
        OTHER_PEER_MAC, OTHER_VNI, PEER, PEER_INDEX, PEER_MAC, PEER6, PEER6_INDEX, PEER6_MAC, PORT,
        ROUTER, ROUTER_MAC, ROUTER6, VNI, WEB, WEB_MAC, WEB6,
    },
};

/// The loopback device, on which test runs take place: it plays each device of a node.
const INTERFACE: u32 = 1;
/// Where `struct __sk_buff` of `linux/bpf.h` keeps `gso_size`, and its size.
const GSO_SIZE: usize = 176;
const CONTEXT: usize = 192;

/// Actions of `linux/pkt_cls.h`.
const TC_ACT_UNSPEC: i32 = -1;
const TC_ACT_SHOT: i32 = 2;
const TC_ACT_REDIRECT: i32 = 7;
/// Actions of `linux/bpf.h`.
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;

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
    vtep: IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 99, 14)),
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

/// The result of one run.
pub(crate) struct Run {
    pub(crate) outcome: Outcome,
    pub(crate) bytes: Vec<u8>,
}

pub(crate) struct Node {
    ebpf: Ebpf,
}

impl Node {
    /// Loads the programs and fills their maps, in a network namespace that ends with
    /// the test's thread.
    pub(crate) fn new() -> Self {
        Self::around(load)
    }

    /// The same with programs that strip packets in XDP.
    pub(crate) fn stripping() -> Self {
        Self::around(|| load_with(STRIP, &1_u32))
    }

    fn around(load: impl FnOnce() -> Ebpf) -> Self {
        unshare(CloneFlags::CLONE_NEWNET).expect("tests of the programs need CAP_SYS_ADMIN");
        let mut node = Self { ebpf: load() };
        for (prefix, length, neighbour) in PEERS {
            node.add_peer(prefix.parse().unwrap(), length, neighbour);
        }
        for (address, mac, flags) in [
            (WEB, WEB_MAC, 0),
            (WEB6, WEB_MAC, 0),
            (DATABASE, DATABASE_MAC, 0),
            (DATABASE6, DATABASE_MAC, 0),
            (ROUTER, ROUTER_MAC, endpoint_flags::FORWARDING),
            (ROUTER6, ROUTER_MAC, endpoint_flags::FORWARDING),
        ] {
            node.add_endpoint(address, mac, flags);
        }
        for (address, bits) in [(BEHIND_ROUTER, 24), (BEHIND_ROUTER6, 64)] {
            node.allow_source(address, bits);
        }
        for (address, bits, vni) in [
            (WEB, 16, VNI),
            (WEB6, 48, VNI),
            (IN_OTHER_NETWORK, 16, OTHER_VNI),
            (IN_OTHER_NETWORK6, 48, OTHER_VNI),
        ] {
            node.add_cidr(address, bits, vni);
        }
        node.set_network(network());
        node
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

    /// Runs a packet, of GSO segments of `segment` bytes unless that is 0, through a
    /// program, and sees to it that exactly one way out was counted, with its length,
    /// and that the packet is unchanged if it did not take the fast path.
    pub(crate) fn run(&mut self, program: &str, packet: &[u8], segment: u32) -> Run {
        let before = self.counters();
        let mut context = [0; CONTEXT];
        context[GSO_SIZE..][..4].copy_from_slice(&segment.to_ne_bytes());
        let mut bytes = vec![0; packet.len() + 256];
        let program: &mut SchedClassifier =
            self.ebpf.program_mut(program).unwrap().try_into().unwrap();
        let result = program
            .test_run(TestRunOptions {
                data_in: Some(packet),
                data_out: Some(&mut bytes),
                ctx_in: Some(&context),
                ..TestRunOptions::default()
            })
            .unwrap();
        bytes.truncate(usize::try_from(result.data_size_out).unwrap());
        let outcomes = self.counters().since(&before);
        let [(outcome, counted)] = outcomes[..] else {
            panic!("not exactly one way out was counted: {outcomes:?}");
        };
        let (action, length) = match outcome {
            Outcome::To(_) | Outcome::Local => (TC_ACT_REDIRECT, packet.len()),
            Outcome::From(_) => (TC_ACT_REDIRECT, packet.len() - overhead(packet)),
            Outcome::Pass(_) => (TC_ACT_UNSPEC, packet.len()),
            Outcome::Drop(..) => (TC_ACT_SHOT, packet.len()),
        };
        assert_eq!(counted, length as u64, "bytes of {outcome:?}");
        assert_eq!(result.return_value.cast_signed(), action, "{outcome:?}");
        if action != TC_ACT_REDIRECT {
            assert_eq!(bytes, packet, "changed, then left: {outcome:?}");
        }
        Run { outcome, bytes }
    }

    /// Runs a packet through the guard, and sees to it that it counts what it drops and
    /// nothing else, and changes nothing.
    pub(crate) fn guard(&mut self, packet: &[u8]) -> Option<Outcome> {
        let (outcome, bytes) = self.strip(packet);
        assert_eq!(bytes, packet);
        outcome
    }

    /// The same for one that may change packets: with the bytes, from the note on.
    pub(crate) fn strip(&mut self, packet: &[u8]) -> (Option<Outcome>, Vec<u8>) {
        let before = self.counters();
        let mut bytes = vec![0; packet.len() + 256];
        let result = guard_of(&mut self.ebpf)
            .test_run(TestRunOptions {
                data_in: Some(packet),
                data_out: Some(&mut bytes),
                ..TestRunOptions::default()
            })
            .unwrap();
        bytes.truncate(usize::try_from(result.data_size_out).unwrap());
        let outcomes = self.counters().since(&before);
        let outcome = match (result.return_value, &outcomes[..]) {
            (XDP_PASS, []) => None,
            (XDP_DROP, &[(outcome @ Outcome::Drop(..), counted)]) => {
                assert_eq!(counted, packet.len() as u64, "bytes of {outcome:?}");
                Some(outcome)
            }
            (action, outcomes) => panic!("action {action} with {outcomes:?}"),
        };
        (outcome, bytes)
    }

    /// The loaded object.
    pub(crate) fn ebpf(&self) -> &Ebpf {
        &self.ebpf
    }

    pub(crate) fn counters(&self) -> Counters {
        Counters::of(&self.ebpf)
    }

    fn set_network(&mut self, network: Network) {
        self.hash::<u32, Network>(NETWORKS, |map| map.insert(VNI, network, 0));
        let port = Port {
            network,
            address: octets4(WEB),
            address6: octets6(WEB6),
            mac: WEB_MAC,
            flags: 0,
        };
        self.hash::<u32, Port>(PORTS, |map| map.insert(INTERFACE, port, 0));
    }

    fn add_peer(&mut self, prefix: IpAddr, length: u8, neighbour: Neighbour) {
        let peer = Peer {
            vtep: octets6(neighbour.vtep),
            next_hop: octets6(neighbour.vtep),
            underlay_ifindex: neighbour.interface,
            index: neighbour.index,
            mac: neighbour.mac,
            flags: neighbour.flags,
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

    fn add_endpoint(&mut self, address: IpAddr, mac: Mac, flags: u16) {
        let endpoint = Endpoint {
            ifindex: INTERFACE,
            mac,
            flags,
        };
        self.by_address(ENDPOINTS4, ENDPOINTS6, address, endpoint);
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

/// The agent's object, loaded and verified but neither pinned nor attached.
pub(crate) fn load() -> Ebpf {
    load_with_log_level(0)
}

/// The same, with the log statements up to a level; 0 is none, 4 is debug.
pub(crate) fn load_with_log_level(level: u8) -> Ebpf {
    load_with("AYA_LOG_LEVEL", &level)
}

/// The same, with a global set.
pub(crate) fn load_with<T: aya::Pod>(global: &str, value: &T) -> Ebpf {
    let mut ebpf = EbpfLoader::new()
        .override_global(global, value, true)
        .load(overlay_agent::PROGRAMS)
        .expect("tests of the programs need CAP_BPF");
    for name in [FROM_ENDPOINT, FROM_HOST, FROM_UNDERLAY] {
        let program: &mut SchedClassifier = ebpf.program_mut(name).unwrap().try_into().unwrap();
        program.load().unwrap();
    }
    guard_of(&mut ebpf).load().unwrap();
    ebpf
}

fn guard_of(ebpf: &mut Ebpf) -> &mut Xdp {
    ebpf.program_mut(UNDERLAY_GUARD)
        .unwrap()
        .try_into()
        .unwrap()
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

/// Bytes before the inner IP packet.
fn overhead(packet: &[u8]) -> usize {
    if packet[12..14] == IPV6.to_be_bytes() {
        70
    } else {
        50
    }
}

fn octets4(address: IpAddr) -> [u8; 4] {
    match address {
        IpAddr::V4(address) => address.octets(),
        IpAddr::V6(_) => panic!("{address} is no IPv4 address"),
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
