//! The built object against the ABI, the verifier, and the eyes of an operator.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use aya::{
    Ebpf,
    maps::{MapInfo, MapType, lpm_trie::Key},
    programs::ProgramInfo,
};
use overlay_common::{
    maps::{
        AddressKey4, AddressKey6, CIDRS, CidrKey, Count, DROPS, DROPS_BY_SENDER, ENDPOINT_STATS,
        ENDPOINTS4, ENDPOINTS6, ENTERED, Endpoint, EndpointStats, FLOWS, FLOWS_IN_USE, FlowKey,
        MAX_CIDRS, MAX_ENDPOINT_SLOTS, MAX_ENDPOINTS, MAX_ENTERED, MAX_FLOWS, MAX_NETWORKS,
        MAX_PEERS, MAX_PORTS, MAX_SENDERS, MAX_SOURCES, NETWORKS, Network, PASSES, PASSES_BY_PEER,
        PEER_STATS, PEERS4, PEERS6, PORTS, PassedKey, Peer, PeerStats, Port, PrefixKey4,
        PrefixKey6, SOURCES, SenderKey, SourceKey, VTEPS4, VTEPS6, Vtep, mapped,
    },
    programs::{
        FROM_ENDPOINT, FROM_HOST, FROM_UNDERLAY, GENERIC_GUARD, Program, TO_ENDPOINT,
        UNDERLAY_GUARD,
    },
    reasons::{Drops, Passes},
};
use serde_json::{Value, json};

use crate::{
    node::{Node, load},
    traffic::to_remote,
    world::{PEER_INDEX, ROADS, VNI, WEB_SLOT},
};

/// Instructions that the verifier may walk through, all branches of a program and all
/// combinations of families together: a sign of what a packet pays. `from_underlay` takes 99,000
/// on Linux 6.18, because both families outside and inside, devices without Ethernet headers and the
/// look at translated flows multiply; the others take less than 32,000. Later kernels may walk more.
/// The kernel gives up at a million.
const VERIFIED_INSTRUCTIONS: u32 = 150_000;

/// Bytes of an eBPF instruction.
const INSTRUCTION: u32 = 8;

const PROGRAMS: [&str; 5] = [
    FROM_ENDPOINT,
    FROM_HOST,
    FROM_UNDERLAY,
    UNDERLAY_GUARD,
    GENERIC_GUARD,
];

fn info(ebpf: &Ebpf, name: &str) -> ProgramInfo {
    ebpf.program(name).unwrap().info().unwrap()
}

/// The maps of all programs, by name.
fn maps(ebpf: &Ebpf) -> BTreeMap<String, MapInfo> {
    PROGRAMS
        .iter()
        .flat_map(|name| info(ebpf, name).map_ids().unwrap().unwrap())
        .map(|id| MapInfo::from_id(id).unwrap())
        .map(|map| (map.name_as_str().unwrap().to_owned(), map))
        .collect()
}

fn shape<K, V>(kind: MapType, entries: usize) -> (MapType, usize, usize, usize) {
    (kind, size_of::<K>(), size_of::<V>(), entries)
}

