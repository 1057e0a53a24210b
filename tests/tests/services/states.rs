//! Rules by the state of connections.

use std::{
    net::IpAddr,
    sync::mpsc::{self, TryRecvError},
    thread,
};

use anyhow::{Context as _, Result};
use overlay_tests::{
    agent::Agent,
    check::{self, Answer},
    counters::{self, passed},
    families::Family,
    guard::Guard,
    offload,
    packages::{self, Release},
    shape::{Scenario, Shape},
    traffic::Pair,
};

use crate::{asking::asks, cases::PORT, nft};

/// Waits until the agent has seen that rules follow connections, or that none do any more.
pub(crate) fn until_followed(agent: &Agent, followed: bool) -> Result<()> {
    agent
        .status_until(|status| status["networks"][0]["followed"].is_string() == followed)
        .with_context(|| format!("followed: {followed}"))?;
    // Translation of others changes what the guard does, too.
    agent.until_done()?;
    Ok(())
}

/// The kernel's VXLAN device sends checksums, which nobody can know to be right here: answers go by
/// the kernel, and so must questions.
#[test]
fn a_kernel_peer_is_reached_beside_rules_against_unknown_connections() -> Result<()> {
    mixed(
        "tsvcm",
        |node| {
            nft(
                node,
                "table inet st { chain forward { type filter hook forward priority 0
                    ct state invalid drop
                    }
                    }",
            )
        },
        |node| nft(node, "delete table inet st"),
    )
}

/// What such rules of iptables ask for `nft` does not print.
#[test]
fn a_kernel_peer_is_reached_beside_such_rules_of_iptables() -> Result<()> {
    let Some(packages) = Release::Bookworm.folder() else {
        return Ok(());
    };
    let rules = "*filter\n-A FORWARD -m conntrack --ctstate INVALID -j DROP\nCOMMIT\n";
    mixed(
        "tsvcmi",
        |node| {
            Ok(packages::restore(
                &packages,
                node,
                "iptables-nft-restore",
                rules,
            )?)
        },
        |node| nft(node, "delete table ip filter"),
    )
}

fn mixed(
    name: &str,
    put: impl Fn(&str) -> Result<()>,
    take: impl Fn(&str) -> Result<()>,
) -> Result<()> {
    let shape = Shape::usual(name, Scenario::Mixed)?;
    let guard = Guard::configured(shape, |_, _| {})?;
    let nodes = &guard.topology().nodes;
    let (node, client, far) = (
        &nodes[0].namespace,
        &nodes[0].containers[0],
        &nodes[1].containers[0],
    );
    let agent = guard.agent(1);
    offload::without_checksums(&nodes[1].namespace)?;
    put(node)?;
    until_followed(&agent, true)?;
    let to = (far.address.into(), PORT);
    asks(&client.namespace, to, &far.namespace, to.0)?;
    let to = (client.address.into(), PORT);
    asks(&far.namespace, to, &client.namespace, to.0)?;
    let answer = check::ping(&client.namespace, far.address)?;
    assert!(matches!(answer, Answer::Ttl(_)), "{answer:?}");
    assert_ne!(passed(node, "unverified_checksum")?, 0);
    assert_ne!(passed(node, "tracked")?, 0);
    take(node)?;
    until_followed(&agent, false)?;
    let before = (passed(node, "tracked")?, counters::carried(node)?);
    asks(
        &client.namespace,
        (far.address.into(), PORT),
        &far.namespace,
        far.address.into(),
    )?;
    assert_eq!(passed(node, "tracked")?, before.0);
    assert_ne!(
        counters::carried(node)?,
        before.1,
        "questions are fast again"
    );
    Ok(guard.down()?)
}

/// The answer of 4,000 bytes comes in fragments, which go by the kernel: it has to know the question.
#[test]
fn a_policy_that_accepts_answers_gets_large_ones() -> Result<()> {
    let shape = Shape::usual("tstate", Scenario::Overlay)?;
    let guard = Guard::configured(shape, |_, _| {})?;
    let nodes = &guard.topology().nodes;
    let (node, far) = (&nodes[0].namespace, &nodes[1].containers[0]);
    let agent = guard.agent(1);
    nft(node, POLICY)?;
    until_followed(&agent, true)?;
    let pair = Pair::between(&nodes[0].containers[0], far, Family::V4);
    pair.udp(&[500, 4000])?;
    pair.tcp(&[1 << 20])?;
    nft(node, "delete table inet st")?;
    until_followed(&agent, false)?;
    Ok(guard.down()?)
}

const POLICY: &str =
    "table inet st { chain forward { type filter hook forward priority 0; policy drop;
    ct state established,related accept
    ct state invalid drop
    iifname ovlbr1 accept
    }
    }";

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
    let (stop, stopped) = mpsc::channel::<()>();
    let traffic = thread::spawn(move || -> Result<u64> {
        let pair = Pair {
            client: &client,
            server: &server,
            address,
        };
        let mut rounds = 0;
        while matches!(stopped.try_recv(), Err(TryRecvError::Empty)) {
            pair.udp(&[100; 200])?;
            rounds += 1;
        }
        Ok(rounds)
    });
    for _ in 0..3 {
        // Nothing that is sent here is dropped, whatever is known of its connection.
        nft(
            &node,
            "table inet st { chain forward { type filter hook forward priority 0
                ct state established accept
                udp dport 9 drop
                }
                }",
        )?;
        until_followed(&agent, true)?;
        nft(&node, "delete table inet st")?;
        until_followed(&agent, false)?;
    }
    drop(stop);
    let rounds = traffic.join();
    let rounds = rounds.map_err(|_| anyhow::anyhow!("the traffic has panicked"))??;
    assert_ne!(rounds, 0);
    assert_ne!(
        passed(&node, "tracked")?,
        0,
        "some of it went by the kernel"
    );
    Ok(guard.down()?)
}
