//! A node of ours among nodes that have nothing but the kernel's VXLAN, set up with `ip` alone.

use anyhow::{Context as _, Result};
use overlay_tests::{
    check, counters,
    families::Family,
    guard::Guard,
    offload, run, scenario,
    shape::{Scenario, Shape},
    state,
    traffic::Pair,
};

const SIZES: [usize; 9] = [1, 64, 1_372, 1_422, 1_450, 1_500, 9_000, 65_000, 4 << 20];

/// Who knows whether the checksums of the kernel's device are right; it makes them unless told not to.
#[derive(Clone, Copy, PartialEq)]
enum Checksum {
    /// There is none, or the receiving kernel has it from the sending one, as over a veth.
    Known,
    /// It is all that arrives.
    Unknown,
}

/// Raises a node of ours and one of the kernel's, with a change of the words in each command.
fn mixed(name: &str, change: impl Fn(&mut Vec<String>)) -> Result<Guard> {
    let shape = Shape::usual(name, Scenario::Mixed)?;
    Ok(Guard::by(shape, |topology, agent| {
        let mut script = scenario::up(topology, agent);
        script.reword(&change);
        script
    })?)
}

/// Checks reachability and payloads in both directions, and who carried them on our side.
fn understand_each_other(guard: &Guard, checksum: Checksum) -> Result<()> {
    let (agent, nodes) = (guard.agent(1), &guard.topology().nodes);
    let (ours, theirs) = (&nodes[0].containers[0], &nodes[1].containers[0]);
    for on in [true, false] {
        agent.fastpath(on)?;
        let before = counters::carried(&agent.instance)?;
        check::all_pairs_are_well(guard.topology())?;
        for (client, server) in [(ours, theirs), (theirs, ours)] {
            let pair = Pair::between(client, server, Family::V4);
            pair.icmp(&SIZES[..8])?;
            pair.udp(&SIZES[..8])?;
            pair.tcp(&SIZES)?;
        }
        let carried = counters::carried(&agent.instance)? - before;
        let is_known = checksum == Checksum::Known;
        assert_eq!(
            (carried.sent > 0, carried.received > 0),
            (on, on && is_known),
            "{carried:?}"
        );
        let unverified = counters::passed(&agent.instance, "unverified_checksum")?;
        assert_eq!(unverified == 0, is_known, "{unverified}");
    }
    Ok(())
}

#[test]
fn understands_ours_in_both_directions() -> Result<()> {
    let guard = mixed("tmixed", |_| {})?;
    understand_each_other(&guard, Checksum::Known)?;
    Ok(guard.down()?)
}

#[test]
fn behind_a_card_that_makes_no_checksums_it_is_received_by_the_kernel() -> Result<()> {
    let guard = mixed("tsoftsum", |_| {})?;
    let theirs = &guard.topology().nodes[1].namespace;
    offload::without_checksums(theirs)?;
    understand_each_other(&guard, Checksum::Unknown)?;
    Ok(guard.down()?)
}

#[test]
fn without_outer_checksums_it_is_fast_in_both_directions() -> Result<()> {
    let guard = mixed("tnocsum", |argv| {
        if argv.iter().any(|word| word == "vxlan") {
            argv.push("noudpcsum".to_owned());
        }
    })?;
    understand_each_other(&guard, Checksum::Known)?;
    Ok(guard.down()?)
}

/// What the page says, typed by somebody who has nothing else.
#[test]
fn the_commands_of_the_page_make_a_peer() -> Result<()> {
    let guard = Guard::overlay("tqkern")?;
    let nodes = &guard.topology().nodes;
    guard.agent(2).tell(&["down"])?;
    let page = include_str!("../../docs/quickstart.md");
    let section = page.split("## A peer that has only the kernel").nth(1);
    let block = section.and_then(|section| section.split("```").nth(1));
    let lines = block.context("a block of commands")?.lines();
    let commands: Vec<&str> = lines.filter_map(|line| line.strip_prefix("# ")).collect();
    assert!(commands.len() > 5, "{commands:?}");
    for command in commands {
        let command = command.replace("node02", &nodes[1].namespace);
        let command = command.replace(
            "exec web",
            &format!("exec {}", nodes[0].containers[0].namespace),
        );
        run::checked(command)?;
    }
    Ok(guard.down()?)
}

#[test]
fn two_of_them_understand_ours() -> Result<()> {
    let guard = Guard::up(Shape::of("tmixed3", Scenario::Mixed, 3, 1)?)?;
    for on in [true, false] {
        guard.agent(1).fastpath(on)?;
        check::all_pairs_are_well(guard.topology())?;
    }
    Ok(guard.down()?)
}

#[test]
fn may_have_a_mac_of_its_own_choice() -> Result<()> {
    const RULE: &str = "02:4f:c0:a8:38:0c";
    const MAC: &str = "0a:58:0a:f4:02:00";
    let shape = Shape::usual("tmac", Scenario::Mixed)?;
    let guard = Guard::by(shape, |topology, agent| {
        let first = &topology.nodes[0];
        let mut config = scenario::agents::config(topology, first);
        config.networks[0].peers[0].mac = Some(MAC.to_owned());
        let mut script = scenario::up(topology, agent);
        script.reword(|argv| {
            for word in argv.iter_mut().filter(|word| *word == RULE) {
                MAC.clone_into(word);
            }
        });
        let file = state::config_file(&topology.shape.name, &first.namespace);
        script.rewrite(&file, &config.to_toml());
        script
    })?;
    understand_each_other(&guard, Checksum::Known)?;
    Ok(guard.down()?)
}
