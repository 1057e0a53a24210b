//! Streams that were fast and come back to the kernel's path go on there.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use overlay_tests::{
    agent::Agent,
    families::{Families, Family},
    guard::Guard,
    netns, poll, run,
    shape::{Scenario, Shape},
    topology::Container,
};
use serde_json::Value;

use crate::nft;

/// Long enough for what stands still to be seen.
const PATIENCE: Duration = Duration::from_mins(1);
/// What a stream has to carry before it counts as going on, in bytes: more than finds room in
/// sockets.
const ENOUGH: u64 = 8 << 20;
/// What is written at a time, in bytes: a prime number, so that nothing is where it was before.
const PIECE: usize = 65_521;
/// From one piece to the next: others are to have their turn on a small machine.
const REST: Duration = Duration::from_micros(500);
/// How often the path changes, there and back.
const TIMES: usize = 6;

/// Bytes that flow one way over one connection.
pub(crate) struct Stream {
    what: String,
    arrived: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
    ends: [JoinHandle<Result<()>>; 2],
}

impl Stream {
    /// The client asks the server; it gets what flows, or sends it.
    fn begin(client: &Container, server: &Container, family: Family, gets: bool) -> Result<Self> {
        Self::by(client, (server.at(family), 0), server, family, gets)
    }

    /// The same, where the client asks an address that stands for the server's, at a port of both; with
    /// 0, at any.
    pub(crate) fn by(
        client: &Container,
        (address, port): (IpAddr, u16),
        server: &Container,
        family: Family,
        gets: bool,
    ) -> Result<Self> {
        let what = format!("{} → {address}, gets: {gets}", client.namespace);
        let own = server.at(family);
        let listener = netns::inside(&server.namespace, || TcpListener::bind((own, port)))??;
        let at = (address, listener.local_addr()?.port()).into();
        let connect = || TcpStream::connect_timeout(&at, PATIENCE);
        let asking = netns::inside(&client.namespace, connect)?.with_context(|| what.clone())?;
        let (answering, _) = listener.accept()?;
        let (mut reader, mut writer) = if gets {
            (asking, answering)
        } else {
            (answering, asking)
        };
        reader.set_read_timeout(Some(PATIENCE))?;
        writer.set_write_timeout(Some(PATIENCE))?;
        let arrived = Arc::new(AtomicU64::new(0));
        let is_over = Arc::new(AtomicBool::new(false));
        let (seen, stopped) = (Arc::clone(&arrived), Arc::clone(&is_over));
        let piece = || (0..=250).cycle().take(PIECE).collect::<Vec<u8>>();
        let sent = piece();
        let writing = thread::spawn(move || -> Result<()> {
            while !stopped.load(Ordering::Relaxed) {
                writer.write_all(&sent)?;
                thread::sleep(REST);
            }
            Ok(())
        });
        let expected = piece();
        let reading = thread::spawn(move || -> Result<()> {
            let mut buffer = vec![0; PIECE];
            let mut place = 0;
            loop {
                let length = reader.read(&mut buffer)?;
                if length == 0 {
                    return Ok(());
                }
                for byte in &buffer[..length] {
                    ensure!(*byte == expected[place], "another byte than was sent");
                    place = (place + 1) % PIECE;
                }
                seen.fetch_add(length as u64, Ordering::Relaxed);
            }
        });
        Ok(Self {
            what,
            arrived,
            is_over,
            ends: [writing, reading],
        })
    }

    fn arrived(&self) -> u64 {
        self.arrived.load(Ordering::Relaxed)
    }

    pub(crate) fn end(self) -> Result<()> {
        self.is_over.store(true, Ordering::Relaxed);
        for end in self.ends {
            let joined = end.join().ok().context("a stream has panicked")?;
            joined.with_context(|| self.what.clone())?;
        }
        Ok(())
    }
}

/// Asserts that none stands still.
pub(crate) fn all_go_on(streams: &[Stream], when: &str) -> Result<()> {
    let before: Vec<u64> = streams.iter().map(Stream::arrived).collect();
    for (stream, before) in streams.iter().zip(before) {
        poll::until_well(|| {
            let since = stream.arrived() - before;
            (since < ENOUGH).then(|| format!("{}: {since} bytes {when}", stream.what))
        })
        .map_err(anyhow::Error::msg)?;
    }
    Ok(())
}

/// Waits until `status` says of the network what it is left to the kernel for, or nothing.
fn until_left(agent: &Agent, list: &str, left: bool) -> Result<()> {
    let is_left = |status: &Value| {
        let told = &status["networks"][0][list];
        // Where only what is invalid is dropped, it is fast.
        let whole = |text: &str| text.starts_with("left to the kernel");
        told.as_str().is_some_and(whole) || told.as_array().is_some_and(|all| !all.is_empty())
    };
    poll::until_well(|| match agent.json(&["status"]) {
        Ok(status) if is_left(&status) == left => None,
        other => Some(format!("{list} {left}: {other:?}")),
    })
    .map_err(anyhow::Error::msg)?;
    Ok(agent.until_done()?)
}

/// Packets that a rule of a table has counted.
fn counted(node: &str, table: &str) -> Result<u64> {
    let list = format!("nsenter --net=/run/netns/{node} nft --json list table inet {table}");
    let listed: Value = run::json(list)?;
    let objects = listed["nftables"].as_array().into_iter().flatten();
    let statements = objects.filter_map(|object| object["rule"]["expr"].as_array());
    let counters = statements
        .flatten()
        .filter_map(|one| one["counter"]["packets"].as_u64());
    Ok(counters.sum())
}

