//! Every packet is accounted for: what the programs count adds up, over a million packets of all
//! fates, and goes on when the agent and the endpoints come and go.

#![expect(
    clippy::expect_used,
    reason = "what fails in a helper fails the test that called it"
)]

mod echo;
mod ledger;
mod odd;

use std::{fs, thread, time::Instant};

use anyhow::{Context as _, Result};
use aya::{
    maps::MapInfo,
    sys::{Stats, enable_stats},
};
use overlay_common::{
    maps::{FIRST_ENDPOINT_SLOT, FORMER_SLOT, LOCAL_INDEX, PEER_STATS, SenderKind},
    programs::Program,
    reasons::DropReason,
};
use overlay_tests::{
    agent::Agent,
    check::{self, Answer},
    config::Peer,
    counters,
    guard::Guard,
    netns::Temporary,
    poll,
    raw::Socket,
    shape::{Scenario, Shape},
    topology::UNDERLAY,
};

use crate::{
    echo::{FRAME, exchange},
    ledger::{Ledger, Sum},
    odd::{EACH, Fate, Odd},
};

/// Datagrams there and back, and on one node.
const FAR: u32 = 240_000;
const NEAR: u32 = 40_000;

/// The slot that peers and endpoints have in an agent's maps, by address.
fn slot(agent: &Agent, map: &str, address: [u8; 4], field: &str) -> Result<u32> {
    let rows = counters::dump(&agent.instance, map)?;
    let row = rows
        .iter()
        .find(|row| row["key"]["address"] == serde_json::json!(address));
    let row = row.with_context(|| format!("{address:?} in {map}"))?;
    let slot = row["value"][field].as_u64().context("a slot")?;
    Ok(slot.try_into()?)
}

fn endpoint(agent: &Agent, address: std::net::Ipv4Addr) -> Result<u32> {
    use overlay_common::maps::ENDPOINTS4;
    slot(agent, ENDPOINTS4, address.octets(), "slot")
}

fn peer(agent: &Agent, address: std::net::Ipv4Addr) -> Result<u32> {
    use overlay_common::maps::VTEPS4;
    slot(agent, VTEPS4, address.octets(), "index")
}

fn datagrams(packets: u32) -> Sum {
    let packets = packets.into();
    Sum {
        packets,
        bytes: packets * FRAME,
    }
}

