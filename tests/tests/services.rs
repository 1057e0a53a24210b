//! Rules that translate or follow connections hold beside the fast path, which leaves what they
//! are about to the kernel, and comes back when they go.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use overlay_tests::{
    agent::Agent,
    counters,
    families::{Families, Family},
    guard::Guard,
    netns, poll, run,
    shape::{Scenario, Shape},
    traffic::Pair,
};

/// Long enough for a loaded machine; a datagram that is lost is not sent again.
const PATIENCE: Duration = Duration::from_secs(5);
/// Addresses that no node has: of services with a backend elsewhere, and with one on this node.
const REMOTE: [&str; 2] = ["10.96.0.1", "fd96::1"];
const LOCAL: [&str; 2] = ["10.96.0.2", "fd96::2"];

fn nft(namespace: &str, commands: &str) -> Result<()> {
    let enter = format!("--net=/run/netns/{namespace}");
    let argv = ["nsenter", &enter, "nft", commands].map(str::to_owned);
    run::checked(&argv)?;
    Ok(())
}

/// Waits until the agent has seen that rules follow connections, or that none do any more.
fn until_followed(agent: &Agent, followed: bool) -> Result<()> {
    let seen = poll::until_well(|| match agent.json(&["status"]) {
        Ok(status) if status["networks"][0]["followed"].is_string() == followed => None,
        other => Some(format!("{other:?}")),
    });
    assert_eq!(seen, Ok(()), "followed: {followed}\n{}", agent.log()?);
    assert_eq!(agent.plan()?, Vec::<serde_json::Value>::new());
    Ok(())
}

fn passed(agent: &str) -> Result<u64> {
    let reasons = counters::reasons(agent, "PASSES")?;
    let of = reasons.iter().filter(|(name, _)| name == "tracked");
    Ok(of.map(|(_, packets)| packets).sum())
}

