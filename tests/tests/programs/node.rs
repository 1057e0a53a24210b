//! A node without an agent: the agent's embedded programs, maps filled by hand, and
//! packets run through them by `BPF_PROG_TEST_RUN`.

use aya::{
    Ebpf, EbpfLoader, TestRun as _,
    maps::{HashMap, PerCpuArray},
    programs::{SchedClassifier, TestRunOptions},
};
use bytemuck::Zeroable as _;
use nix::sched::{CloneFlags, unshare};
use overlay_common::{
    maps::{
        AddressKey4, Count, DROPS, ENDPOINTS4, Endpoint, LOCAL_INDEX, MAX_PREFIX_LENGTHS, NETWORKS,
        Network, PASSES, PEER_STATS, PEERS4, PORTS, Peer, PeerStats, Port, PrefixKey4, VTEPS4,
        Vtep, mapped,
    },
    programs::{FROM_ENDPOINT, FROM_HOST, FROM_UNDERLAY},
    reasons::{DropReason, Drops, PassReason, Passes},
};

use crate::frames::{Address, Mac};

pub(crate) const VNI: u32 = 0x0012_3456;
pub(crate) const PORT: u16 = 4789;
pub(crate) const MTU: u16 = 1450;

/// This node, its gateway address and its two endpoints.
pub(crate) const NODE: Address = [192, 168, 56, 11];
pub(crate) const NODE_MAC: Mac = [0x02, 0x4f, 192, 168, 56, 11];
pub(crate) const GATEWAY: Address = [10, 244, 1, 1];
pub(crate) const GATEWAY_MAC: Mac = [0x02, 0, 0, 0, 1, 1];
pub(crate) const WEB: Address = [10, 244, 1, 10];
pub(crate) const WEB_MAC: Mac = [0x02, 0, 0, 0, 1, 10];
pub(crate) const DATABASE: Address = [10, 244, 1, 11];
pub(crate) const DATABASE_MAC: Mac = [0x02, 0, 0, 0, 1, 11];

/// A peer with 10.244.2.0/24, and one with 10.244.3.64/26 inside of the first one's
/// 10.244.3.0/24.
pub(crate) const PEER: Address = [192, 168, 56, 12];
pub(crate) const PEER_MAC: Mac = [0x02, 0x4f, 192, 168, 56, 12];
pub(crate) const PEER_INDEX: u32 = 1;
pub(crate) const REMOTE: Address = [10, 244, 2, 10];
pub(crate) const REMOTE_TOO: Address = [10, 244, 3, 10];
pub(crate) const OTHER_PEER: Address = [192, 168, 56, 13];
pub(crate) const OTHER_PEER_MAC: Mac = [0x02, 0x4f, 192, 168, 56, 13];
pub(crate) const OTHER_PEER_INDEX: u32 = 2;
pub(crate) const OTHER_REMOTE: Address = [10, 244, 3, 70];

/// An address behind nobody: masked to 24 bits it has the key of 10.244.4.0/26.
pub(crate) const BESIDE: Address = [10, 244, 4, 70];
/// An address behind a peer to which the underlay has no way at the moment.
pub(crate) const BEHIND_CUT_OFF: Address = [10, 244, 5, 10];

/// The peers: outer address, MAC, index, and the underlay device that leads there.
const NEAR: (Address, Mac, u32, u32) = (PEER, PEER_MAC, PEER_INDEX, INTERFACE);
const OTHER: (Address, Mac, u32, u32) = (OTHER_PEER, OTHER_PEER_MAC, OTHER_PEER_INDEX, INTERFACE);
const CUT_OFF: (Address, Mac, u32, u32) = ([192, 168, 99, 14], [0x02, 0, 0, 0, 99, 14], 3, 0);

/// The lengths of the peers' prefixes.
const LENGTHS: [u8; 2] = [26, 24];

/// The loopback device, on which test runs take place: it plays each device of a node.
const INTERFACE: u32 = 1;
/// Where `struct __sk_buff` of `linux/bpf.h` keeps `gso_size`, and its size.
const GSO_SIZE: usize = 176;
const CONTEXT: usize = 192;