#[test]
fn a_million_packets_add_up() -> Result<()> {
    // The kernel counts the programs' runs for as long as this is open.
    let _counting = enable_stats(Stats::RunTime)?;
    let shape = Shape::of("tsums", Scenario::Overlay, 3, 2)?;
    let guard = Guard::up(shape)?;
    let nodes = &guard.topology().nodes;
    let agents = guard.agents();
    for (from, to) in [(0, 1), (0, 2), (1, 0)] {
        for container in [0, 1] {
            let from = &nodes[from].containers[container].namespace;
            let answer = check::ping(from, nodes[to].containers[container].address)?;
            assert_eq!(answer, Answer::Ttl(62));
        }
    }
    let here = &nodes[0].containers;
    let from_container = odd::of_container(&here[0], &nodes[0], nodes[1].containers[0].address)?;
    let from_peer = odd::of_node(&nodes[2], &nodes[0])?;
    let container = Socket::open(&here[0].namespace, "eth0")?;
    let underlay = Socket::open(&nodes[2].namespace, UNDERLAY)?;
    let ledgers = || agents.iter().map(Ledger::of).collect::<Result<Vec<_>>>();
    let before = ledgers()?;

    let began = Instant::now();
    thread::scope(|scope| -> Result<()> {
        let work: [Box<dyn FnOnce() -> Result<()> + Send + '_>; 5] = [
            Box::new(|| exchange(&here[0], &nodes[1].containers[0], FAR)),
            Box::new(|| exchange(&nodes[2].containers[1], &here[1], FAR)),
            Box::new(|| exchange(&here[0], &here[1], NEAR)),
            Box::new(|| odd::send(&container, &from_container)),
            Box::new(|| odd::send(&underlay, &from_peer)),
        ];
        let work = work.map(|work| scope.spawn(work));
        work.into_iter()
            .try_for_each(|work| work.join().expect("a thread's panic"))
    })?;
    println!("sent in {:.1} s", began.elapsed().as_secs_f64());
    let after = ledgers()?;
    let mut packets = 0;
    let counted: Vec<Ledger> = after
        .iter()
        .zip(&before)
        .map(|(after, before)| after.since(before))
        .collect();
    for (agent, now) in agents.iter().zip(&counted) {
        now.programs_must_add_up(&agent.instance);
        now.sums_must_hold(&agent.instance);
        packets += now.packets();
    }
    println!("{packets} runs of programs");
    let sent = 4 * u64::from(FAR) + 2 * u64::from(NEAR);
    assert!(sent > 1_000_000 && packets > sent, "{packets} of {sent}");

    let (first, now) = (&agents[0], &counted[0]);
    let (near, far) = (
        endpoint(first, here[0].address)?,
        endpoint(first, here[1].address)?,
    );
    let (second, third) = (
        peer(first, nodes[1].underlay)?,
        peer(first, nodes[2].underlay)?,
    );
    for (endpoint, peer) in [(near, second), (far, third)] {
        for direction in ["tx", "rx"] {
            assert_eq!(now.endpoint(endpoint, direction), datagrams(FAR));
            assert_eq!(now.peer(peer, direction), datagrams(FAR));
        }
        for direction in ["tx_local", "rx_local"] {
            assert_eq!(now.endpoint(endpoint, direction), datagrams(NEAR));
        }
    }
    assert_eq!(now.peer(LOCAL_INDEX, "tx"), datagrams(2 * NEAR));
    for ((agent, now), node) in agents.iter().zip(&counted).zip(nodes).skip(1) {
        let container = &node.containers[usize::from(node.number) - 2];
        let slot = endpoint(agent, container.address)?;
        let peer = peer(agent, nodes[0].underlay)?;
        for direction in ["tx", "rx"] {
            assert_eq!(now.endpoint(slot, direction), datagrams(FAR));
            assert_eq!(now.peer(peer, direction), datagrams(FAR));
        }
    }
    let mine = (SenderKind::Endpoint, near);
    odd_ones_add_up(now, &from_container, Program::FromEndpoint, Some(mine));
    odd_ones_add_up(
        now,
        &from_peer,
        Program::FromUnderlay,
        Some((SenderKind::Peer, third)),
    );
    Ok(guard.down()?)
}

/// Each kind was counted under its reason and its sender, with its bytes.
fn odd_ones_add_up(
    now: &Ledger,
    kinds: &[Odd],
    program: Program,
    sender: Option<(SenderKind, u32)>,
) {
    let sent_as = |wanted: fn(Fate) -> Option<u32>, reason: u32| {
        let kinds = kinds.iter().filter(|odd| wanted(odd.fate) == Some(reason));
        kinds.fold(Sum::default(), |sum, odd| Sum {
            packets: sum.packets + EACH,
            bytes: sum.bytes + EACH * odd.frame.len() as u64,
        })
    };
    let drop_of = |fate| match fate {
        Fate::Dropped(reason) => Some(reason as u32),
        Fate::Passed(_) => None,
    };
    let pass_of = |fate| match fate {
        Fate::Dropped(_) => None,
        Fate::Passed(reason) => Some(reason as u32),
    };
    for odd in kinds {
        match odd.fate {
            Fate::Dropped(reason) => {
                let sent = sent_as(drop_of, reason as u32);
                assert_eq!(now.dropped(reason), sent, "{}", reason.name());
                if reason != DropReason::UnknownVtep {
                    let (kind, slot) = sender.expect("a sender");
                    assert_eq!(
                        now.dropped_of(kind, slot, reason),
                        sent,
                        "{}",
                        reason.name()
                    );
                }
            }
            Fate::Passed(reason) => {
                let sent = sent_as(pass_of, reason as u32);
                assert_eq!(now.passed(program, reason), sent, "{}", reason.name());
            }
        }
    }
}

/// A container that comes to a node, and sends something to another one.
fn visit(agent: &Agent, name: &str, to: std::net::Ipv4Addr) -> Result<Temporary> {
    let namespace = Temporary::make(&format!("tslots-{name}"))?;
    let netns = format!("tslots-{name}");
    agent.attach(name, &netns)?;
    agent.until_done()?;
    assert_eq!(check::ping(&netns, to)?, Answer::Ttl(62));
    Ok(namespace)
}

