//! The agent is killed at every step of what it does, and started again: it comes to the same
//! state as if it had never been killed, and nothing is left behind.

mod stand;

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use overlay_tests::{
    config::{Endpoint, Network},
    counters, lab,
    snapshot::Snapshot,
};

use crate::stand::{ABORT, MOST_STEPS, Stand, addresses, lives_on, same};

#[test]
fn the_first_start_and_the_removal() -> Result<()> {
    let stand = Stand::raise("tcstart", &["web"])?;
    let (agent, before) = (&stand.agent, Snapshot::of(&stand.agent.instance)?);
    stand.write(&stand.config(&[&stand.containers[0]]))?;
    agent.start()?;
    let expected = stand.state()?;
    agent.tell(&["down"])?;
    stand.is_blank(&before)?;
    for step in 1..MOST_STEPS {
        let started = stand.crash_and_start(step)?;
        same(
            &stand.state()?,
            &expected,
            &format!("killed after step {step}"),
        );
        agent.kill()?;
        // By a process of its own, which is killed, too.
        let mut last = agent.with(ABORT, step).ask(&["down"])?;
        let removed = last.success;
        if !removed {
            last = agent.ask(&["down"])?;
        }
        stand
            .is_blank(&before)
            .with_context(|| format!("down, killed after step {step}: {}", last.stderr))?;
        if !started && removed {
            println!("start and down take less than {step} steps");
            return Ok(());
        }
    }
    anyhow::bail!("there is no end to it");
}

#[test]
fn a_change() -> Result<()> {
    let stand = Stand::raise("tcchange", &["a", "b", "c", "d"])?;
    let (agent, names) = (&stand.agent, &stand.containers);
    let before = Snapshot::of(&agent.instance)?;
    // From one to the other: a peer moves, `a` and `c` come and go, a network goes and comes.
    let mut one = stand.config(&[&names[1], &names[2]]);
    one.networks.push(Network {
        name: "other".to_owned(),
        vni: 2,
        port: one.networks[0].port,
        cidr: vec!["10.245.0.0/16".to_owned()],
        subnet: vec!["10.245.1.0/24".to_owned()],
        ..Network::default()
    });
    one.endpoints.push(Endpoint {
        name: names[3].clone(),
        network: "other".to_owned(),
        netns: Some(names[3].clone()),
        ..Endpoint::default()
    });
    let mut other = stand.config(&[&names[0], &names[1]]);
    "192.168.56.77".clone_into(&mut other.networks[0].peers[0].vtep);

    stand.write(&one)?;
    agent.start()?;
    let kept = addresses(agent)?[&names[1]].clone();
    let mut expected = Vec::new();
    for config in [&other, &one] {
        agent.kill()?;
        stand.write(config)?;
        agent.start()?;
        let state = stand.state()?;
        assert_eq!(state.addresses[&names[1]], kept);
        expected.push((config, state));
    }
    for step in 1..MOST_STEPS {
        let mut died = false;
        for (config, expected) in &expected {
            agent.kill()?;
            stand.write(config)?;
            died |= stand.crash_and_start(step)?;
            same(
                &stand.state()?,
                expected,
                &format!("killed after step {step}"),
            );
        }
        if !died {
            println!("a change takes less than {step} steps");
            return stand.end(&before);
        }
    }
    anyhow::bail!("there is no end to it");
}

#[test]
fn an_upgrade_that_the_old_build_takes_back() -> Result<()> {
    let stand = Stand::raise("tcabi", &["web"])?;
    let (old, before) = (&stand.agent, Snapshot::of(&stand.agent.instance)?);
    let new = old.with("OVERLAY_ABI", overlay_common::ABI + 1);
    stand.write(&stand.config(&[&stand.containers[0]]))?;
    old.start()?;
    let expected = stand.state()?;
    let [pins, ..] = lab::traces(&old.instance);
    let pinned = counters::pins(&pins)?;
    for step in 1..MOST_STEPS {
        old.kill()?;
        let dying = new.with(ABORT, step);
        let survived = dying.try_start()? && lives_on(&dying)?;
        new.kill()?;
        old.start()?;
        let when = format!("killed after step {step}");
        same(&stand.state()?, &expected, &when);
        assert_eq!(counters::pins(&pins)?, pinned, "{when}");
        if survived {
            println!("an upgrade takes less than {step} steps");
            return stand.end(&before);
        }
    }
    anyhow::bail!("there is no end to it");
}