/// A word there and back over TCP and UDP, to a server that is asked at another address.
fn asks(client: &str, at: IpAddr, server: &str, backend: IpAddr) -> Result<()> {
    let listener = netns::inside(server, || TcpListener::bind((backend, 0)))??;
    let socket = netns::inside(server, || UdpSocket::bind((backend, 0)))??;
    socket.set_read_timeout(Some(PATIENCE))?;
    let tcp = SocketAddr::new(at, listener.local_addr()?.port());
    let udp = SocketAddr::new(at, socket.local_addr()?.port());
    let answers = thread::spawn(move || -> Result<()> {
        let mut word = [0; 4];
        let (length, from) = socket.recv_from(&mut word)?;
        socket.send_to(&word[..length], from)?;
        let (mut stream, _) = listener.accept()?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.read_exact(&mut word)?;
        stream.write_all(&word)?;
        Ok(())
    });
    let any: IpAddr = match at {
        IpAddr::V4(_) => [0; 4].into(),
        IpAddr::V6(_) => [0; 16].into(),
    };
    let mut word = [0; 4];
    let asking = netns::inside(client, || UdpSocket::bind((any, 0)))??;
    asking.set_read_timeout(Some(PATIENCE))?;
    asking.connect(udp)?;
    asking.send(b"word")?;
    asking
        .recv(&mut word)
        .with_context(|| format!("UDP {udp}"))?;
    assert_eq!(&word, b"word");
    let mut stream = netns::inside(client, || TcpStream::connect_timeout(&tcp, PATIENCE))?
        .with_context(|| format!("TCP {tcp}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"word")?;
    stream
        .read_exact(&mut word)
        .with_context(|| format!("TCP {tcp}"))?;
    assert_eq!(&word, b"word");
    let answered = answers.join();
    answered.map_err(|_| anyhow::anyhow!("the server has panicked"))?
}

/// Whether what a bridge forwards passes the packet filter, as translations between neighbours
/// need it.
fn bridges_filter(namespace: &str) -> Result<bool> {
    let setting = "/proc/sys/net/bridge/bridge-nf-call-iptables";
    let read = netns::inside(namespace, || fs::read_to_string(setting))?;
    Ok(read.is_ok_and(|text| text.trim() == "1"))
}

fn services(name: &str, rx: Option<&'static str>) -> Result<()> {
    let shape = Shape::usual(name, Scenario::Overlay)?;
    let shape = shape.speaking(Families::V4, Families::Both)?;
    let guard = Guard::configured(shape, |_, config| {
        config.node.rx = rx;
        config.node.guard = rx.map(|_| "native");
    })?;
    let nodes = &guard.topology().nodes;
    let node = &nodes[0].namespace;
    let (client, near, far) = (
        &nodes[0].containers[0],
        &nodes[0].containers[1],
        &nodes[1].containers[0],
    );
    let agent = guard.agent(1);
    let plain = Pair {
        client: &client.namespace,
        server: &far.namespace,
        address: far.address.into(),
    };
    plain.udp(&[100])?;
    assert_eq!(
        passed(node)?,
        0,
        "nothing is left to the kernel without rules"
    );
    let mut rules =
        "table inet svc { chain pre { type nat hook prerouting priority dstnat;".to_owned();
    for (index, family) in [Family::V4, Family::V6].into_iter().enumerate() {
        let ip = ["ip", "ip6"][index];
        for (service, backend) in [(REMOTE[index], far), (LOCAL[index], near)] {
            let to = backend.at(family);
            rules.extend([
                "\n",
                ip,
                " daddr ",
                service,
                " dnat ",
                ip,
                " to ",
                &to.to_string(),
            ]);
        }
    }
    nft(node, &format!("{rules}\n}}\n}}"))?;
    until_followed(&agent, true)?;
    for (index, family) in [Family::V4, Family::V6].into_iter().enumerate() {
        let from = &client.namespace;
        asks(from, REMOTE[index].parse()?, &far.namespace, far.at(family))?;
        if bridges_filter(node)? {
            asks(
                from,
                LOCAL[index].parse()?,
                &near.namespace,
                near.at(family),
            )?;
        }
        // Without a translation, and what the node itself sends.
        asks(from, far.at(family), &far.namespace, far.at(family))?;
        asks(from, near.at(family), &near.namespace, near.at(family))?;
        asks(node, far.at(family), &far.namespace, far.at(family))?;
    }
    assert_ne!(passed(node)?, 0, "the reason is counted");
    nft(node, "delete table inet svc")?;
    until_followed(&agent, false)?;
    let before = (passed(node)?, counters::carried(node)?);
    plain.udp(&[100, 1000])?;
    plain.tcp(&[1 << 20])?;
    assert_eq!(passed(node)?, before.0, "the fast path is back");
    assert_ne!(counters::carried(node)?, before.1);
    Ok(guard.down()?)
}

#[test]
fn services_answer_beside_the_fast_path() -> Result<()> {
    services("tsvc", None)
}

#[test]
fn services_answer_beside_the_fast_path_with_xdp() -> Result<()> {
    services("tsvcx", Some("xdp"))
}

/// The answer of 4,000 bytes comes in fragments, which go by the kernel: it has to know the question.
#[test]
fn a_policy_that_accepts_answers_gets_large_ones() -> Result<()> {
    let shape = Shape::usual("tstate", Scenario::Overlay)?;
    let guard = Guard::configured(shape, |_, _| {})?;
    let nodes = &guard.topology().nodes;
    let (node, far) = (&nodes[0].namespace, &nodes[1].containers[0]);
    let agent = guard.agent(1);
    nft(
        node,
        "table inet st { chain forward { type filter hook forward priority 0; policy drop;
            ct state established,related accept
            ct state invalid drop
            iifname ovlbr1 accept
            }
            }",
    )?;
    until_followed(&agent, true)?;
    let pair = Pair {
        client: &nodes[0].containers[0].namespace,
        server: &far.namespace,
        address: far.address.into(),
    };
    pair.udp(&[500, 4000])?;
    pair.tcp(&[1 << 20])?;
    nft(node, "delete table inet st")?;
    until_followed(&agent, false)?;
    Ok(guard.down()?)
}

/// One lost datagram ends the exchange, and the test.
#[test]
fn nothing_is_lost_when_flows_change_their_path() -> Result<()> {
    let shape = Shape::usual("tflip", Scenario::Overlay)?;
    let guard = Guard::configured(shape, |_, _| {})?;
    let nodes = &guard.topology().nodes;
    let (node, far) = (nodes[0].namespace.clone(), &nodes[1].containers[0]);
    let agent = guard.agent(1);
    let (client, server) = (
        nodes[0].containers[0].namespace.clone(),
        far.namespace.clone(),
    );
    let address: IpAddr = far.address.into();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let traffic = thread::spawn(move || -> Result<u64> {
        let pair = Pair {
            client: &client,
            server: &server,
            address,
        };
        let mut rounds = 0;
        while matches!(
            stopped.try_recv(),
            Err(std::sync::mpsc::TryRecvError::Empty)
        ) {
            pair.udp(&[100; 200])?;
            rounds += 1;
        }
        Ok(rounds)
    });
    for _ in 0..4 {
        nft(
            &node,
            &format!(
                "table ip svc {{ chain pre {{ type nat hook prerouting priority dstnat; ip daddr 10.96.0.1 dnat to {address}; }}; }}"
            ),
        )?;
        until_followed(&agent, true)?;
        nft(&node, "delete table ip svc")?;
        until_followed(&agent, false)?;
    }
    drop(stop);
    let rounds = traffic.join();
    let rounds = rounds.map_err(|_| anyhow::anyhow!("the traffic has panicked"))??;
    assert_ne!(rounds, 0);
    assert_ne!(passed(&node)?, 0, "some of it went by the kernel");
    Ok(guard.down()?)
}
