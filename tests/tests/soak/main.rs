//! Hours in a minute: traffic of all kinds while containers come and go, configurations
//! change, the fast path is switched and what others break is repaired. At the end every
//! packet is accounted for, and the agent has no more than it had at the beginning.

mod account;
mod belongings;
mod churn;
mod steady;

use std::{
    env, fs,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aya::sys::{Stats, enable_stats};
use overlay_tests::{
    agent::Agent,
    config::Peer,
    families::Family,
    guard::Guard,
    load::{Load, Outcome, Rates, drops::Drops},
    poll, run,
    script::inside,
    traffic::Pair,
};

use account::Account;
use belongings::{Belongings, memory};

/// Minutes, when not those of `cargo xtask test --soak`.
const USUAL: u64 = 1;
const MINUTES: &str = "OVERLAY_SOAK_MINUTES";
/// What the agent's memory may have grown by: allocators keep some of what they had.
const GROWTH_KIB: u64 = 8 * 1024;
/// Little enough that a machine that does all of this loses nothing.
const RATES: Rates = Rates {
    pings: 1000,
    datagrams: 10_000,
    bytes: 4 << 20,
};

/// One of everything that can happen to an agent without harm to what the programs carry.
fn disturb(guard: &Guard) -> Result<()> {
    let agent = guard.agent(1);
    let usual = guard.first_config();
    let mut larger = usual.clone();
    larger.networks[0].peers.push(Peer {
        name: "elsewhere".to_owned(),
        vtep: "192.168.56.99".to_owned(),
        subnet: vec!["10.244.96.0/20".to_owned()],
        ..Peer::default()
    });
    for (config, is_there) in [(&larger, true), (&usual, false)] {
        fs::write(agent.config_file(), config.to_toml())?;
        until(&agent, || {
            let routes = on_node(&agent, "ip route show proto 111")?;
            Ok(routes.contains("10.244.96.0/20") == is_there)
        })?;
    }
    for agent in guard.agents() {
        agent.fastpath(false)?;
        agent.fastpath(true)?;
    }
    // Only the kernel's path needs them.
    for (damage, look, mark) in [
        ("ip route del 10.244.2.0/24", "ip route", "10.244.2.0/24"),
        (
            "ip neigh del 10.244.2.0 dev ovl1",
            "ip neigh show nud permanent",
            "10.244.2.0",
        ),
        (
            "bridge fdb del 02:4f:c0:a8:38:0c dev ovl1",
            "bridge fdb show dev ovl1",
            "02:4f:c0:a8:38:0c",
        ),
    ] {
        on_node(&agent, damage)?;
        until(&agent, || Ok(on_node(&agent, look)?.contains(mark)))?;
    }
    Ok(())
}

fn on_node(agent: &Agent, command: &str) -> Result<String> {
    Ok(run::checked(inside(&agent.instance, command))?)
}

fn until(agent: &Agent, well: impl Fn() -> Result<bool>) -> Result<()> {
    let reached = poll::until(well, |well| *well);
    reached
        .map(drop)
        .with_context(|| agent.log().unwrap_or_default())
}

/// How long to go on.
fn minutes(usual: u64) -> Result<u64> {
    match env::var(MINUTES) {
        Ok(minutes) => minutes
            .parse()
            .with_context(|| format!("{MINUTES}={minutes}")),
        Err(_) => Ok(usual),
    }
}

/// Containers of the same number on two nodes.
fn pair(guard: &Guard, (from, to): (usize, usize), container: usize) -> Pair<'_> {
    let nodes = &guard.topology().nodes;
    Pair::between(
        &nodes[from].containers[container],
        &nodes[to].containers[container],
        Family::V4,
    )
}

/// Tells what became of a load, and asserts that nothing of it was lost or doubled but for full queues.
fn accounted_for(outcome: &Outcome, full: &Drops) -> Result<()> {
    println!("{outcome}\n{full}");
    let overflowed: u64 = outcome.streams().map(|stream| stream.overflowed).sum();
    // Whom the machine gave no time to read is not whom the node lost a packet of.
    ensure!(
        outcome.lost() <= full.total() + overflowed,
        "{outcome}\n{full}"
    );
    let doubled: u64 = outcome.streams().map(|stream| stream.came.doubled).sum();
    ensure!(doubled == 0, "{doubled} doubled: {outcome}");
    Ok(())
}