#[test]
fn the_maps_are_those_of_the_abi() {
    let ebpf = load();
    let maps = maps(&ebpf);
    let hash = MapType::Hash;
    let lru = MapType::LruHash;
    let trie = MapType::LpmTrie;
    let per_cpu = MapType::PerCpuArray;
    let expected = [
        (NETWORKS, shape::<u32, Network>(hash, MAX_NETWORKS)),
        (PEERS4, shape::<PrefixKey4, Peer>(hash, MAX_PEERS)),
        (PEERS6, shape::<PrefixKey6, Peer>(hash, MAX_PEERS)),
        (VTEPS4, shape::<AddressKey4, Vtep>(hash, MAX_PEERS)),
        (VTEPS6, shape::<AddressKey6, Vtep>(hash, MAX_PEERS)),
        (
            ENDPOINTS4,
            shape::<AddressKey4, Endpoint>(hash, MAX_ENDPOINTS),
        ),
        (
            ENDPOINTS6,
            shape::<AddressKey6, Endpoint>(hash, MAX_ENDPOINTS),
        ),
        (PORTS, shape::<u32, Port>(hash, MAX_PORTS)),
        (SOURCES, shape::<Key<SourceKey>, u32>(trie, MAX_SOURCES)),
        (CIDRS, shape::<Key<CidrKey>, u32>(trie, MAX_CIDRS)),
        (PEER_STATS, shape::<u32, PeerStats>(per_cpu, MAX_PEERS + 1)),
        (
            ENDPOINT_STATS,
            shape::<u32, EndpointStats>(per_cpu, MAX_ENDPOINT_SLOTS),
        ),
        (DROPS, shape::<u32, Drops>(per_cpu, Program::ALL.len())),
        (
            DROPS_BY_SENDER,
            shape::<SenderKey, Count>(MapType::PerCpuHash, MAX_SENDERS),
        ),
        (PASSES, shape::<u32, Passes>(per_cpu, Program::ALL.len())),
        (
            PASSES_BY_PEER,
            shape::<PassedKey, Count>(MapType::PerCpuHash, MAX_SENDERS),
        ),
        (FLOWS, shape::<FlowKey, u32>(lru, MAX_FLOWS)),
        (ENTERED, shape::<FlowKey, u64>(lru, MAX_ENTERED)),
        (FLOWS_IN_USE, shape::<u32, u32>(MapType::Array, 1)),
    ];
    for (name, expected) in expected {
        let map = maps.get(name).unwrap_or_else(|| panic!("no map {name}"));
        let built = (
            map.map_type().unwrap(),
            map.key_size() as usize,
            map.value_size() as usize,
            map.max_entries() as usize,
        );
        assert_eq!(built, expected, "{name}");
    }
    let known: BTreeSet<_> = expected.iter().map(|&(name, _)| name).collect();
    // Globals and texts: the linker keeps some of these apart by their size.
    let foreign: Vec<_> = maps
        .keys()
        .filter(|name| !known.contains(name.as_str()) && !name.starts_with(".rodata"))
        .collect();
    assert_eq!(foreign, Vec::<&String>::new());
}

#[test]
fn the_verifier_accepts_every_program_with_little_work() {
    let ebpf = load();
    for name in PROGRAMS.into_iter().chain([TO_ENDPOINT]) {
        let info = info(&ebpf, name);
        assert_eq!(info.name_as_str(), Some(name));
        let verified = info.verified_instruction_count().unwrap();
        // Read by `cargo xtask vm`, which runs this on other kernels.
        println!(
            "verifier: {}",
            json!({
                "program": name,
                "walked": verified,
                "translated": info.size_translated().unwrap() / INSTRUCTION,
                "machine_code": info.size_jitted(),
            })
        );
        assert!(verified <= VERIFIED_INSTRUCTIONS, "{name}: {verified}");
    }
}

#[test]
fn bpftool_prints_the_names_of_fields() {
    let mut node = Node::new();
    node.run(FROM_ENDPOINT, &spoofed(), 0);
    let maps = maps(node.ebpf());
    let peers = dump(&maps[PEERS4]);
    let peer = peers
        .iter()
        .find(|entry| entry["key"]["prefix"] == json!([10, 244, 2, 0]))
        .unwrap();
    assert_eq!(peer["key"]["vni"], json!(VNI));
    assert_eq!(peer["value"]["vtep"], json!(mapped([192, 168, 56, 12])));
    assert_eq!(peer["value"]["index"], json!(PEER_INDEX));
    let port = &dump(&maps[PORTS])[0];
    assert_eq!(port["value"]["network"]["vni"], json!(VNI));
    let drops = &dump(&maps[DROPS])[0]["values"][0]["value"];
    assert!(drops["spoofed_source"]["packets"].is_u64());
    let sender = &dump(&maps[DROPS_BY_SENDER])[0]["key"];
    assert_eq!(sender["kind"], json!("Endpoint"));
    assert_eq!(sender["slot"], json!(WEB_SLOT));
    assert_eq!(sender["reason"], json!("SpoofedSource"));
}

/// What an endpoint sends from another's MAC.
fn spoofed() -> Vec<u8> {
    let mut packet = to_remote(&ROADS[0]);
    packet[6] ^= 4;
    packet
}

/// The entries of a map as bpftool formats them with the map's BTF.
fn dump(map: &MapInfo) -> Vec<Value> {
    let output = Command::new("bpftool")
        .args(["--json", "map", "dump", "id", &map.id().to_string()])
        .output()
        .expect("bpftool is installed");
    assert!(output.status.success(), "{output:?}");
    let entries: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    entries
        .into_iter()
        .map(|mut entry| entry["formatted"].take())
        .collect()
}
