//! What is written into the configuration's file while containers run that were added without it.

use std::{fs, net::IpAddr};

use anyhow::{Context as _, Result};
use overlay_tests::{
    agent::Agent,
    check::{self, Answer},
    guard::Guard,
    netns::Temporary,
    run,
};

use super::{add, address_of};

/// The file as it was, with more behind it.
fn write(agent: &Agent, before: &str, more: &str) -> Result<()> {
    Ok(fs::write(agent.config_file(), format!("{before}\n{more}"))?)
}

fn endpoint(name: &str, netns: &str, more: &str) -> String {
    format!("[[endpoints]]\nname = \"{name}\"\nnetwork = \"lab\"\nnetns = \"{netns}\"\n{more}\n")
}

fn inside(netns: &str) -> Result<String> {
    Ok(run::checked(format!(
        "ip -n {netns} -4 -o address show dev eth0"
    ))?)
}

#[test]
fn a_container_that_runs_keeps_what_the_file_wants_for_another() -> Result<()> {
    let guard = Guard::pair("tfile")?;
    let agent = guard.agent(1);
    let before = fs::read_to_string(agent.config_file())?;
    let (own, other) = (
        Temporary::make("tfile-own")?,
        Temporary::make("tfile-other")?,
    );
    let address = add(&agent, "rt", &["--netns", "tfile-own"])?;
    let was = inside("tfile-own")?;
    for (more, said) in [
        (
            endpoint("file", "tfile-other", &format!("address = \"{address}\"")),
            format!("endpoint rt, which was added at run time, has {address}"),
        ),
        (
            endpoint("rt", "tfile-other", ""),
            "another container has that name".to_owned(),
        ),
        (
            endpoint("file", "tfile-own", ""),
            "eth0 in its namespace is endpoint rt".to_owned(),
        ),
    ] {
        write(&agent, &before, &more)?;
        agent.tells(&said)?;
        assert_eq!(inside("tfile-own")?, was, "{said}");
        assert!(inside("tfile-other").is_err(), "{said}");
        // An agent that starts with it decides the same.
        agent.stop()?;
        agent.start_anyhow()?;
        agent.tells(&said)?;
        assert_eq!(inside("tfile-own")?, was, "{said}");
    }
    let node = "tfile-n2";
    assert_eq!(
        check::ping(node, address.parse::<IpAddr>()?)?,
        Answer::Ttl(63)
    );

    // The container itself may be written down, and stays as it is.
    write(&agent, &before, &endpoint("rt", "tfile-own", ""))?;
    agent.is_well()?;
    assert_eq!(inside("tfile-own")?, was);
    drop((own, other));
    Ok(guard.down()?)
}

#[test]
fn a_network_that_is_gone_takes_no_namespace_and_no_address_along() -> Result<()> {
    let guard = Guard::pair("tgone")?;
    let agent = guard.agent(1);
    let before = fs::read_to_string(agent.config_file())?;
    // Made by the agent.
    let address = add(&agent, "rt", &["--netns", "tgone-made"])?;
    let id = || -> Result<u64> {
        use std::os::unix::fs::MetadataExt as _;
        Ok(fs::metadata("/run/netns/tgone-made")?.ino())
    };
    let was = id()?;
    fs::write(agent.config_file(), before.replace("\"lab\"", "\"lab2\""))?;
    agent.tells("there is no network lab any more")?;
    assert_eq!(id()?, was);
    let again = agent.ask(&[
        "endpoint",
        "add",
        "rt",
        "--network",
        "lab2",
        "--netns",
        "tgone-x",
    ])?;
    assert_eq!(again.code, Some(6), "{again:?}");

    fs::write(agent.config_file(), &before)?;
    agent.is_well()?;
    assert_eq!(id()?, was);
    assert_eq!(address_of(&agent, "rt")?.context("an address")?, address);
    assert_eq!(
        check::ping("tgone-n2", address.parse::<IpAddr>()?)?,
        Answer::Ttl(63)
    );
    agent.tell(&["endpoint", "delete", "rt"])?;
    assert!(!fs::exists("/run/netns/tgone-made")?);
    Ok(guard.down()?)
}
