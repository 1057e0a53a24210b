//! IPv6 inside, outside and beside IPv4: everyone reaches everyone, on both paths.

use std::net::IpAddr;

use anyhow::Result;
use overlay_tests::{
    check::{self, Answer},
    counters::{self, Carried},
    families::{Families, Family},
    guard::Guard,
    kernel, lab, run,
    shape::{Scenario, Shape},
    snapshot::Snapshot,
    topology::UNDERLAY,
    traffic::Pair,
};

/// Around the MTUs of both underlays.
const SIZES: [usize; 8] = [1, 63, 1_372, 1_382, 1_402, 1_452, 9_000, 65_000];
/// Long enough for the sender's window to fill whole GSO packets.
const STREAM: usize = 16 << 20;

fn shape(name: &str, nodes: u8, underlay: Families, inside: Families) -> Result<Shape> {
    let shape = Shape::of(name, Scenario::Overlay, nodes, 2)?;
    Ok(shape.speaking(underlay, inside)?)
}

/// Everyone reaches everyone; the programs carry it when they are attached, and only then.
fn reaches(name: &str, nodes: u8, underlay: Families, inside: Families) -> Result<()> {
    let guard = Guard::up(shape(name, nodes, underlay, inside)?)?;
    let (topology, agents) = (guard.topology(), guard.agents());
    for on in [true, false, true] {
        guard.fastpath(on)?;
        let before = counters::carried(&agents[0].instance)?;
        check::all_pairs_are_well(topology)?;
        let carried = counters::carried(&agents[0].instance)? - before;
        let all = [carried.sent, carried.received, carried.local];
        let receives = on && (underlay == inside || kernel::strips_other_family());
        assert_eq!(
            all.map(|count| count > 0),
            [on, receives, on],
            "{carried:?}"
        );
    }
    for agent in agents {
        assert_eq!(agent.plan()?, Vec::<serde_json::Value>::new());
    }
    Ok(guard.down()?)
}

#[test]
fn ipv4_over_ipv6() -> Result<()> {
    reaches("tfour6", 2, Families::V6, Families::V4)
}

#[test]
fn ipv6_over_ipv4() -> Result<()> {
    reaches("tsix4", 2, Families::V4, Families::V6)
}

#[test]
fn ipv6_over_ipv6() -> Result<()> {
    reaches("tsix6", 2, Families::V6, Families::V6)
}

#[test]
fn both_over_both_with_one_peer_on_each() -> Result<()> {
    reaches("tmixfam", 3, Families::Both, Families::Both)
}

/// Payloads of all sizes arrive whole, and a stream is carried in GSO packets.
fn arrives_whole(name: &str, underlay: Families, fastpath: [bool; 2]) -> Result<()> {
    let guard = Guard::up(shape(name, 2, underlay, Families::Both)?)?;
    for (agent, on) in guard.agents().iter().zip(fastpath) {
        agent.fastpath(on)?;
    }
    let [here, there] = guard.topology().two_nodes();
    for family in [Family::V4, Family::V6] {
        let between =
            |client: &str, server: usize| (client.to_owned(), there.containers[server].clone());
        for (client, server) in [
            between(&here.containers[0].namespace, 0),
            between(&here.namespace, 1),
        ] {
            let pair = Pair {
                client: &client,
                server: &server.namespace,
                address: server.at(family),
            };
            pair.icmp(&SIZES)?;
            pair.udp(&SIZES)?;
            let before = counters::carried(&here.namespace)?;
            pair.tcp(&[STREAM])?;
            let carried = counters::carried(&here.namespace)? - before;
            // Half of what there were if each segment came alone; how many fewer is up to the
            // sender.
            let segments = u64::try_from(STREAM / 1_400)?;
            let (least, most) = if fastpath[0] {
                (1, segments / 2)
            } else {
                (0, 0)
            };
            assert!(
                (least..=most).contains(&carried.sent),
                "{pair}: {carried:?} for {segments} segments"
            );
        }
    }
    Ok(guard.down()?)
}

#[test]
fn payloads_over_ipv6_with_the_fast_path() -> Result<()> {
    arrives_whole("tpay6on", Families::V6, [true, true])
}

#[test]
fn payloads_over_ipv6_without_it() -> Result<()> {
    arrives_whole("tpay6off", Families::V6, [false, false])
}

#[test]
fn payloads_over_ipv6_from_the_fast_path_to_the_slow_one() -> Result<()> {
    arrives_whole("tpay6mix", Families::V6, [true, false])
}

#[test]
fn payloads_over_ipv4_with_the_fast_path() -> Result<()> {
    arrives_whole("tpay4on", Families::V4, [true, true])
}

