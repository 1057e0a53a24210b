//! Everyone reaches everyone, with the fast path on and off, and who carried it is proven.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Result;
use nix::sys::signal::Signal;
use overlay_tests::{
    agent::Agent,
    check::{self, Answer},
    counters::{self, Carried},
    guard::Guard,
    lab, run,
    script::inside,
    shape::{Scenario, Shape},
    snapshot::Snapshot,
    topology::UNDERLAY,
};

/// How long a process may take to end after it has said that it will.
const GRACE: Duration = Duration::from_secs(20);

fn all_carried(agents: &[Agent]) -> Result<Vec<Carried>> {
    Ok(agents
        .iter()
        .map(|agent| counters::carried(&agent.instance))
        .collect::<Result<_, _>>()?)
}

#[test]
fn all_pairs_with_the_fast_path_on_off_and_on() -> Result<()> {
    let guard = Guard::overlay("treach")?;
    let (topology, agents) = (guard.topology(), guard.agents());
    check::all_pairs_are_well(topology)?;

    let before = all_carried(&agents)?;
    check::all_pairs_are_well(topology)?;
    let on = all_carried(&agents)?;
    for (now, before) in on.iter().zip(&before) {
        let carried = *now - *before;
        assert!(
            carried.sent > 0 && carried.received > 0 && carried.local > 0,
            "{carried:?}"
        );
    }

    guard.fastpath(false)?;
    check::all_pairs_are_well(topology)?;
    assert_eq!(
        all_carried(&agents)?,
        on,
        "nothing passes programs that are detached"
    );

    guard.fastpath(true)?;
    check::all_pairs_are_well(topology)?;
    for (now, before) in all_carried(&agents)?.iter().zip(&on) {
        let carried = *now - *before;
        assert!(
            carried.sent > 0 && carried.received > 0 && carried.local > 0,
            "{carried:?}"
        );
    }
    Ok(guard.down()?)
}

#[test]
fn each_packet_is_counted_once() -> Result<()> {
    const PINGS: u64 = 25;
    let guard = Guard::overlay("tcount")?;
    let nodes = &guard.topology().nodes;
    let agents = guard.agents();
    check::all_pairs_are_well(guard.topology())?;

    let remote = Carried {
        sent: PINGS,
        received: PINGS,
        local: 0,
    };
    // A question and its answer are both delivered on this node.
    let local = Carried {
        sent: 0,
        received: 0,
        local: 2 * PINGS,
    };
    let cases = [
        (&nodes[1].containers[0], [remote, remote]),
        (&nodes[0].containers[1], [local, Carried::default()]),
    ];
    for (to, expected) in cases {
        let before = all_carried(&agents)?;
        for _ in 0..PINGS {
            let answer = check::ping(&nodes[0].containers[0].namespace, to.address)?;
            assert!(matches!(answer, Answer::Ttl(_)), "{answer:?}");
        }
        let after = all_carried(&agents)?;
        let carried: Vec<_> = after
            .iter()
            .zip(&before)
            .map(|(now, then)| *now - *then)
            .collect();
        assert_eq!(carried, expected, "{} pings to {}", PINGS, to.namespace);
    }
    Ok(guard.down()?)
}

#[test]
fn the_way_there_takes_as_much_ttl_as_the_way_back() -> Result<()> {
    let guard = Guard::overlay("tttl")?;
    let nodes = &guard.topology().nodes;
    let (here, there) = (&nodes[0].containers[0], &nodes[1].containers[0]);
    for on in [true, false] {
        guard.fastpath(on)?;
        check::routers_on_the_way(&here.namespace, &there.address.to_string(), 2)?;
        check::routers_on_the_way(
            &here.namespace,
            &nodes[0].containers[1].address.to_string(),
            0,
        )?;
        check::routers_on_the_way(&nodes[0].namespace, &there.address.to_string(), 1)?;
        check::routers_on_the_way(&here.namespace, &nodes[1].underlay.to_string(), 1)?;
    }
    Ok(guard.down()?)
}

