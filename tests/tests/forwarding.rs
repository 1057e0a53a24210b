//! A container that forwards for others behind it.
//!
//! ```text
//!   nested (10.244.99.2) ── eth1 container (10.244.1.10) ── node 1 ── node 2 ── container
//! ```

use std::net::IpAddr;

use anyhow::{Context as _, Result};
use overlay_common::maps::{DROPS, PASSES};
use overlay_tests::{
    check::{self, Answer},
    counters,
    families::{Families, Family},
    guard::Guard,
    netns::Temporary,
    run,
    script::inside,
    shape::{Scenario, Shape},
    traffic::Pair,
};

/// What is behind the container; the first address is the container's.
const BEHIND: [&str; 2] = ["10.244.99.0/24", "fd00:244:0:99::/64"];
const ROUTER: [&str; 2] = ["10.244.99.1", "fd00:244:0:99::1"];
const NESTED: [&str; 2] = ["10.244.99.2", "fd00:244:0:99::2"];
/// An address of nobody, from which the container may not send.
const FORBIDDEN: &str = "10.244.98.2";
/// Long enough for whole GSO packets in both directions.
const STREAM: usize = 16 << 20;

fn raise(name: &str, over: Families) -> Result<Guard> {
    let shape = Shape::of(name, Scenario::Overlay, 2, 1)?.speaking(over, Families::Both)?;
    let behind = || BEHIND.map(str::to_owned);
    Ok(Guard::configured(shape, |node, config| {
        if node.number == 1 {
            config.endpoints[0].forwarding = Some(true);
            config.endpoints[0].allowed_sources = behind().to_vec();
        } else {
            config.networks[0].peers[0].subnet.extend(behind());
        }
    })?)
}

/// A namespace behind a container.
fn nest(name: &str, container: &str, mtu: u16) -> Result<Temporary> {
    let nested = Temporary::make(name)?;
    for line in [
        format!(
            "ip link add eth1 netns {container} mtu {mtu} type veth peer name eth0 \
             netns {name} mtu {mtu}"
        ),
        format!("ip -n {container} addr add {}/24 dev eth1", ROUTER[0]),
        format!("ip -n {container} addr add {}/64 dev eth1 nodad", ROUTER[1]),
        format!("ip -n {name} addr add {}/24 dev eth0", NESTED[0]),
        format!("ip -n {name} addr add {}/64 dev eth0 nodad", NESTED[1]),
        format!("ip -n {container} link set eth1 up"),
        format!("ip -n {name} link set eth0 up"),
        format!("ip -n {name} route add default via {}", ROUTER[0]),
        format!("ip -n {name} route add default via {}", ROUTER[1]),
        inside(container, "sysctl -qw net.ipv4.ip_forward=1"),
        inside(container, "sysctl -qw net.ipv6.conf.all.forwarding=1"),
    ] {
        run::checked(line)?;
    }
    Ok(nested)
}

fn counted(instance: &str, map: &str, reason: &str) -> Result<u64> {
    let reasons = counters::reasons(instance, map)?;
    let found = reasons.iter().find(|(name, _)| name == reason);
    Ok(found.map_or(0, |&(_, packets)| packets))
}

fn works(name: &str, over: Families) -> Result<()> {
    let guard = raise(name, over)?;
    let nodes = &guard.topology().nodes;
    let (router, there) = (&nodes[0].containers[0], &nodes[1].containers[0]);
    let nested_name = format!("{name}-nest");
    let _nested = nest(
        &nested_name,
        &router.namespace,
        guard.topology().vxlan_mtu(&nodes[0]),
    )?;
    for on in [true, false] {
        for agent in guard.agents() {
            agent.fastpath(on)?;
            assert_eq!(agent.plan()?, Vec::<serde_json::Value>::new());
        }
        for (index, family) in [Family::V4, Family::V6].into_iter().enumerate() {
            let nested: IpAddr = NESTED[index].parse()?;
            // The container is a third router on the way back.
            let answer = check::ping(&nested_name, there.at(family))?;
            assert_eq!(answer, Answer::Ttl(61), "{nested} → {}", there.namespace);
            let answer = check::ping(&there.namespace, nested)?;
            assert_eq!(answer, Answer::Ttl(61), "{} → {nested}", there.namespace);
            let out = Pair {
                client: &nested_name,
                server: &there.namespace,
                address: there.at(family),
            };
            let back = Pair {
                client: &there.namespace,
                server: &nested_name,
                address: nested,
            };
            // What arrives for itself might be for others too, once it has translated an address.
            let itself = Pair::between(there, router, family);
            for pair in [out, back, itself] {
                pair.udp(&[1, 1_400, 9_000])?;
                pair.tcp(&[STREAM])?;
            }
        }
    }
    let aggregates = counted(&nodes[0].namespace, PASSES, "forwarding_aggregate")?;
    assert!(aggregates > 0, "no aggregate took the kernel's way");
    Ok(guard.down()?)
}

#[test]
fn over_ipv4_whole_streams_reach_who_is_behind() -> Result<()> {
    works("tfwd4", Families::V4)
}

#[test]
fn over_ipv6_whole_streams_reach_who_is_behind() -> Result<()> {
    works("tfwd6", Families::V6)
}

#[test]
fn it_may_not_send_from_elsewhere() -> Result<()> {
    let guard = raise("tfwdno", Families::V4)?;
    let nodes = &guard.topology().nodes;
    let (router, there) = (&nodes[0].containers[0], &nodes[1].containers[0]);
    let add = format!("ip -n {} addr add {FORBIDDEN}/32 dev lo", router.namespace);
    run::checked(add)?;
    // This also finds the gateway, whom it may not ask for in another's name.
    let own = router.address;
    let ping = format!("ping -n -c 1 -W 5 -I {own} {}", there.address);
    run::checked(inside(&router.namespace, ping)).context("from its own address")?;
    let before = counted(&nodes[0].namespace, DROPS, "spoofed_source")?;
    let ping = format!("ping -n -c 1 -W 1 -I {FORBIDDEN} {}", there.address);
    let out = run::output(inside(&router.namespace, ping))?;
    assert_eq!(out.code, Some(1), "{}{}", out.stdout, out.stderr);
    let after = counted(&nodes[0].namespace, DROPS, "spoofed_source")?;
    assert_eq!(after - before, 1);
    Ok(guard.down()?)
}
