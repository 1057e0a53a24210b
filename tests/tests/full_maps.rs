//! Maps that are full: what did not fit goes by the kernel, and is told.

use std::{fs, os::unix::fs::PermissionsExt as _};

use anyhow::{Context as _, Result};
use overlay_tests::{
    agent::Agent,
    check::{self, Answer},
    config::Peer,
    counters,
    guard::Guard,
    lab, poll,
    shape::{Scenario, Shape},
};

/// Two routers on the way there and back.
const ANSWERS: [Answer; 2] = [const { Answer::Ttl(62) }; 2];

/// None when the agent is as well as it is said to be, for the reason that is said.
fn complaint(agent: &Agent, healthy: bool, problem: &str) -> Option<String> {
    match agent.json(&["status"]) {
        Ok(status) => {
            let told = status["problems"].to_string();
            let right = status["healthy"] == healthy && told.contains(problem);
            (!right).then(|| status.to_string())
        }
        Err(error) => Some(error.to_string()),
    }
}

#[test]
fn a_peer_that_does_not_fit_is_reached_by_the_kernel_until_there_is_room() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let program = folder.path().join("overlay-agent");
    let script = format!(
        "#!/bin/sh\nOVERLAY_MAP_ENTRIES=PEERS4=1,VTEPS4=1 exec {} \"$@\"\n",
        lab::agent_program().display()
    );
    fs::write(&program, script)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    let shape = Shape::new("tfull".parse()?, Scenario::Overlay, Some(2), Some(1))?;
    let guard = Guard::with_agent(shape, &program)?;
    let agent = guard.agent(1);
    let nodes = &guard.topology().nodes;
    let (here, there) = (&nodes[0].containers[0], &nodes[1].containers[0]);
    let carried = || counters::carried(&agent.instance);
    // Asked in both directions, so that what arrives is seen, too.
    let ping = || -> Result<[Answer; 2]> {
        Ok([
            check::ping(&here.namespace, there.address)?,
            check::ping(&there.namespace, here.address)?,
        ])
    };
    let before = carried()?;
    assert_eq!(ping()?, ANSWERS);
    let fast = carried()? - before;
    assert_eq!((fast.sent, fast.received), (2, 2));

    let config = guard.first_config();
    let mut crowded = config.clone();
    let peers = &mut crowded.networks.first_mut().context("no network")?.peers;
    let first = Peer {
        name: "first".to_owned(),
        vtep: "192.168.56.99".to_owned(),
        subnet: vec!["10.244.99.0/24".to_owned()],
        ..Peer::default()
    };
    peers.insert(0, first);
    fs::write(agent.config_file(), crowded.to_toml())?;
    let full = "4 is full with 1 entries";
    let degraded = poll::until_well(|| complaint(&agent, false, full));
    assert_eq!(degraded, Ok(()), "{}", agent.log()?);
    assert_eq!(agent.ask(&["status"])?.code, Some(1));

    assert_eq!(ping()?, ANSWERS, "{}", agent.log()?);
    let still = carried()?;
    assert_eq!(ping()?, ANSWERS);
    assert_eq!(
        carried()?.sent,
        still.sent,
        "what does not fit is not in the map"
    );

    fs::write(agent.config_file(), config.to_toml())?;
    let well = poll::until_well(|| complaint(&agent, true, ""));
    assert_eq!(well, Ok(()), "{}", agent.log()?);
    let before = carried()?;
    assert_eq!(ping()?, ANSWERS);
    let fast = carried()? - before;
    assert_eq!((fast.sent, fast.received), (2, 2), "there is room again");
    Ok(guard.down()?)
}
