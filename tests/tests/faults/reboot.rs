//! A peer that loses power, and comes back with nothing but its disk.

use std::time::{Duration, Instant};

use anyhow::{Error, Result, ensure};
use nix::sys::signal::Signal;
use overlay_common::maps::DROPS;
use overlay_tests::{
    check::{self, Answer},
    counters,
    families::{Families, Family},
    lab, poll, raw, run, scenario,
    script::{Step, inside, words},
    topology::UNDERLAY,
};
use serde_json::Value;

use crate::{
    MOMENT,
    stand::{Path, Stand, on_all_paths},
};

/// How long a process may take to be gone.
const GRACE: Duration = Duration::from_secs(20);

/// Ends the second node as a power failure does, and makes it anew; a machine with another
/// card has another MAC.
fn reboot(stand: &Stand, keeps_its_card: bool) -> Result<()> {
    let (guard, topology) = (&stand.guard, stand.guard.topology());
    let node = &topology.nodes[1];
    let mac = raw::mac_of(&node.namespace, UNDERLAY)?;
    let agent = guard.agent(2);
    if let Some(process) = agent.process()? {
        process.signal(Signal::SIGKILL)?;
        assert!(process.wait(Instant::now() + GRACE));
    }
    let own = [&node.namespace, &node.containers[0].namespace];
    // At once, while that of a namespace goes some time later.
    run::checked(format!("ip -n {} link del {UNDERLAY}", node.namespace))?;
    for namespace in own {
        run::checked(format!("ip netns del {namespace}"))?;
    }
    for folder in ["/sys/fs/bpf/overlay", "/run/overlay"] {
        run::checked(format!("rm -rf {folder}/{}", agent.instance))?;
    }

    let port = format!("n{}", node.number);
    // A namespace is named alone, or at the end of its path.
    let is_own = |argv: &[String]| {
        let mut names = argv.iter().map(|word| word.rsplit('/').next());
        names.any(|name| own.iter().any(|own| name == Some(own)) || name == Some(&port))
    };

    let script = match stand.path {
        Path::Kernel => scenario::up(topology, &lab::agent_program()),
        Path::Fast | Path::Slow => scenario::underlay(topology),
    };
    let steps = script
        .sections
        .into_iter()
        .flat_map(|section| section.steps);
    for step in steps {
        let Step::Run(argv) = step else { continue };
        if !is_own(&argv) {
            continue;
        }
        run::checked(&argv)?;
        if keeps_its_card && argv.iter().any(|word| word == "veth") && argv.contains(&port) {
            let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
            run::checked(format!(
                "ip -n {} link set {UNDERLAY} address {mac}",
                node.namespace
            ))?;
        }
    }
    is_plugged_in(stand, &port)?;
    if stand.path != Path::Kernel {
        agent.start()?;
        agent.fastpath(stand.path == Path::Fast)?;
    }
    Ok(())
}

/// Waits until the switch has noticed the cable.
fn is_plugged_in(stand: &Stand, port: &str) -> Result<()> {
    let switch = stand.guard.topology().shape.name.switch();
    let look = words(format!("bridge -n {switch} -j link show dev {port}"));
    poll::until(
        || run::json(&look),
        |state| state[0]["state"] == "forwarding",
    )?;
    Ok(())
}

fn is_reached_after_a_reboot(name: &str, keeps_its_card: bool) -> Result<()> {
    on_all_paths(name, |stand| {
        reboot(stand, keeps_its_card)?;
        if !keeps_its_card {
            // The others learn of a card from the first that it asks for anybody's MAC.
            let nodes = &stand.guard.topology().nodes;
            let answer = check::ping(&nodes[1].namespace, nodes[0].underlay)?;
            ensure!(matches!(answer, Answer::Ttl(_)), "underlay: {answer:?}");
        }
        let answer = check::ping(&stand.container(0).namespace, stand.container(1).address)?;
        ensure!(matches!(answer, Answer::Ttl(_)), "{answer:?}");
        stand.reaches_everyone()?;
        stand.pair().tcp(&[1 << 20])?;
        for agent in stand.guard.agents() {
            assert_eq!(agent.plan()?, Vec::<Value>::new());
            assert_eq!(counters::reasons(&agent.instance, DROPS)?, Vec::new());
        }
        Ok(())
    })
}

#[test]
fn a_peer_that_rebooted_is_reached_at_once() -> Result<()> {
    is_reached_after_a_reboot("tboot", true)
}

#[test]
fn a_peer_with_another_card_is_reached_as_soon_as_it_says_anything() -> Result<()> {
    is_reached_after_a_reboot("tcard", false)
}

/// Has the first node believe in what it knows of its neighbours for much longer than a test lasts,
/// and know the second one: its kernel alone would not find out that anything has changed.
fn is_believed(stand: &Stand, family: Family) -> Result<()> {
    const FOR: &str = "base_reachable_time_ms=86400000";
    let nodes = &stand.guard.topology().nodes;
    let (first, second) = (&nodes[0].namespace, nodes[1].underlay_at(family));
    let stack = match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    };
    for line in [
        format!("sysctl -qw net.{stack}.neigh.{UNDERLAY}.{FOR}"),
        format!("ip neigh flush dev {UNDERLAY}"),
    ] {
        run::checked(inside(first, line))?;
    }
    let look = words(inside(
        first,
        format!("ip -j neigh show {second} dev {UNDERLAY}"),
    ));
    let (from, to) = (stand.container(0), stand.container(1));
    poll::until_well(|| {
        let answer = check::ping(&from.namespace, to.address);
        match run::json(&look) {
            Ok(known) if known[0]["state"][0] == "REACHABLE" => None,
            other => Some(format!("{answer:?}, {other:?}")),
        }
    })
    .map_err(Error::msg)
}

/// The first node sends to the second one at once, and it says nothing by itself.
fn is_found(stand: &Stand, after: &str) -> Result<()> {
    let (from, to) = (stand.container(0), stand.container(1));
    let started = Instant::now();
    let ping = || check::ping_for(&from.namespace, to.address.into(), MOMENT);
    let found = poll::until_well(|| match ping() {
        Ok(Answer::Ttl(_)) => None,
        other => Some(format!("{other:?}")),
    });
    let agent = stand.guard.agent(2);
    assert_eq!(found, Ok(()), "{:?}, {after}\n{}", stand.path, agent.log()?);
    let took = started.elapsed().as_millis();
    println!("{:?}, {after}: answered after {took} ms", stand.path);
    Ok(())
}

fn is_heard_with_another_card(name: &str, over: Families) -> Result<()> {
    for (path, letter) in [(Path::Fast, 'f'), (Path::Slow, 's')] {
        let stand = Stand::raise_over(over, &format!("{name}{letter}"), path)?;
        let family = over.all()[0];
        is_believed(&stand, family)?;
        reboot(&stand, false)?;
        is_found(&stand, "another card")?;

        is_believed(&stand, family)?;
        let node = &stand.guard.topology().nodes[1].namespace;
        let change = format!("ip -n {node} link set {UNDERLAY} address 02:00:00:00:00:77");
        run::checked(change)?;
        is_found(&stand, "another MAC")?;
        stand.reaches_everyone()?;
        stand.guard.down()?;
    }
    Ok(())
}

#[test]
fn a_peer_with_another_card_is_heard_though_it_says_nothing_over_ipv4() -> Result<()> {
    is_heard_with_another_card("tmute4", Families::V4)
}

#[test]
fn a_peer_with_another_card_is_heard_though_it_says_nothing_over_ipv6() -> Result<()> {
    is_heard_with_another_card("tmute6", Families::V6)
}