#[test]
fn an_endpoint_of_the_api_s() -> Result<()> {
    let stand = Stand::raise("tcapi", &["web", "job"])?;
    let (agent, web, job) = (&stand.agent, &stand.containers[0], &stand.containers[1]);
    let before = Snapshot::of(&agent.instance)?;
    stand.write(&stand.config(&[web]))?;
    agent.start()?;
    let without = stand.state()?;
    // It is over when the agent has died.
    let wait = ["--wait", "0"];
    let add = ["endpoint", "add", job, "--network", "lab", "--netns", job];
    let add = [&add[..], &wait].concat();
    agent.tell(&add)?;
    assert!(lives_on(agent)?);
    let with = stand.state()?;
    let del = [&["endpoint", "del", job][..], &wait].concat();
    agent.tell(&del)?;
    assert!(lives_on(agent)?);
    let mut crashes = 0;
    for step in 1..MOST_STEPS {
        agent.kill()?;
        if stand.crash_and_start(step)? {
            continue;
        }
        let mut died = false;
        for (command, done) in [(&add[..], &with), (&del[..], &without)] {
            let when = format!("{command:?}, killed after step {step}");
            let process = agent.process()?.context("no agent")?;
            let answer = agent.ask(command)?;
            if answer.success && lives_on(agent)? {
                same(&stand.state()?, done, &when);
                continue;
            }
            let dead = process.wait(Instant::now() + Duration::from_secs(10));
            assert!(
                dead,
                "{when}: not dead, but {}\n{}",
                answer.stderr,
                agent.log()?
            );
            died = true;
            agent.start()?;
            let state = stand.state()?;
            // It is deleted as soon as that is written down, and not before; what was answered is
            // done, and what was not promised to anybody is not there.
            let is_there = state.addresses.contains_key(job);
            if answer.success {
                assert_eq!(is_there, done.addresses.contains_key(job), "{when}");
            } else if command == add {
                assert!(!is_there, "{when}");
            }
            same(&state, if is_there { &with } else { &without }, &when);
            if is_there {
                agent.tell(&del)?;
                assert!(lives_on(agent)?);
            }
            break;
        }
        if !died {
            assert!(crashes > 0, "it was never killed");
            return stand.end(&before);
        }
        crashes += 1;
    }
    anyhow::bail!("there is no end to it");
}

#[test]
fn a_state_file_that_is_not_whole_is_refused_and_kept() -> Result<()> {
    let stand = Stand::raise("tctorn", &["web"])?;
    let agent = &stand.agent;
    stand.write(&stand.config(&[&stand.containers[0]]))?;
    agent.start()?;
    let expected = stand.state()?;
    agent.kill()?;
    let [_, _, folder] = lab::traces(&agent.instance);
    let path = folder.join("state.json");
    let whole = fs::read(&path)?;
    let foreign = br#"{ "format": 2, "instance": "somebody", "config": "/etc/x.toml" }"#;
    for torn in [&whole[..whole.len() / 2], b"", foreign] {
        fs::write(&path, torn)?;
        let config = agent.config_file().to_string_lossy().into_owned();
        for command in [
            &["run", "--config", &config, "--netns", &agent.instance][..],
            &["down"],
        ] {
            let out = agent.ask(command)?;
            assert_eq!(out.code, Some(2), "{command:?}: {}", out.stderr);
            for part in [&*path.to_string_lossy(), "move it away"] {
                assert!(out.stderr.contains(part), "{command:?}: {}", out.stderr);
            }
        }
        assert_eq!(fs::read(&path)?, torn);
    }
    fs::write(&path, whole)?;
    agent.start()?;
    same(&stand.state()?, &expected, "with the file back");
    Ok(agent.tell(&["down"]).map(drop)?)
}
