//! What is seen where nothing is wrong, for tests to break.

use std::{collections::BTreeMap, time::Duration};

use overlay_control::Finding;
use overlay_core::{filter::Ruleset, model::FastPath};

use super::Facts;
use crate::doctor::{
    commands::Commands,
    facts::{
        AgentFacts, Answer, Container, Device, Growth, Machine, MapUse, Neighbour, NeighbourState,
        NetworkFacts, NodeAddress, PeerFacts, Reach,
    },
};

fn answered(size: u16) -> Reach {
    Reach {
        size,
        large: Answer::Answered,
        small: Answer::Unasked,
    }
}

fn settings() -> BTreeMap<String, String> {
    [
        ("net/ipv4/ip_forward", "1"),
        ("net/ipv4/conf/all/rp_filter", "0"),
        ("net/ipv4/conf/eth1/rp_filter", "2"),
        ("net/ipv4/conf/ovl1/rp_filter", "2"),
        ("net/core/bpf_jit_enable", "1"),
        ("kernel/bpf_stats_enabled", "0"),
        ("net/netfilter/nf_conntrack_count", "10"),
        ("net/netfilter/nf_conntrack_max", "65536"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

/// A node with one peer and one container.
pub(super) fn facts() -> Facts {
    let eth1 = "eth1".parse().unwrap();
    let vtep = "192.168.56.12".parse().unwrap();
    let vni = 1.try_into().unwrap();
    Facts {
        commands: Commands::default(),
        machine: Machine {
            release: "6.12.0".to_owned(),
            bpffs: "/sys/fs/bpf".into(),
            ..Machine::default()
        },
        agent: AgentFacts {
            running: true,
            established: true,
            ..AgentFacts::default()
        },
        obstacles: Vec::new(),
        problems: Vec::new(),
        no_guard: None,
        settings: settings(),
        networks: vec![NetworkFacts {
            name: "lab".parse().unwrap(),
            port: 4789,
            fastpath: FastPath::Auto,
            mtu: Some(1450),
            bridge: "ovlbr1".parse().unwrap(),
            tunnels: vec!["ovl1".parse().unwrap()],
            cidrs: vec!["10.244.0.0/16".parse().unwrap()],
            subnets: vec!["10.244.1.0/24".parse().unwrap()],
        }],
        vteps: vec!["192.168.56.11".parse().unwrap()],
        underlay: vec![Device {
            name: eth1,
            up: true,
            running: true,
            kind: String::new(),
            unused_features: Ok(Vec::new()),
            one_queue: Ok(Some(false)),
            received: 100,
        }],
        addresses: vec![NodeAddress {
            device: eth1,
            net: "192.168.56.11/24".parse().unwrap(),
            usable: true,
        }],
        ruleset: Ok(Ruleset::default()),
        leftovers: Ok(BTreeMap::new()),
        legacy_tables: Vec::new(),
        detached: Vec::new(),
        ahead: Ok(Vec::new()),
        foreign_xdp: Ok(Vec::new()),
        wrong_checksums: Ok(Vec::new()),
        peers: vec![PeerFacts {
            name: "n2".parse().unwrap(),
            network: "lab".parse().unwrap(),
            vni,
            port: 4789,
            vtep,
            inner: "10.244.2.1".parse().ok(),
            device: Some(eth1),
            path_mtu: None,
            neighbour: Some(Neighbour {
                device: eth1,
                address: vtep,
                mac: "02:00:00:00:00:12".parse().ok(),
                state: NeighbourState::Known,
            }),
            underlay: answered(1500),
            tunnel: answered(1450),
            port_answer: Answer::Silent,
            received: 50,
            misplaced: 0,
            passed: Vec::new(),
            health: None,
            encrypted: None,
        }],
        diverted: Ok(Vec::new()),
        maps: Ok(vec![MapUse {
            name: "PEERS4",
            used: 1,
            capacity: 131_072,
        }]),
        growth: Ok(Growth {
            time: Duration::from_secs(1),
            drops: Vec::new(),
            passes: vec![(overlay_common::reasons::PassReason::NotOurs, 50)],
        }),
        containers: vec![Container {
            name: "web".parse().unwrap(),
            network: "lab".parse().unwrap(),
            netns: "/run/netns/web".into(),
            interface: "eth0".parse().unwrap(),
            mtu: Some(1450),
            more_addresses: Vec::new(),
            astray: Vec::new(),
        }],
    }
}

/// The findings once a healthy node has been broken.
pub(super) fn broken(break_it: impl FnOnce(&mut Facts)) -> Vec<Finding> {
    let mut facts = facts();
    break_it(&mut facts);
    super::judge(&facts).findings
}

/// The one finding, which must be of this check.
pub(super) fn only(check: &str, break_it: impl FnOnce(&mut Facts)) -> Finding {
    let mut findings = broken(break_it);
    let names: Vec<&str> = findings.iter().map(|found| found.check.as_str()).collect();
    assert_eq!(names, [check], "{findings:#?}");
    findings.remove(0)
}
