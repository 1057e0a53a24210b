//! So many translated connections that the programs have no room for each that there ever was: one
//! that is silent all the time is translated as long as connection tracking knows of it.

use std::{
    fs, io,
    net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket},
    ops::Range,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use overlay_common::maps::MAX_FLOWS;
use overlay_tests::{
    agent::Agent,
    counters,
    families::{Families, Family},
    guard::Guard,
    netns, poll,
    shape::{Scenario, Shape},
    topology::Topology,
    traffic::Pair,
};

use crate::{
    cases::{PORT, REMOTE, rules, service},
    forgotten::forget,
    nft,
};

/// Some looks of the agent.
const PATIENCE: Duration = Duration::from_mins(2);
/// More than the agent takes to make a list of what it looks at, whatever that is.
const MEMORY: u64 = 16 << 20;
/// Ports that somebody asks from.
const PORTS: Range<u16> = 10_000..60_000;
/// With two who ask, more than the programs can know of.
const NEARLY_ALL: Range<u16> = 1_024..64_024;

/// The port of the one that is silent.
const OWN_PORT: u16 = 65_000;

/// Two who ask and do not listen.
struct Crowd<'a> {
    node: &'a str,
    clients: [&'a str; 2],
    server: &'a str,
    backend: IpAddr,
}

impl Crowd<'_> {
    /// Each asks twice from each of the ports; who is asked holds what is returned.
    fn asks(&self, from: &Range<u16>, port: u16) -> Result<UdpSocket> {
        let own = (self.backend, port);
        let server = netns::inside(self.server, || UdpSocket::bind(own))??;
        let at = SocketAddr::new(service(REMOTE, Family::V6), port);
        for client in self.clients {
            netns::inside(client, || {
                for port in from.clone() {
                    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port))?;
                    for _ in 0..2 {
                        socket.send_to(b"word", at)?;
                    }
                }
                Ok::<_, io::Error>(())
            })??;
        }
        Ok(server)
    }

    /// `conntrack -D`.
    fn is_forgotten(&self) -> Result<()> {
        forget(self.node, Some(Family::V6))
    }
}

/// Waits until the agent has seen that so many connections are translated.
fn until_known(agent: &Agent, is_right: impl Fn(usize) -> bool) -> Result<()> {
    let known = || -> Result<usize> {
        let stats = agent.json(&["stats"])?;
        let maps = stats["maps"].as_array().context("no maps")?;
        let flows = maps.iter().find(|map| map["map"] == "FLOWS");
        let known = flows.and_then(|flows| flows["entries"].as_u64());
        Ok(known.context("no flows")?.try_into()?)
    };
    let seen = poll::until_well_within(PATIENCE, || match known() {
        Ok(known) if is_right(known) => None,
        other => Some(format!("{other:?}")),
    });
    ensure!(seen == Ok(()), "{seen:?}\n{}", agent.log()?);
    Ok(())
}

/// Waits until the agent says that there are too many, or does not any more.
fn until_full(agent: &Agent, is_full: bool) -> Result<()> {
    let seen = poll::until_well_within(PATIENCE, || {
        let status = match agent.json(&["status"]) {
            Ok(status) => status,
            Err(error) => return Some(error.to_string()),
        };
        let problems = status["problems"].as_array().into_iter().flatten();
        let found = problems
            .filter(|problem| problem["id"] == "flows-full")
            .count();
        let left = status["networks"][0]["followed"].is_string();
        (found != usize::from(is_full) || left != is_full).then(|| status["problems"].to_string())
    });
    ensure!(seen == Ok(()), "{seen:?}\n{}", agent.log()?);
    Ok(())
}

/// What an agent has of the machine's memory.
fn memory(agent: &Agent) -> Result<u64> {
    let process = agent.process()?.context("the agent does not run")?;
    let status = fs::read_to_string(format!("/proc/{}/status", process.pid))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let word = line.and_then(|line| line.split_whitespace().next());
    Ok(word.context("no VmRSS")?.parse::<u64>()? << 10)
}