fn changing(node: &str, rules: Option<&str>) -> Result<()> {
    match rules {
        Some(rules) => {
            let chain = "type filter hook forward priority filter";
            nft(
                node,
                &format!("table inet changing {{ chain c {{ {chain}; {rules}; }}; }}"),
            )
        }
        None => nft(node, "delete table inet changing"),
    }
}

/// By which what the network exchanges is the kernel's, and nothing of it is dropped.
const FOLLOWED: &str = "ct state established accept; udp dport 9 drop";
const HOOKED: &str = "iifname ovlbr1 sctp dport 9 drop";
/// Gives each connection a mark when it begins, and drops what belongs to none that has it.
const MARKS: &str = "ct state new ct mark set 7";
const UNMARKED: &str = "meta l4proto tcp ct mark != 7 counter drop";

#[test]
fn streams_that_come_back_are_not_taken_for_invalid() -> Result<()> {
    let shape = Shape::usual("tsvcr", Scenario::Overlay)?;
    let guard = Guard::up(shape.speaking(Families::V4, Families::Both)?)?;
    let [node, other] = guard.topology().two_nodes();
    let agent = guard.agent(1);
    let (near, far) = (&node.containers[0], &other.containers[0]);
    let node = &node.namespace;
    nft(
        node,
        "table inet keeper { chain c { type filter hook forward priority filter + 10; \
         ct state invalid counter drop; }; }",
    )?;
    // Connection tracking sees how they begin, and remembers their windows.
    changing(node, Some(&format!("{MARKS}; {FOLLOWED}")))?;
    until_left(&agent, "followed", true)?;
    let streams = [
        Stream::begin(near, far, Family::V4, false)?,
        Stream::begin(near, far, Family::V6, true)?,
        Stream::begin(far, near, Family::V4, true)?,
    ];
    all_go_on(&streams, "at first")?;
    for time in 0..TIMES {
        changing(node, None)?;
        until_left(&agent, "followed", false)?;
        all_go_on(&streams, &format!("while they are fast, {time}"))?;
        let (rules, list) = [(FOLLOWED, "followed"), (HOOKED, "hooks")][time % 2];
        changing(node, Some(rules))?;
        until_left(&agent, list, true)?;
        all_go_on(&streams, &format!("beside \"{rules}\", {time}"))?;
        changing(node, None)?;
        until_left(&agent, list, false)?;
        all_go_on(&streams, &format!("while they are fast again, {time}"))?;
        agent.fastpath(false)?;
        all_go_on(&streams, &format!("without the programs, {time}"))?;
        changing(node, Some(FOLLOWED))?;
        agent.fastpath(true)?;
        until_left(&agent, "followed", true)?;
    }
    // What comes while no agent runs is heeded by the next one.
    changing(node, None)?;
    until_left(&agent, "followed", false)?;
    agent.kill()?;
    changing(node, Some(FOLLOWED))?;
    all_go_on(&streams, "while no agent runs")?;
    agent.start()?;
    until_left(&agent, "followed", true)?;
    all_go_on(&streams, "behind the next agent's start")?;
    // What a firewall has noted of them is there still.
    changing(node, None)?;
    until_left(&agent, "followed", false)?;
    changing(node, Some(UNMARKED))?;
    until_left(&agent, "hooks", true)?;
    all_go_on(&streams, "beside a rule that asks for their marks")?;
    assert_eq!(counted(node, "changing")?, 0, "packets without a mark");
    assert_eq!(counted(node, "keeper")?, 0, "packets taken for invalid");
    for stream in streams {
        stream.end()?;
    }
    Ok(guard.down()?)
}

/// Its answers must not get to the client as they are, not even at first.
#[test]
fn a_translated_stream_goes_on_where_others_become_fast() -> Result<()> {
    let shape = Shape::usual("tsvct", Scenario::Overlay)?;
    let guard = Guard::configured(shape, |_, _| {})?;
    let nodes = &guard.topology().nodes;
    let (near, far) = (&nodes[0].containers[0], &nodes[1].containers[0]);
    let (agent, node) = (guard.agent(1), &nodes[0].namespace);
    let (service, backend) = ("10.96.0.9", far.address);
    nft(
        node,
        &format!(
            "table ip services {{ chain c {{ type nat hook prerouting priority dstnat; \
             ip daddr {service} dnat to {backend}; }}; }}"
        ),
    )?;
    changing(node, Some(FOLLOWED))?;
    until_left(&agent, "followed", true)?;
    let streams = [
        Stream::by(near, (service.parse()?, 0), far, Family::V4, true)?,
        Stream::begin(near, far, Family::V4, true)?,
    ];
    for time in 0..TIMES {
        all_go_on(&streams, &format!("beside the rules, {time}"))?;
        changing(node, None)?;
        until_left(&agent, "followed", false)?;
        all_go_on(&streams, &format!("without them, {time}"))?;
        agent.fastpath(false)?;
        all_go_on(&streams, &format!("without the programs, {time}"))?;
        agent.fastpath(true)?;
        all_go_on(&streams, &format!("with them again, {time}"))?;
        changing(node, Some(FOLLOWED))?;
        until_left(&agent, "followed", true)?;
    }
    for stream in streams {
        stream.end()?;
    }
    Ok(guard.down()?)
}
