//! Several next hops: who carries what.

use std::{
    net::{Ipv4Addr, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result};
use overlay_tests::{counters, guard::Guard, netns, poll, run, script::words};

use crate::stand::{BOTH, configure, flows_fast, ip, lab, pass_over_linkdown, second_cable};

/// Flows that are told apart by their ports.
const FLOWS: usize = 64;

/// Sends a datagram of each flow from the first container to the second; how many arrived, and
/// how many packets left by each of the first node's cards.
fn spread(guard: &Guard) -> Result<(usize, [u64; 2])> {
    let nodes = &guard.topology().nodes;
    let (from, to) = (&nodes[0].containers[0], &nodes[1].containers[0]);
    let sent = |device: &str| -> Result<u64> {
        let shown = format!("ip -n {} -s -j link show dev {device}", nodes[0].namespace);
        let shown = run::json(&words(shown))?;
        let packets = shown[0]["stats64"]["tx"]["packets"].as_u64();
        packets.with_context(|| format!("no count in {shown}"))
    };
    let receiver = netns::inside(&to.namespace, || {
        UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 9))
    })??;
    receiver.set_read_timeout(Some(Duration::from_secs(2)))?;
    let before = [sent("eth1")?, sent("eth2")?];
    netns::inside(&from.namespace, || {
        (0..FLOWS).try_for_each(|_| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            socket.send_to(b"one", (to.address, 9)).map(drop)
        })
    })??;
    let mut arrived = 0;
    while arrived < FLOWS && receiver.recv(&mut [0; 8]).is_ok() {
        arrived += 1;
    }
    let after = [sent("eth1")?, sent("eth2")?];
    Ok((arrived, [after[0] - before[0], after[1] - before[1]]))
}

/// Waits until flows are spread over so many next hops, none being one alone.
fn hops_are(guard: &Guard, count: usize) -> Result<()> {
    let agent = guard.agent(1);
    let hops = || -> Result<Option<String>> {
        let peer = agent.json(&["status"])?["networks"][0]["peers"][0].take();
        let there = peer["next_hops"].as_array().map_or(0, Vec::len);
        Ok((there != count).then(|| peer.to_string()))
    };
    let found = poll::until_well(|| hops().unwrap_or_else(|error| Some(format!("{error:#}"))));
    assert_eq!(found, Ok(()), "{}", agent.log()?);
    Ok(())
}

#[test]
fn flows_are_spread_over_next_hops_and_leave_dead_ones() -> Result<()> {
    let guard = lab("tupecmp")?;
    second_cable(&guard)?;
    let several = "nexthop via 192.168.56.12 nexthop via 172.30.0.2";
    for node in [1, 2] {
        let other = 3 - node;
        let commands = format!(
            "addr add 10.255.0.{node}/32 dev lo
             route add 10.255.0.{other}/32 nexthop via 192.168.56.1{other} nexthop via 172.30.0.{other}"
        );
        ip(&guard, node, &commands)?;
    }
    for node in &guard.topology().nodes {
        let (number, other) = (node.number, 3 - node.number);
        let own = format!("{}\nvtep = \"10.255.0.{number}\"", BOTH.1);
        let peer = format!("vtep = \"10.255.0.{other}\"");
        let old = format!("vtep = \"192.168.56.1{other}\"");
        configure(&guard, node, &[(&old, &peer), (BOTH.0, &own)])?;
    }
    flows_fast(&guard, "two next hops")?;
    pass_over_linkdown(&guard, &["all", "eth1", "eth2"])?;
    let both_carry = |by: &str| -> Result<()> {
        hops_are(&guard, 2)?;
        let instance = &guard.agent(1).instance;
        let before = counters::carried(instance)?.sent;
        let (arrived, sent) = spread(&guard)?;
        assert_eq!(arrived, FLOWS, "{by}");
        // Far less than a half may come by chance, but not one in eight.
        assert!(
            sent.iter().all(|packets| *packets >= FLOWS as u64 / 8),
            "{by}: {sent:?}"
        );
        // Whichever way they went, it is one peer that they are counted for.
        assert!(
            counters::carried(instance)?.sent >= before + FLOWS as u64,
            "{by}"
        );
        Ok(())
    };
    let one_carries = |by: &str, place: usize| -> Result<()> {
        hops_are(&guard, 0)?;
        flows_fast(&guard, by)?;
        let (arrived, sent) = spread(&guard)?;
        assert_eq!(arrived, FLOWS, "{by}");
        assert!(
            sent[place] >= FLOWS as u64 && sent[1 - place] < FLOWS as u64 / 8,
            "{by}: {sent:?}"
        );
        Ok(())
    };
    both_carry("a route")?;
    // The cable of either is pulled, and the kernel passes over what has none.
    ip(&guard, 2, "link set eth2 down")?;
    one_carries("a pulled cable", 0)?;
    ip(&guard, 2, "link set eth2 up")?;
    both_carry("its return")?;

    // A group of objects, one of which goes unannounced by any route.
    let by_objects = "nexthop add id 1 via 192.168.56.12 dev eth1
                      nexthop add id 2 via 172.30.0.2 dev eth2
                      nexthop add id 10 group 1/2
                      route replace 10.255.0.2/32 nhid 10";
    ip(&guard, 1, by_objects)?;
    both_carry("a group")?;
    ip(&guard, 1, "nexthop del id 1")?;
    one_carries("a group of one", 1)?;
    ip(&guard, 1, &format!("route replace 10.255.0.2/32 {several}"))?;
    both_carry("a route again")?;
    Ok(guard.down()?)
}