#[test]
fn the_first_packet_to_an_unknown_neighbour_arrives() -> Result<()> {
    let guard = Guard::overlay("tcold")?;
    let nodes = &guard.topology().nodes;
    let (node, container) = (&nodes[0].namespace, &nodes[0].containers[0].namespace);
    let (gateway, remote) = (nodes[1].subnet.host(1), nodes[1].containers[0].address);
    for (from, to, expected) in [
        (node, gateway, 64),
        (node, remote, 63),
        (container, gateway, 63),
        (container, remote, 62),
    ] {
        for one in nodes {
            let flush = format!("ip -n {} neigh flush dev {UNDERLAY}", one.namespace);
            run::checked(flush)?;
        }
        assert_eq!(
            check::ping(from, to)?,
            Answer::Ttl(expected),
            "{from} → {to}"
        );
    }
    Ok(guard.down()?)
}

/// The filter that many distributions set: it is strict on devices without an address.
#[test]
fn the_loose_reverse_path_filter_accepts_a_node_s_answer() -> Result<()> {
    let guard = Guard::overlay("trpf")?;
    for node in &guard.topology().nodes {
        let set = "sysctl -qw net.ipv4.conf.all.rp_filter=2";
        run::checked(inside(&node.namespace, set))?;
    }
    for on in [true, false] {
        guard.fastpath(on)?;
        check::all_pairs_are_well(guard.topology())?;
    }
    Ok(guard.down()?)
}

#[test]
fn more_nodes_than_two() -> Result<()> {
    let shape = Shape::of("tfour", Scenario::Overlay, 4, 1)?;
    let guard = Guard::up(shape)?;
    for on in [true, false] {
        guard.fastpath(on)?;
        check::all_pairs_are_well(guard.topology())?;
    }
    Ok(guard.down()?)
}

#[test]
fn a_second_plan_is_empty() -> Result<()> {
    let guard = Guard::overlay("tplan")?;
    for agent in guard.agents() {
        assert_eq!(agent.plan()?, Vec::<serde_json::Value>::new());
        agent.fastpath(false)?;
        assert_eq!(
            agent.plan()?,
            Vec::<serde_json::Value>::new(),
            "with the fast path off"
        );
    }
    Ok(guard.down()?)
}

#[test]
fn down_leaves_nothing() -> Result<()> {
    let guard = Guard::underlay(Shape::usual("tdown", Scenario::Overlay)?)?;
    let nodes: Vec<_> = guard
        .topology()
        .nodes
        .iter()
        .map(|node| &node.namespace)
        .collect();
    let look = || {
        nodes
            .iter()
            .map(|node| Snapshot::of(node))
            .collect::<Result<Vec<_>, _>>()
    };
    let before = look()?;
    guard.finish()?;
    check::all_pairs_are_well(guard.topology())?;
    let processes: Vec<_> = guard
        .agents()
        .iter()
        .filter_map(|agent| agent.process().transpose())
        .collect::<Result<_, _>>()?;
    assert_eq!(processes.len(), nodes.len());

    for agent in guard.agents() {
        agent.tell(&["down"])?;
    }

    for (now, before) in look()?.iter().zip(&before) {
        let changes = now.changes_since(before);
        assert!(changes.lines.is_empty(), "{changes}");
    }
    for process in processes {
        assert!(
            process.wait(Instant::now() + GRACE),
            "{} still runs",
            process.command
        );
    }
    for agent in guard.agents() {
        for trace in lab::traces(&agent.instance) {
            assert!(!trace.exists(), "{} is left", trace.display());
        }
    }
    for container in guard
        .topology()
        .nodes
        .iter()
        .flat_map(|node| &node.containers)
    {
        let path = Path::new("/run/netns").join(&container.namespace);
        assert!(!path.exists(), "{} is left", path.display());
    }
    Ok(guard.down()?)
}

#[test]
fn down_without_a_running_daemon_leaves_nothing() -> Result<()> {
    let guard = Guard::underlay(Shape::usual("tdead", Scenario::Overlay)?)?;
    let node = &guard.topology().nodes[0].namespace;
    let before = Snapshot::of(node)?;
    guard.finish()?;
    let agent = guard.agent(1);
    let Some(process) = agent.process()? else {
        anyhow::bail!("no agent runs")
    };
    process.signal(Signal::SIGKILL)?;
    assert!(process.wait(Instant::now() + GRACE));

    agent.tell(&["down"])?;
    let changes = Snapshot::of(node)?.changes_since(&before);
    assert!(changes.lines.is_empty(), "{changes}");
    for trace in lab::traces(&agent.instance) {
        assert!(!trace.exists(), "{} is left", trace.display());
    }
    Ok(guard.down()?)
}
