//! Rules come and go under traffic, by which it changes its path each time: nothing is lost.

use std::{
    sync::mpsc::{self, TryRecvError},
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};
use overlay_tests::{
    counters::{carried, reasons},
    families::{Families, Family},
    guard::Guard,
    poll,
    shape::{Scenario, Shape},
    traffic::Pair,
};

use crate::nft;

/// Each of the kinds of rules comes and goes so often.
const TIMES: usize = 50;
/// For so long each is there, and away.
const WHILE: Duration = Duration::from_millis(60);
/// What one connection carries, in bytes: it lives through several changes.
const LONG: usize = 32 << 20;

const FORWARD: &str = "type filter hook forward priority filter; ";

/// Ends some traffic.
type Ended = Box<dyn FnOnce() -> Result<u64>>;

/// Rules that none of this traffic is dropped or translated by, and that the programs leave it to the
/// kernel for.
fn kinds(far: &str, near: &str) -> [String; 4] {
    [
        format!("{FORWARD} ct state established accept; udp dport 9 drop"),
        format!("{FORWARD} ct state invalid drop; ip daddr {far} tcp dport 9 drop"),
        format!(
            "type nat hook prerouting priority dstnat; ip daddr {far} udp dport 9 dnat ip to {near}"
        ),
        format!("{FORWARD} iifname ovlbr1 sctp dport 9 drop"),
    ]
}

/// What goes on until it is told to end, or until something is lost; how often it has been done.
fn under(traffic: impl Fn() -> Result<()> + Send + 'static) -> impl FnOnce() -> Result<u64> {
    let (stop, stopped) = mpsc::channel::<()>();
    let goes_on = thread::spawn(move || -> Result<u64> {
        let mut rounds = 0;
        while matches!(stopped.try_recv(), Err(TryRecvError::Empty)) {
            traffic()?;
            rounds += 1;
        }
        Ok(rounds)
    });
    move || {
        drop(stop);
        let rounds = goes_on.join();
        rounds.map_err(|_| anyhow::anyhow!("the traffic has panicked"))?
    }
}

#[test]
fn nothing_is_lost_while_rules_come_and_go() -> Result<()> {
    let shape = Shape::usual("tsvch", Scenario::Overlay)?;
    let guard = Guard::up(shape.speaking(Families::V4, Families::Both)?)?;
    let [node, other] = guard.topology().two_nodes();
    let (near, far) = (&node.containers[0], &other.containers[0]);
    // Who drops what it takes for invalid is there all the time, and knows some of each connection.
    nft(
        &node.namespace,
        "table inet keeper { chain c { type filter hook forward priority filter + 10; \
         ct state invalid drop; }; }",
    )?;
    let mut traffic: Vec<(&str, Ended)> = Vec::new();
    for (from, to, family) in [
        (near, far, Family::V4),
        (far, near, Family::V4),
        (near, far, Family::V6),
    ] {
        let (client, server) = (from.namespace.clone(), to.namespace.clone());
        let address = to.at(family);
        let udp = (client.clone(), server.clone());
        let datagrams = move || {
            let pair = Pair {
                client: &udp.0,
                server: &udp.1,
                address,
            };
            Ok(pair.udp(&[100; 200])?)
        };
        traffic.push(("UDP", Box::new(under(datagrams))));
        let stream = move || {
            let pair = Pair {
                client: &client,
                server: &server,
                address,
            };
            Ok(pair.tcp(&[LONG])?)
        };
        traffic.push(("TCP", Box::new(under(stream))));
    }
    for rule in kinds(&far.address.to_string(), &near.address.to_string()) {
        for _ in 0..TIMES {
            nft(
                &node.namespace,
                &format!("table inet changing {{ chain c {{ {rule}; }}; }}"),
            )?;
            thread::sleep(WHILE);
            nft(&node.namespace, "delete table inet changing")?;
            thread::sleep(WHILE);
        }
    }
    for (what, ended) in traffic {
        let rounds = ended();
        ensure!(
            rounds.as_ref().is_ok_and(|rounds| *rounds != 0),
            "{what}: {rounds:?}"
        );
    }
    let passed = reasons(&node.namespace, "PASSES")?;
    for reason in ["tracked", "hooked"] {
        let is_counted = passed
            .iter()
            .any(|(name, count)| name == reason && *count != 0);
        ensure!(
            is_counted,
            "none was left to the kernel as {reason}: {passed:?}"
        );
    }
    let before = carried(&node.namespace)?;
    let pair = Pair::between(near, far, Family::V4);
    poll::until_well(
        || match pair.udp(&[100]).map(|()| carried(&node.namespace)) {
            Ok(Ok(now)) if now != before => None,
            other => Some(format!("{other:?}")),
        },
    )
    .map_err(anyhow::Error::msg)?;
    Ok(guard.down()?)
}