/// Actions of `linux/pkt_cls.h`.
const TC_ACT_UNSPEC: i32 = -1;
const TC_ACT_SHOT: i32 = 2;
const TC_ACT_REDIRECT: i32 = 7;

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Encapsulated to the peer with this index.
    To(u32),
    /// Decapsulated from the peer with this index.
    From(u32),
    /// Delivered to another endpoint here.
    Local,
    /// Left to the kernel.
    Pass(PassReason),
    /// Dropped, and charged to the peer with this index.
    Drop(DropReason, Option<u32>),
}

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
        unshare(CloneFlags::CLONE_NEWNET).expect("tests of the programs need CAP_SYS_ADMIN");
        let mut node = Self { ebpf: load() };
        let network = network();
        node.hash::<u32, Network>(NETWORKS, |map| map.insert(VNI, network, 0));
        let [long, short] = LENGTHS;
        for (prefix, length, peer) in [
            ([10, 244, 2, 0], short, NEAR),
            ([10, 244, 3, 0], short, NEAR),
            ([10, 244, 3, 64], long, OTHER),
            ([10, 244, 4, 0], long, OTHER),
            ([10, 244, 5, 0], short, CUT_OFF),
        ] {
            let (vtep, mac, index, underlay_ifindex) = peer;
            let peer = Peer {
                vtep: mapped(vtep),
                next_hop: mapped(vtep),
                underlay_ifindex,
                index,
                mac,
                flags: 0,
            };
            let key = PrefixKey4 {
                vni: VNI,
                length: length.into(),
                prefix,
            };
            node.hash::<PrefixKey4, Peer>(PEERS4, |map| map.insert(key, peer, 0));
            let key = AddressKey4 {
                vni: VNI,
                address: vtep,
            };
            node.hash::<AddressKey4, Vtep>(VTEPS4, |map| map.insert(key, Vtep { index }, 0));
        }
        for (address, mac) in [(WEB, WEB_MAC), (DATABASE, DATABASE_MAC)] {
            let endpoint = Endpoint {
                ifindex: INTERFACE,
                mac,
                flags: 0,
            };
            let key = AddressKey4 { vni: VNI, address };
            node.hash::<AddressKey4, Endpoint>(ENDPOINTS4, |map| map.insert(key, endpoint, 0));
        }
        let port = Port {
            network,
            address: WEB,
            mac: WEB_MAC,
            ..Port::zeroed()
        };
        node.hash::<u32, Port>(PORTS, |map| map.insert(INTERFACE, port, 0));
        node
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
        let result = self
            .program(program)
            .test_run(TestRunOptions {
                data_in: Some(packet),
                data_out: Some(&mut bytes),
                ctx_in: Some(&context),
                ..TestRunOptions::default()
            })
            .unwrap();
        bytes.truncate(usize::try_from(result.data_size_out).unwrap());
        let outcome = self.counters().since(&before, packet.len());
        let action = match outcome {
            Outcome::To(_) | Outcome::From(_) | Outcome::Local => TC_ACT_REDIRECT,
            Outcome::Pass(_) => TC_ACT_UNSPEC,
            Outcome::Drop(..) => TC_ACT_SHOT,
        };
        assert_eq!(result.return_value.cast_signed(), action, "{outcome:?}");
        if action != TC_ACT_REDIRECT {
            assert_eq!(bytes, packet, "changed, then left: {outcome:?}");
        }
        Run { outcome, bytes }
    }

    /// The loaded object.
    pub(crate) fn ebpf(&self) -> &Ebpf {
        &self.ebpf
    }

    fn program(&mut self, name: &str) -> &mut SchedClassifier {
        self.ebpf.program_mut(name).unwrap().try_into().unwrap()
    }

    fn hash<K: aya::Pod, V: aya::Pod>(
        &mut self,
        name: &str,
        change: impl FnOnce(
            &mut HashMap<&mut aya::maps::MapData, K, V>,
        ) -> Result<(), aya::maps::MapError>,
    ) {
        let map = self.ebpf.map_mut(name).unwrap();
        change(&mut HashMap::try_from(map).unwrap()).unwrap();
    }

    /// All counters, summed over the CPUs.
    pub(crate) fn counters(&self) -> Counters {
        let drops = self.per_cpu::<Drops>(DROPS, 0);
        let passes = self.per_cpu::<Passes>(PASSES, 0);
        let all = |count: fn(&PeerStats) -> Count| {
            [LOCAL_INDEX, PEER_INDEX, OTHER_PEER_INDEX].map(|index| {
                sum(self
                    .per_cpu::<PeerStats>(PEER_STATS, index)
                    .iter()
                    .map(count))
            })
        };
        Counters {
            drops: DropReason::ALL
                .iter()
                .map(|&reason| sum(drops.iter().map(|drops| drops.of(reason))))
                .collect(),
            passes: PassReason::ALL
                .iter()
                .map(|&reason| sum(passes.iter().map(|passes| passes.of(reason))))
                .collect(),
            tx: all(|stats| stats.tx),
            rx: all(|stats| stats.rx),
            dropped: all(|stats| stats.dropped),
        }
    }

    fn per_cpu<T: aya::Pod>(&self, name: &str, index: u32) -> Vec<T> {
        let map = PerCpuArray::<_, T>::try_from(self.ebpf.map(name).unwrap()).unwrap();
        map.get(&index, 0).unwrap().to_vec()
    }
}