/// One who has asked, and waits for another answer.
struct Idle {
    client: UdpSocket,
    server: UdpSocket,
    from: SocketAddr,
}

impl Idle {
    fn begin(topology: &Topology) -> Result<Self> {
        let client = &topology.nodes[0].containers[0].namespace;
        let far = &topology.nodes[1].containers[0];
        let own = SocketAddr::new(far.at(Family::V4), PORT);
        let server = netns::inside(&far.namespace, || UdpSocket::bind(own))??;
        let client = netns::inside(client, || UdpSocket::bind(("0.0.0.0", OWN_PORT)))??;
        for socket in [&client, &server] {
            socket.set_read_timeout(Some(Duration::from_secs(10)))?;
        }
        client.connect((service(REMOTE, Family::V4), PORT))?;
        client.send(b"word")?;
        let (_, from) = server.recv_from(&mut [0; 4])?;
        let idle = Self {
            client,
            server,
            from,
        };
        idle.is_answered("at once")?;
        Ok(idle)
    }

    /// Nobody asks again.
    fn is_answered(&self, when: &str) -> Result<()> {
        self.server.send_to(b"late", self.from)?;
        let mut word = [0; 4];
        self.client.recv(&mut word).context(when.to_owned())?;
        assert_eq!(&word, b"late", "{when}");
        Ok(())
    }
}

#[test]
fn an_idle_connection_is_translated_however_many_have_come_since() -> Result<()> {
    let shape = Shape::usual("tsvcn", Scenario::Overlay)?;
    let guard = Guard::up(shape.speaking(Families::V4, Families::Both)?)?;
    let topology = guard.topology();
    let node = &topology.nodes[0];
    let far = &topology.nodes[1].containers[0];
    let agent = guard.agent(1);
    nft(&node.namespace, &rules(topology))?;
    let most = netns::inside(&node.namespace, || {
        // Nobody's time is up before the test is over.
        for setting in ["udp_timeout", "udp_timeout_stream"] {
            let path = format!("/proc/sys/net/netfilter/nf_conntrack_{setting}");
            fs::write(path, "3600")?;
        }
        fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_max")
    })??;
    let most: usize = most.trim().parse()?;
    let crowd = Crowd {
        node: &node.namespace,
        clients: [0, 1].map(|place: usize| node.containers[place].namespace.as_str()),
        server: &far.namespace,
        backend: far.at(Family::V6),
    };
    // It begins while the programs see nothing.
    agent.fastpath(false)?;
    let idle = Idle::begin(topology)?;
    agent.fastpath(true)?;
    until_known(&agent, |known| known > 0)?;
    idle.is_answered("the fast path is on")?;
    let before = memory(&agent)?;
    let batches = if most >= 2 * MAX_FLOWS {
        [PORTS, NEARLY_ALL]
    } else {
        // A machine with little memory tracks fewer.
        [
            PORTS.start..PORTS.start + 25_000,
            PORTS.start..PORTS.start + 25_000,
        ]
    };
    for (from, port) in batches.into_iter().zip(PORT + 1..) {
        let count = 2 * from.len();
        let _held = crowd.asks(&from, port)?;
        until_known(&agent, |known| known > count)?;
        until_full(&agent, from == NEARLY_ALL)?;
        crowd.is_forgotten()?;
        until_known(&agent, |known| known < 100)?;
        until_full(&agent, false)?;
    }
    idle.is_answered("after many")?;
    let now = memory(&agent)?;
    assert!(now <= before + MEMORY, "{before} bytes, then {now}");
    let passed = counters::passed(&node.namespace, "translated")?;
    assert_ne!(passed, 0, "the kernel has carried it");
    let carried = counters::carried(&node.namespace)?;
    let plain = Pair::between(&node.containers[0], far, Family::V4);
    plain.udp(&[100])?;
    assert_ne!(counters::carried(&node.namespace)?, carried);
    agent.kill()?;
    let _held = crowd.asks(&(10_000..25_000), PORT + 3)?;
    idle.is_answered("without an agent")?;
    agent.start()?;
    Ok(guard.down()?)
}
