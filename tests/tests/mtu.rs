//! What fits, what is said of what does not, and what happens when less fits than before.

use std::{
    io::{Read, Write},
    net::{IpAddr, TcpListener, TcpStream},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use overlay_tests::{
    agent::Agent,
    check::path_mtu,
    families::{Families, Family},
    guard::Guard,
    netns, poll, run,
    script::inside,
    shape::{Scenario, Shape},
    topology::{Topology, UNDERLAY},
    traffic::Pair,
};

/// Bytes before `ping`'s data: IP and ICMP.
fn ping_headers(family: Family) -> u16 {
    family.header() + 8
}

fn raise(name: &str, over: Families) -> Result<Guard> {
    let shape = Shape::of(name, Scenario::Overlay, 2, 1)?;
    Ok(Guard::up(shape.speaking(over, Families::Both)?)?)
}

/// A ping of a whole packet's size that must not be fragmented; what is said.
fn ping(from: &str, to: IpAddr, size: u16) -> Result<run::Output> {
    let data = size - ping_headers(Family::of(to));
    let line = format!("ping -n -c 1 -W 5 -M do -s {data} {to}");
    Ok(run::output(inside(from, line))?)
}

fn mtu_of(namespace: &str, device: &str) -> Result<u16> {
    let line = format!("ip -n {namespace} -json link show dev {device}");
    let links: serde_json::Value = run::json(line)?;
    let mtu = links[0]["mtu"].as_u64().context("a device has an MTU")?;
    Ok(u16::try_from(mtu)?)
}

/// Lets a container send more than the network carries, so that its node has to say so.
///
/// The agent would put it right, so it ends first; forwarding goes on.
fn ask_for_too_much(guard: &Guard) -> Result<()> {
    for agent in guard.agents() {
        let process = agent.process()?.context("an agent runs")?;
        process.signal(Signal::SIGKILL)?;
        ensure!(process.wait(std::time::Instant::now() + Duration::from_secs(20)));
    }
    for node in &guard.topology().nodes {
        let container = &node.containers[0].namespace;
        let veth = format!("ovl-{container}");
        for line in [
            format!("ip -n {container} link set eth0 mtu 2000"),
            format!("ip -n {} link set {veth} mtu 2000", node.namespace),
        ] {
            run::checked(line)?;
        }
    }
    Ok(())
}

/// The largest packet passes; of a larger one the node says exactly how large it may be.
fn is_told_exactly(name: &str, over: Families, mtu: u16) -> Result<()> {
    let guard = raise(name, over)?;
    let [here, there] = guard.topology().two_nodes();
    let (from, to) = (&here.containers[0], &there.containers[0]);
    assert_eq!(mtu_of(&from.namespace, "eth0")?, mtu);
    for on in [true, false] {
        guard.fastpath(on)?;
        for family in [Family::V4, Family::V6] {
            let fits = ping(&from.namespace, to.at(family), mtu)?;
            assert!(fits.success, "{}{}", fits.stdout, fits.stderr);
        }
    }
    guard
        .agents()
        .iter()
        .try_for_each(|agent| agent.fastpath(true))?;
    ask_for_too_much(&guard)?;
    for family in [Family::V4, Family::V6] {
        let fits = ping(&from.namespace, to.at(family), mtu)?;
        assert!(fits.success, "{}{}", fits.stdout, fits.stderr);
        let too_big = ping(&from.namespace, to.at(family), mtu + 1)?;
        let said = too_big.stdout + &too_big.stderr;
        let gateway = here.gateway_at(family).context("a gateway")?;
        assert!(
            !too_big.success && said.contains(&gateway.to_string()),
            "{gateway} did not say it: {said}"
        );
        assert_eq!(path_mtu(&from.namespace, to.at(family))?, mtu);
        // A stream learns it from the same message, GSO packets and all.
        let pair = Pair::between(from, to, family);
        pair.tcp(&[1 << 20])?;
    }
    Ok(guard.down()?)
}

#[test]
fn over_ipv4_50_bytes_less_fit() -> Result<()> {
    is_told_exactly("tmtu4", Families::V4, 1450)
}

#[test]
fn over_ipv6_70_bytes_less_fit() -> Result<()> {
    is_told_exactly("tmtu6", Families::V6, 1430)
}

#[test]
fn one_peer_over_ipv6_takes_it_from_all() -> Result<()> {
    let shape = Shape::of("tmtumix", Scenario::Overlay, 3, 1)?;
    let guard = Guard::up(shape.speaking(Families::Both, Families::V4)?)?;
    for (node, mtu) in guard.topology().nodes.iter().zip([1430, 1450, 1430]) {
        assert_eq!(mtu_of(&node.containers[0].namespace, "eth0")?, mtu);
    }
    Ok(guard.down()?)
}

fn set_underlay(topology: &Topology, mtu: u16) -> Result<()> {
    for node in &topology.nodes {
        let line = format!("ip -n {} link set {UNDERLAY} mtu {mtu}", node.namespace);
        run::checked(line)?;
    }
    Ok(())
}

/// Waits until devices, containers and plans have followed.
fn has_followed(guard: &Guard, mtu: u16) -> Result<()> {
    let followed = |agent: &Agent, container: &str| -> Result<Option<String>> {
        let seen = mtu_of(container, "eth0")?;
        let plan = agent.plan()?;
        Ok((seen != mtu || !plan.is_empty())
            .then(|| format!("{container} has MTU {seen}, to be done: {plan:?}")))
    };
    for (agent, node) in guard.agents().iter().zip(&guard.topology().nodes) {
        let container = &node.containers[0].namespace;
        let done = poll::until_well(|| {
            followed(agent, container).unwrap_or_else(|error| Some(error.to_string()))
        });
        assert_eq!(done, Ok(()), "{}", agent.log()?);
    }
    Ok(())
}

/// A stream that writes until it is told to stop, and how far it has come.
fn recovers(name: &str, over: Families, overhead: u16) -> Result<()> {
    /// How much a stream must carry to be called alive: more than all buffers hold.
    const ALIVE: u64 = 64 << 20;
    let guard = raise(name, over)?;
    let nodes = &guard.topology().nodes;
    let (from, to) = (&nodes[0].containers[0], &nodes[1].containers[0]);
    let listener = netns::inside(&to.namespace, || TcpListener::bind((to.address, 0)))??;
    let port = listener.local_addr()?.port();
    let connect = || TcpStream::connect((to.address, port));
    let mut out = netns::inside(&from.namespace, connect)??;
    let (mut incoming, _) = listener.accept()?;

    let received = AtomicU64::new(0);
    let grows = || {
        let goal = received.load(Ordering::Relaxed) + ALIVE;
        poll::until_well(|| {
            let now = received.load(Ordering::Relaxed);
            (now < goal).then(|| format!("{now} of {goal} bytes"))
        })
    };
    let ways = thread::scope(|scope| {
        scope.spawn(|| {
            let block = vec![0x5a; 1 << 16];
            // Ends with the error that the shutdown below brings.
            while out.write_all(&block).is_ok() {}
        });
        let reader = incoming.try_clone()?;
        scope.spawn(|| {
            let mut buffer = vec![0; 1 << 16];
            while let Ok(length @ 1..) = incoming.read(&mut buffer) {
                received.fetch_add(length as u64, Ordering::Relaxed);
            }
        });
        let before = grows();
        let shrunk = set_underlay(guard.topology(), 1400);
        let after = grows();
        let followed = shrunk.and_then(|()| has_followed(&guard, 1400 - overhead));
        let later = grows();
        let restored = set_underlay(guard.topology(), 1500);
        let back = followed
            .and(restored)
            .and_then(|()| has_followed(&guard, 1500 - overhead));
        let last = grows();
        reader.shutdown(std::net::Shutdown::Both)?;
        back.map(|()| [before, after, later, last])
    })?;
    assert_eq!(ways, [const { Ok(()) }; 4]);
    Ok(guard.down()?)
}

#[test]
fn a_stream_over_ipv4_survives_a_smaller_underlay() -> Result<()> {
    recovers("tshrink4", Families::V4, 50)
}

#[test]
fn a_stream_over_ipv6_survives_a_smaller_underlay() -> Result<()> {
    recovers("tshrink6", Families::V6, 70)
}
