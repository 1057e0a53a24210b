//! Very many peers: a change of some of them touches no other.

use std::{collections::BTreeSet, fs};

use anyhow::{Context as _, Result};
use overlay_tests::{
    agent::Agent,
    check::{self, Answer},
    config::{Config, Peer},
    guard::Guard,
    poll, run,
    script::inside,
};

const PEERS: u16 = 2_000;
/// Every how many-th of them gets another outer address.
const CHANGED: u16 = 100;
/// Neighbour; forwarding entry and VTEP, the new and the old one; subnet.
const STEPS: u16 = 6;

/// The lab's configuration with many peers more, in a range of their own.
fn with_peers(mut config: Config, changed: bool) -> Result<Config> {
    let network = config.networks.first_mut().context("no network")?;
    network.cidr = vec!["10.0.0.0/8".to_owned()];
    network.peers.extend((0..PEERS).map(|number| {
        let moved = changed && number.is_multiple_of(CHANGED);
        Peer::absent(number, number + if moved { PEERS } else { 0 })
    }));
    Ok(config)
}

/// Lines of the kernel's tables.
fn tables(agent: &Agent) -> Result<[BTreeSet<String>; 3]> {
    let list = |command: &str| -> Result<BTreeSet<String>> {
        let text = run::checked(inside(&agent.instance, command))?;
        Ok(text.lines().map(|line| line.trim().to_owned()).collect())
    };
    Ok([
        list("ip -4 route show proto 111")?,
        list("ip -4 neigh show nud permanent")?,
        list("bridge fdb show")?,
    ])
}

/// The numbers of steps that the agent has told of.
fn applied(agent: &Agent) -> Result<Vec<u16>> {
    let log = agent.log()?;
    let steps = |line: &str| {
        let (_, told) = line.split_once("applied ")?;
        told.trim_end_matches('s')
            .strip_suffix(" step")?
            .parse()
            .ok()
    };
    Ok(log.lines().filter_map(steps).collect())
}

#[test]
fn a_change_of_one_percent_touches_one_percent() -> Result<()> {
    let guard = Guard::pair("tscale")?;
    let agent = guard.agent(1);
    let on_node = |command: &str| run::checked(inside(&agent.instance, command));
    on_node("ip route add 192.0.0.0/16 dev eth1")?;
    let done = || match agent.plan() {
        Ok(plan) => (!plan.is_empty()).then(|| format!("{} steps are left", plan.len())),
        Err(error) => Some(error.to_string()),
    };

    fs::write(
        agent.config_file(),
        with_peers(guard.first_config(), false)?.to_toml(),
    )?;
    let many = poll::until_well(|| match tables(&agent) {
        Ok([routes, ..]) if routes.len() > usize::from(PEERS) => done(),
        Ok([routes, ..]) => Some(format!("{} routes", routes.len())),
        Err(error) => Some(error.to_string()),
    });
    assert_eq!(many, Ok(()), "{}", agent.log()?);
    let before = tables(&agent)?;
    let told = applied(&agent)?.len();

    fs::write(
        agent.config_file(),
        with_peers(guard.first_config(), true)?.to_toml(),
    )?;
    let changed = poll::until_well(|| match applied(&agent) {
        Ok(applied) if applied.len() > told => done(),
        Ok(_) => Some("the change is not applied".to_owned()),
        Err(error) => Some(error.to_string()),
    });
    assert_eq!(changed, Ok(()), "{}", agent.log()?);
    // And one step for all of them in the table that guards the tunnels' ports.
    assert_eq!(applied(&agent)?[told..], [STEPS * PEERS / CHANGED + 1]);

    let after = tables(&agent)?;
    let differences = |at: usize| {
        let gone = before[at].difference(&after[at]).count();
        let new = after[at].difference(&before[at]).count();
        (gone, new)
    };
    let moved = usize::from(PEERS / CHANGED);
    let [routes, neighbours, fdb] = [0, 1, 2].map(differences);
    assert_eq!(
        (routes, neighbours, fdb),
        ((0, 0), (moved, moved), (moved, moved))
    );

    let nodes = &guard.topology().nodes;
    let (from, to) = (&nodes[0].containers[0], &nodes[1].containers[0]);
    assert_eq!(check::ping(&from.namespace, to.address)?, Answer::Ttl(62));
    Ok(guard.down()?)
}