/// Asserts that agents have what they had, and no more, as far as it is looked at.
fn same_as_before(
    agents: &[Agent],
    before: &[Belongings],
    look: impl Fn(Belongings) -> Belongings,
) -> Result<()> {
    for (agent, before) in agents.iter().zip(before) {
        let same = poll::until_well(|| match Belongings::of(agent).map(&look) {
            Ok(now) => Some(now.changes_since(before)).filter(|changes| !changes.is_empty()),
            Err(error) => Some(format!("{error:#}")),
        });
        ensure!(same == Ok(()), "{}: {same:?}", agent.instance);
    }
    Ok(())
}

/// Tells what became of agents' memory, and asserts that it is about what it was.
fn grown(agents: &[Agent], before: &[u64]) -> Result<()> {
    for (agent, before) in agents.iter().zip(before) {
        let now = memory(agent)?;
        println!("{}: {before} KiB, now {now} KiB", agent.instance);
        ensure!(now <= before + GROWTH_KIB, "{before} KiB, now {now} KiB");
    }
    Ok(())
}

#[test]
fn nothing_is_lost_and_nothing_is_left() -> Result<()> {
    let time = Duration::from_mins(minutes(USUAL)?);
    // The kernel counts the programs' runs for as long as this is open.
    let _counting = enable_stats(Stats::RunTime)?;
    let guard = Guard::overlay("tsoak")?;
    let agents = guard.agents();
    // What is made once, such as a thread to look at namespaces, is there afterwards.
    disturb(&guard)?;
    churn::while_doing(&guard, 2 * churn::A_SECOND, || Ok(()))?;
    let before = agents
        .iter()
        .map(Belongings::of)
        .collect::<Result<Vec<_>>>()?;
    let memory_before = agents.iter().map(memory).collect::<Result<Vec<_>>>()?;
    let accounts = |held: &[Belongings]| -> Result<Vec<Account>> {
        let both = agents.iter().zip(held);
        both.map(|(agent, held)| Account::of(agent, &held.programs))
            .collect()
    };
    let accounts_before = accounts(&before)?;
    let namespaces = guard.topology().namespaces();
    let drops = Drops::of(&namespaces)?;

    let loads = [
        Load::start(&pair(&guard, (0, 1), 0), RATES)?,
        Load::start(&pair(&guard, (1, 0), 1), RATES)?,
    ];
    let at_least = u32::try_from(time.as_secs())? * churn::A_SECOND;
    let churned = churn::while_doing(&guard, at_least, || {
        let began = Instant::now();
        let mut rounds = 0;
        while began.elapsed() < time {
            disturb(&guard)?;
            rounds += 1;
        }
        println!(
            "{rounds} rounds of disturbance in {} s",
            began.elapsed().as_secs()
        );
        Ok(())
    })?;
    println!("{churned}");
    assert!(
        churned.came >= at_least && churned.went == churned.came,
        "{churned}"
    );
    let outcomes = loads.map(Load::finish);
    let full = Drops::of(&namespaces)?.since(&drops);
    for outcome in outcomes {
        let outcome = outcome?;
        accounted_for(&outcome, &full)?;
        assert!(
            outcome.transfer.is_some_and(|transfer| transfer.is_whole()),
            "{outcome}"
        );
    }

    same_as_before(&agents, &before, |all| all)?;
    let accounts_after = accounts(&before)?;
    for ((agent, now), then) in agents.iter().zip(&accounts_after).zip(&accounts_before) {
        println!("{}: {now:?}", agent.instance);
        assert_eq!(
            now.runs - then.runs,
            now.exits() - then.exits(),
            "{now:?} {then:?}"
        );
        assert_eq!(
            now.by_endpoints - then.by_endpoints,
            now.by_peers - then.by_peers,
            "{now:?} {then:?}"
        );
        assert!(now.delivered() > then.delivered(), "{now:?}");
    }
    grown(&agents, &memory_before)?;
    Ok(guard.down()?)
}