#[test]
fn counters_go_on_and_start_anew_for_who_is_new() -> Result<()> {
    let guard = Guard::overlay("tslots")?;
    let nodes = &guard.topology().nodes;
    let agent = guard.agent(1);
    let there = nodes[1].containers[0].address;
    let here = &nodes[0].containers[0];
    assert_eq!(check::ping(&here.namespace, there)?, Answer::Ttl(62));
    let _first = visit(&agent, "first", there)?;
    let before = Ledger::of(&agent)?;
    let permanent = endpoint(&agent, here.address)?;
    assert!(before.endpoint(permanent, "tx").packets > 0);
    let used = before.used_slots();
    let theirs = *used.last().context("a slot of the first visitor")?;
    assert!(theirs >= FIRST_ENDPOINT_SLOT && theirs != permanent);

    agent.kill()?;
    agent.start()?;
    let restarted = Ledger::of(&agent)?;
    assert_eq!(
        restarted.endpoint(theirs, "tx"),
        before.endpoint(theirs, "tx")
    );
    assert_eq!(endpoint(&agent, here.address)?, permanent);

    agent.tell(&["endpoint", "del", "first"])?;
    let left = Ledger::of(&agent)?;
    let _second = visit(&agent, "second", there)?;
    let now = Ledger::of(&agent)?;
    assert_eq!(now.endpoint(FORMER_SLOT, "tx"), left.endpoint(theirs, "tx"));
    assert!(now.endpoint(theirs, "tx").packets > 0);
    assert!(
        now.of_endpoints("tx").packets > left.of_endpoints("tx").packets,
        "what was counted once is forgotten"
    );
    assert_eq!(
        now.endpoint(permanent, "tx"),
        before.endpoint(permanent, "tx")
    );
    now.sums_must_hold(&agent.instance);
    guard.is_whole(&agent, "endpoints that came and went")?;
    Ok(guard.down()?)
}

/// How many slots the peers' counters have.
fn slots(agent: &Agent) -> Result<u32> {
    let pin = counters::pin(&agent.instance, PEER_STATS)?;
    Ok(MapInfo::from_pin(pin)?.max_entries())
}

#[test]
fn counters_grow_with_the_peers_and_keep_what_they_have() -> Result<()> {
    /// More than there are slots for at first.
    const MORE: u16 = 1500;
    let guard = Guard::overlay("tgrow")?;
    let nodes = &guard.topology().nodes;
    let agent = guard.agent(1);
    let ping = || -> Result<()> {
        let there = nodes[1].containers[0].address;
        let answer = check::ping(&nodes[0].containers[0].namespace, there)?;
        assert_eq!(answer, Answer::Ttl(62));
        Ok(())
    };
    ping()?;
    let second = peer(&agent, nodes[1].underlay)?;
    let (few, before) = (slots(&agent)?, Ledger::of(&agent)?);
    assert!(before.peer(second, "tx").packets > 0);
    assert!(few <= u32::from(MORE));

    let usual = guard.first_config();
    let mut config = usual.clone();
    let peers = (0..MORE).map(|number| {
        let [high, low] = (number << 4).to_be_bytes();
        let [row, column] = number.to_be_bytes();
        Peer {
            name: format!("more{number}"),
            vtep: format!("172.16.{row}.{column}"),
            subnet: vec![format!("10.244.{}.{low}/28", 128 + high)],
            ..Peer::default()
        }
    });
    config.networks[0].peers.extend(peers);
    fs::write(agent.config_file(), config.to_toml())?;
    poll::until(|| slots(&agent), |slots| *slots > u32::from(MORE))?;
    guard.is_whole(&agent, "a larger map of counters")?;
    let now = Ledger::of(&agent)?;
    assert_eq!(peer(&agent, nodes[1].underlay)?, second, "another slot");
    let (then, now) = (before.peer(second, "tx"), now.peer(second, "tx"));
    assert!(now.packets > then.packets, "{now:?}, and {then:?} before");

    // Fewer peers do not make it smaller, and nobody counts anew.
    fs::write(agent.config_file(), usual.to_toml())?;
    guard.is_whole(&agent, "fewer peers")?;
    assert!(slots(&agent)? > u32::from(MORE));
    assert!(Ledger::of(&agent)?.peer(second, "tx").packets > now.packets);
    Ok(guard.down()?)
}