#[test]
fn a_hop_limit_ends_where_a_ttl_would() -> Result<()> {
    let guard = Guard::up(shape("thops", 2, Families::V6, Families::Both)?)?;
    let nodes = &guard.topology().nodes;
    let (here, there) = (&nodes[0].containers[0], &nodes[1].containers[0]);
    for on in [true, false] {
        guard.fastpath(on)?;
        for family in [Family::V4, Family::V6] {
            let (near, far) = (nodes[0].containers[1].at(family), there.at(family));
            check::routers_on_the_way(&here.namespace, &far.to_string(), 2)?;
            check::routers_on_the_way(&here.namespace, &near.to_string(), 0)?;
            check::routers_on_the_way(&nodes[0].namespace, &far.to_string(), 1)?;
        }
        let far = nodes[1].underlay6.to_string();
        check::routers_on_the_way(&here.namespace, &far, 1)?;
    }
    Ok(guard.down()?)
}

/// Neighbour discovery, inside by the bridge, outside by the underlay.
#[test]
fn the_first_packet_to_an_unknown_neighbour_arrives() -> Result<()> {
    let guard = Guard::up(shape("tnd", 2, Families::V6, Families::V6)?)?;
    let nodes = &guard.topology().nodes;
    let (node, container) = (&nodes[0].namespace, &nodes[0].containers[0].namespace);
    let (near, far) = (
        nodes[0].containers[1].address6,
        nodes[1].containers[0].address6,
    );
    let flush = |namespace: &str, device: &str| {
        let line = format!("ip -6 -n {namespace} neigh flush dev {device}");
        run::checked(line)
    };
    for on in [true, false] {
        guard.fastpath(on)?;
        for (from, to, expected) in [(node, far, 63), (container, far, 62), (container, near, 64)] {
            for one in nodes {
                flush(&one.namespace, UNDERLAY)?;
                for container in &one.containers {
                    flush(&container.namespace, "eth0")?;
                }
            }
            assert_eq!(
                check::ping(from, to)?,
                Answer::Ttl(expected),
                "{from} → {to}"
            );
        }
    }
    Ok(guard.down()?)
}

#[test]
fn each_packet_is_counted_once_in_either_family() -> Result<()> {
    const PINGS: u64 = 20;
    let guard = Guard::up(shape("tcount6", 2, Families::V6, Families::Both)?)?;
    let nodes = &guard.topology().nodes;
    check::all_pairs_are_well(guard.topology())?;
    for family in [Family::V4, Family::V6] {
        let before = counters::carried(&nodes[0].namespace)?;
        for _ in 0..PINGS {
            let to = nodes[1].containers[0].at(family);
            let answer = check::ping(&nodes[0].containers[0].namespace, to)?;
            assert_eq!(answer, Answer::Ttl(62));
        }
        let receives = family == Family::V6 || kernel::strips_other_family();
        let expected = Carried {
            sent: PINGS,
            received: if receives { PINGS } else { 0 },
            local: 0,
        };
        assert_eq!(counters::carried(&nodes[0].namespace)? - before, expected);
    }
    Ok(guard.down()?)
}

#[test]
fn down_leaves_nothing_of_either_family() -> Result<()> {
    let shape = shape("tdown6", 3, Families::Both, Families::Both)?;
    let guard = Guard::underlay(shape)?;
    let node = guard.topology().nodes[0].namespace.clone();
    let before = Snapshot::of(&node)?;
    guard.finish()?;
    check::all_pairs_are_well(guard.topology())?;
    let agent = guard.agent(1);
    agent.tell(&["down"])?;
    let changes = Snapshot::of(&node)?.changes_since(&before);
    assert!(changes.lines.is_empty(), "{changes}");
    for trace in lab::traces(&agent.instance) {
        assert!(!trace.exists(), "{} is left", trace.display());
    }
    Ok(guard.down()?)
}

#[test]
fn a_container_in_which_ipv6_was_switched_off_gets_it_on_its_interface() -> Result<()> {
    let guard = Guard::up(shape("tsixoff", 2, Families::V4, Families::Both)?)?;
    let netns = "tsixoff-docker";
    let ip = |command: &str| run::checked(format!("ip {command}"));
    ip(&format!("netns add {netns}"))?;
    let tried = || -> Result<()> {
        for setting in ["all", "default"] {
            let set =
                format!("netns exec {netns} sysctl -qw net.ipv6.conf.{setting}.disable_ipv6=1");
            ip(&set)?;
        }
        let agent = guard.agent(1);
        agent.attach("docker", netns)?;
        agent.is_well()?;
        let shown = ip(&format!("-n {netns} -6 addr show dev eth0 scope global"))?;
        assert!(shown.contains("fd00:"), "{shown}");
        let there = &guard.topology().nodes[1].containers[0];
        for to in [IpAddr::from(there.address), there.address6.into()] {
            let answer = check::ping(netns, to)?;
            assert!(!matches!(answer, Answer::None(_)), "{to}: {answer:?}");
        }
        Ok(())
    };
    let outcome = tried();
    guard.down()?;
    ip(&format!("netns del {netns}"))?;
    outcome
}