/// The agent's object, loaded and verified but neither pinned nor attached.
pub(crate) fn load() -> Ebpf {
    load_with_log_level(0)
}

/// The same, with the log statements up to a level; 0 is none, 4 is debug.
pub(crate) fn load_with_log_level(level: u8) -> Ebpf {
    let mut ebpf = EbpfLoader::new()
        .override_global("AYA_LOG_LEVEL", &level, true)
        .load(overlay_agent::PROGRAMS)
        .expect("tests of the programs need CAP_BPF");
    for name in [FROM_ENDPOINT, FROM_HOST, FROM_UNDERLAY] {
        let program: &mut SchedClassifier = ebpf.program_mut(name).unwrap().try_into().unwrap();
        program.load().unwrap();
    }
    ebpf
}

fn network() -> Network {
    let mut peer_lengths4 = [0; MAX_PREFIX_LENGTHS];
    peer_lengths4[..2].copy_from_slice(&LENGTHS);
    Network {
        vni: VNI,
        vtep: NODE,
        subnet: [10, 244, 1, 0],
        subnet_mask: [255, 255, 255, 0],
        peer_lengths4,
        mtu: MTU,
        port_be: PORT.to_be_bytes(),
        vtep_mac: NODE_MAC,
        gateway_mac: GATEWAY_MAC,
        ..Network::zeroed()
    }
}

fn sum(counts: impl Iterator<Item = Count>) -> Count {
    counts.fold(Count::default(), |sum, count| Count {
        packets: sum.packets + count.packets,
        bytes: sum.bytes + count.bytes,
    })
}

/// Counters at one moment; peers in the order of their index.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Counters {
    drops: Vec<Count>,
    passes: Vec<Count>,
    tx: [Count; 3],
    rx: [Count; 3],
    dropped: [Count; 3],
}

impl Counters {
    /// Packets that were sent on, passed and dropped.
    pub(crate) fn packets(&self) -> u64 {
        [&self.drops[..], &self.passes, &self.tx, &self.rx]
            .into_iter()
            .flatten()
            .map(|count| count.packets)
            .sum()
    }

    /// The one way out that was taken between two moments by a packet of this length.
    fn since(&self, before: &Self, length: usize) -> Outcome {
        let mut outcomes = Vec::new();
        for (&reason, length_counted) in PassReason::ALL
            .iter()
            .zip(moved(&before.passes, &self.passes))
        {
            outcomes.extend(length_counted.map(|bytes| (Outcome::Pass(reason), bytes)));
        }
        let charged = (0..)
            .zip(moved(&before.dropped, &self.dropped))
            .filter_map(|(index, bytes)| bytes.map(|bytes| (index, bytes)))
            .collect::<Vec<_>>();
        assert!(
            charged.len() <= 1,
            "charged to more than one peer: {charged:?}"
        );
        for (&reason, length_counted) in DropReason::ALL
            .iter()
            .zip(moved(&before.drops, &self.drops))
        {
            let peer = charged.first().map(|&(index, _)| index);
            outcomes.extend(length_counted.map(|bytes| (Outcome::Drop(reason, peer), bytes)));
        }
        for (index, bytes) in (0..).zip(moved(&before.tx, &self.tx)) {
            let outcome = if index == LOCAL_INDEX {
                Outcome::Local
            } else {
                Outcome::To(index)
            };
            outcomes.extend(bytes.map(|bytes| (outcome, bytes)));
        }
        for (index, bytes) in (0..).zip(moved(&before.rx, &self.rx)) {
            outcomes.extend(bytes.map(|bytes| (Outcome::From(index), bytes)));
        }
        let &[(outcome, bytes)] = outcomes.as_slice() else {
            panic!("not exactly one way out was counted: {outcomes:?}");
        };
        let expected = match outcome {
            Outcome::From(_) => length - 50,
            _ => length,
        };
        assert_eq!(bytes, expected as u64, "bytes of {outcome:?}");
        assert!(
            charged.iter().all(|&(_, charged)| charged == bytes),
            "charged to the peer: {charged:?}"
        );
        outcome
    }
}

/// For each counter, the bytes by which it moved if it counted a packet.
fn moved<'c>(
    before: &'c [Count],
    after: &'c [Count],
) -> impl Iterator<Item = Option<u64>> + use<'c> {
    before.iter().zip(after).map(|(before, after)| {
        let packets = after.packets - before.packets;
        assert!(packets <= 1, "one packet was counted {packets} times");
        (packets == 1).then_some(after.bytes - before.bytes)
    })
}
