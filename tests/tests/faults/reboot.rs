//! A peer that loses power, and comes back with nothing but its disk.

use std::time::{Duration, Instant};

use anyhow::{Error, Result, ensure};
use nix::sys::signal::Signal;
use overlay_common::maps::DROPS;
use overlay_tests::{
    check::{self, Answer},
    counters, lab, poll, raw, run, scenario,
    script::{Step, words},
    topology::UNDERLAY,
};
use serde_json::Value;

use crate::stand::{Path, Stand, on_all_paths};

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
    run::checked(&words(format!(
        "ip -n {} link del {UNDERLAY}",
        node.namespace
    )))?;
    for namespace in own {
        run::checked(&words(format!("ip netns del {namespace}")))?;
    }
    for folder in ["/sys/fs/bpf/overlay", "/run/overlay"] {
        run::checked(&words(format!("rm -rf {folder}/{}", agent.instance)))?;
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
            run::checked(&words(format!(
                "ip -n {} link set {UNDERLAY} address {mac}",
                node.namespace
            )))?;
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
    let look = words(format!("bridge -n {switch} link show dev {port}"));
    poll::until_well(|| match run::checked(&look) {
        Ok(state) if state.contains("state forwarding") => None,
        other => Some(format!("{other:?}")),
    })
    .map_err(Error::msg)
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
