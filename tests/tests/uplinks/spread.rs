//! Several next hops: who carries what.

use std::{
    net::{Ipv4Addr, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use overlay_tests::{counters, guard::Guard, netns, poll, run, run::Running};

use crate::stand::{BOTH, configure, flows_fast, ip, pass_over_linkdown, second_cable};

/// Flows that are told apart by their ports.
pub(crate) const FLOWS: usize = 64;

/// Sends a datagram of each flow from the first container to the second; how many arrived, and
/// how many packets left by each of the first node's cards.
pub(crate) fn spread(guard: &Guard) -> Result<(usize, [u64; 2])> {
    let nodes = &guard.topology().nodes;
    let (from, to) = (&nodes[0].containers[0], &nodes[1].containers[0]);
    let sent = |device: &str| -> Result<u64> {
        let shown = format!("ip -n {} -s -j link show dev {device}", nodes[0].namespace);
        let shown = run::json(shown)?;
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
pub(crate) fn hops_are(guard: &Guard, count: usize) -> Result<()> {
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

/// Two nodes with addresses on their loopbacks, and two next hops to each other's.
fn behind_two_cables(name: &str) -> Result<Guard> {
    let guard = Guard::pair(name)?;
    second_cable(&guard)?;
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
    Ok(guard)
}

#[test]
fn flows_are_spread_over_next_hops_and_leave_dead_ones() -> Result<()> {
    let guard = behind_two_cables("tupecmp")?;
    let several = "nexthop via 192.168.56.12 nexthop via 172.30.0.2";
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

/// Sends a datagram of each flow in turn for as long as `act` takes, and a while before and after;
/// how many were sent, and how many of them arrived.
fn meanwhile(guard: &Guard, act: impl FnOnce() -> Result<()>) -> Result<(u64, u64)> {
    const PAUSE: Duration = Duration::from_micros(200);
    let nodes = &guard.topology().nodes;
    let (from, to) = (&nodes[0].containers[0], &nodes[1].containers[0]);
    let receiver = netns::inside(&to.namespace, || {
        UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 9))
    })??;
    receiver.set_read_timeout(Some(Duration::from_secs(2)))?;
    let sockets = netns::inside(&from.namespace, || {
        let sockets = (0..FLOWS).map(|_| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)));
        sockets.collect::<std::io::Result<Vec<_>>>()
    })??;
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let sending = scope.spawn(|| -> std::io::Result<u64> {
            let mut sent = 0;
            for socket in sockets.iter().cycle() {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                socket.send_to(b"one", (to.address, 9))?;
                sent += 1;
                thread::sleep(PAUSE);
            }
            Ok(sent)
        });
        let receiving = scope.spawn(|| {
            let mut arrived = 0;
            while receiver.recv(&mut [0; 8]).is_ok() {
                arrived += 1;
            }
            arrived
        });
        thread::sleep(Duration::from_secs(1));
        let acted = act();
        thread::sleep(Duration::from_secs(2));
        done.store(true, Ordering::Relaxed);
        let sent = sending
            .join()
            .map_err(|_| anyhow::anyhow!("the sender panicked"))??;
        let arrived = receiving
            .join()
            .map_err(|_| anyhow::anyhow!("the receiver panicked"))?;
        acted.map(|()| (sent, arrived))
    })
}

#[test]
fn a_change_of_ways_loses_no_more_than_is_under_way() -> Result<()> {
    let guard = behind_two_cables("tuploss")?;
    hops_are(&guard, 2)?;
    let (sent, arrived) = meanwhile(&guard, || ip(&guard, 2, "link set eth2 down"))?;
    // How soon the kernel tells, and how fast this machine is, decide.
    println!("a pulled cable: {} of {sent} lost", sent - arrived);
    hops_are(&guard, 0)?;
    for (what, node, commands) in [
        ("its return", 2, "link set eth2 up"),
        (
            "a next hop less",
            1,
            "route replace 10.255.0.2/32 via 192.168.56.12",
        ),
        (
            "the other one",
            1,
            "route replace 10.255.0.2/32 via 172.30.0.2",
        ),
    ] {
        let (sent, arrived) = meanwhile(&guard, || ip(&guard, node, commands))?;
        println!("{what}: {} of {sent} lost", sent - arrived);
        assert_eq!(sent, arrived, "{what}");
    }
    Ok(guard.down()?)
}

/// Bits per second of several TCP streams between the containers.
fn throughput(guard: &Guard) -> Result<f64> {
    let nodes = &guard.topology().nodes;
    let (from, to) = (&nodes[0].containers[0], &nodes[1].containers[0]);
    let _server = Running::inside(&to.namespace, "iperf3 -s -1")?;
    let client = format!(
        "ip netns exec {} iperf3 -c {} -P 16 -t 4 -O 1 -J",
        from.namespace, to.address
    );
    let mut told = None;
    let done = poll::until_well(|| match run::json(client.clone()) {
        Ok(found) => {
            told = found["end"]["sum_received"]["bits_per_second"].as_f64();
            told.is_none().then(|| found["error"].to_string())
        }
        // It does not listen yet.
        Err(error) => Some(error.to_string()),
    });
    assert_eq!(done, Ok(()));
    told.context("iperf3 counted nothing")
}

#[test]
fn two_cables_carry_more_than_one() -> Result<()> {
    let guard = behind_two_cables("tupwide")?;
    for node in &guard.topology().nodes {
        for device in ["eth1", "eth2"] {
            let shape = "root tbf rate 40mbit burst 64kb latency 50ms";
            run::checked(format!(
                "ip netns exec {} tc qdisc add dev {device} {shape}",
                node.namespace
            ))?;
        }
    }
    hops_are(&guard, 2)?;
    flows_fast(&guard, "two shaped cables")?;
    let two = throughput(&guard)?;
    for node in [1, 2] {
        let other = 3 - node;
        let one = format!("route replace 10.255.0.{other}/32 via 192.168.56.1{other}");
        ip(&guard, node, &one)?;
    }
    hops_are(&guard, 0)?;
    flows_fast(&guard, "one shaped cable")?;
    let one = throughput(&guard)?;
    println!("{:.1} Mbit/s by two, {:.1} by one", two / 1e6, one / 1e6);
    // What the shapers let pass is what is measured, not this machine.
    assert!(two >= 1.7 * one, "{two} by two, {one} by one");
    Ok(guard.down()?)
}
