//! A node gets another key while packets flow both ways, and agents end and start again meanwhile.

use std::time::Duration;

use anyhow::{Context as _, Result};
use overlay_tests::{
    guard::Guard,
    load::{Load, Outcome, Rates, drops::Drops},
    poll, run,
};

use crate::{
    DEVICE, key_file,
    stand::{both, encrypt, flows_fast, key_of, with_key, with_keys},
};

/// The device beside it while a key changes.
const SECOND: &str = "ovlwgn1";
/// There and back as many: enough to notice a gap of two milliseconds, and not more than an emulated machine carries
/// while an agent starts.
const RATES: Rates = Rates {
    pings: 520,
    datagrams: 0,
    bytes: 0,
};
/// Nobody is spoken with any more by a device 15 s after it was last heard from, and emulated machines are slow.
const PATIENCE: Duration = Duration::from_mins(4);

#[test]
#[ignore = "it needs WireGuard of Debian's kernels: cargo xtask vm"]
fn a_key_is_replaced_without_a_packet_lost() -> Result<()> {
    let guard = Guard::pair("tencrot")?;
    encrypt(&guard)?;
    flows_fast(&guard, "encryption")?;
    let (agent, peer) = (guard.agent(1), guard.agent(2));
    let old = key_of(&guard, 1)?;
    let early = agent.ask(&["key", "--finish"])?;
    assert!(!early.success && early.stderr.contains("there is no next key"));

    let namespaces = guard.topology().namespaces();
    let queues = Drops::of(&namespaces)?;
    let load = Load::start(&both(&guard), RATES)?;
    let next = agent.tell(&["key", "--rotate"])?.trim().to_owned();
    assert_ne!(next, old);
    assert_eq!(
        agent.tell(&["key", "--rotate"])?.trim(),
        next,
        "it was begun"
    );
    assert_eq!(key_of(&guard, 1)?, old, "until the peers know the next one");
    until(&guard, "the second device", |status| {
        status["networks"][0]["encryption"]["second_device"] == SECOND
            || status["instance"] != agent.instance.as_str()
    })?;
    // Not while a peer does not know it.
    let early = agent.ask(&["key", "--finish"])?;
    let of_peer = &guard.topology().nodes[1].namespace;
    assert!(
        !early.success && early.stderr.contains(of_peer.as_str()),
        "{early:?}"
    );

    with_keys(&guard, 2, &old, Some(&next))?;
    sends_by(&guard, SECOND)?;
    // What was begun goes on, whoever was away.
    agent.stop()?;
    anyhow::ensure!(agent.try_start()?, "{}", agent.log()?);
    sends_by(&guard, SECOND)?;
    let refused = peer.ask(&["key", "--rotate"])?;
    assert!(
        !refused.success && refused.stderr.contains("is changing"),
        "one after the other: {refused:?}"
    );

    assert_eq!(agent.tell(&["key", "--finish"])?.trim(), next);
    assert_eq!(key_of(&guard, 1)?, next);
    with_key(&guard, 2, &next)?;
    sends_by(&guard, DEVICE)?;
    until(&guard, "the second device is gone", |status| {
        status["networks"][0]["encryption"]["second_device"].is_null()
    })?;
    for agent in guard.agents() {
        let plan = agent.plan()?;
        assert!(plan.is_empty(), "{}: {plan:?}", agent.instance);
    }
    let outcome = load.finish()?;
    let full = Drops::of(&namespaces)?.since(&queues);
    println!("{outcome}\n{full}");
    nothing_was_lost(&outcome)?;
    only_the_new_key_is_left(&guard, &old, &next)?;
    flows_fast(&guard, "another key")?;
    Ok(guard.down()?)
}

/// Waits until both nodes send by a device.
fn sends_by(guard: &Guard, device: &str) -> Result<()> {
    until(guard, device, |status| {
        let peer = &status["networks"][0]["peers"][0];
        peer["encryption"]["device"] == device
    })
}

fn until(guard: &Guard, what: &str, is: impl Fn(&serde_json::Value) -> bool) -> Result<()> {
    let found = poll::until_well_within(PATIENCE, || {
        guard
            .agents()
            .into_iter()
            .find_map(|agent| match agent.json(&["status"]) {
                Ok(status) if is(&status) => None,
                Ok(status) => Some(format!("{}: {}", agent.instance, status["networks"])),
                Err(error) => Some(format!("{error:#}")),
            })
    });
    if found.is_err() {
        for agent in guard.agents() {
            println!("{}\n{:?}\n{}", agent.instance, agent.plan(), agent.log()?);
        }
    }
    assert_eq!(found, Ok(()), "{what}");
    Ok(())
}

fn nothing_was_lost(outcome: &Outcome) -> Result<()> {
    let stream = outcome.pings.as_ref().context("no pings")?;
    assert!(stream.rate() >= 500, "{outcome}");
    let wrong = (stream.lost(), stream.came.doubled, stream.refused);
    assert_eq!(wrong, (0, 0, 0), "{outcome}");
    Ok(())
}

fn only_the_new_key_is_left(guard: &Guard, old: &str, next: &str) -> Result<()> {
    for (node, what) in [(0, "public-key"), (1, "peers")] {
        let namespace = &guard.topology().nodes[node].namespace;
        let told = run::checked(format!("ip netns exec {namespace} wg show {DEVICE} {what}"))?;
        assert_eq!(told.trim(), next);
        let links = run::checked(format!("ip -n {namespace} -br link"))?;
        assert!(!links.contains(SECOND), "{links}");
        let all = run::checked(format!("ip netns exec {namespace} wg show all dump"))?;
        assert!(!all.contains(old), "the old key is still there");
    }
    let file = key_file(guard, 1);
    let next = file.with_extension("next.key");
    assert!(file.exists() && !next.exists(), "{}", next.display());
    Ok(())
}
