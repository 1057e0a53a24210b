//! Containers that come and go at run time.

mod alone;
mod file;
mod refused;

use std::{
    fs,
    net::IpAddr,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use overlay_common::maps::DROPS;
use overlay_tests::{
    agent::Agent,
    check::{self, Answer},
    config::Endpoint,
    counters,
    guard::Guard,
    netns::Temporary,
    poll, processes, run, scenario,
    script::{Step, inside, words},
    state,
};
use serde_json::{Value, json};

/// Attaches a container and returns its address.
fn add(agent: &Agent, name: &str, place: &[&str]) -> Result<String> {
    let mut arguments = vec!["endpoint", "add", name, "--network", "lab"];
    arguments.extend(place);
    let answer = agent.json(&arguments)?;
    let address = answer[0]["addresses"][0].as_str();
    Ok(address
        .with_context(|| {
            format!(
                "no address in {answer}\n{}",
                agent.log().unwrap_or_default()
            )
        })?
        .to_owned())
}

fn list(agent: &Agent) -> Result<Vec<Value>> {
    let answer = agent.json(&["endpoint", "list"])?;
    Ok(answer
        .as_array()
        .with_context(|| format!("not a list: {answer}"))?
        .clone())
}

fn address_of(agent: &Agent, name: &str) -> Result<Option<String>> {
    let found = list(agent)?
        .into_iter()
        .find(|endpoint| endpoint["name"] == name);
    Ok(found.and_then(|endpoint| endpoint["addresses"][0].as_str().map(str::to_owned)))
}

/// Asserts that a container is reached from its own node, its neighbour and the other node,
/// and reaches them, with the TTLs of any other container.
fn is_a_full_member(namespace: &str, address: &str, lab: &str) -> Result<()> {
    let ttl = |from: &str, to: &str| {
        check::ping(from, to.parse::<IpAddr>()?).map_err(anyhow::Error::from)
    };
    for (from, to, expected) in [
        (format!("{lab}-n1"), address, 64),
        (format!("{lab}-n1c1"), address, 64),
        (format!("{lab}-n2"), address, 63),
        (format!("{lab}-n2c1"), address, 62),
        (namespace.to_owned(), "10.244.1.1", 64),
        (namespace.to_owned(), "10.244.1.10", 64),
        (namespace.to_owned(), "10.244.2.10", 62),
        (namespace.to_owned(), "192.168.56.12", 63),
        (namespace.to_owned(), address, 64),
    ] {
        assert_eq!(ttl(&from, to)?, Answer::Ttl(expected), "{from} → {to}");
    }
    Ok(())
}

/// Interfaces of a namespace, without `lo`.
fn interfaces(namespace: &str) -> Result<Vec<String>> {
    let links = run::json(format!("ip -n {namespace} -j link show"))?;
    let links = links.as_array().into_iter().flatten();
    Ok(links
        .filter_map(|link| link["ifname"].as_str())
        .filter(|&name| name != "lo")
        .map(str::to_owned)
        .collect())
}

#[test]
fn a_namespace_is_made_for_a_name_and_goes_with_the_endpoint() -> Result<()> {
    let guard = Guard::pair("tepname")?;
    let agent = guard.agent(1);
    let address = add(&agent, "web", &["--netns", "tepname-web"])?;
    is_a_full_member("tepname-web", &address, "tepname")?;
    assert_eq!(
        address_of(&agent, "web")?.as_deref(),
        Some(address.as_str())
    );

    agent.tell(&["endpoint", "del", "web"])?;
    assert!(
        !Path::new("/run/netns/tepname-web").exists(),
        "the namespace is left"
    );
    assert_eq!(address_of(&agent, "web")?, None);
    agent.until_done()?;
    Ok(guard.down()?)
}

#[test]
fn a_namespace_that_was_there_is_adopted_and_stays() -> Result<()> {
    let guard = Guard::pair("tadopt")?;
    let agent = guard.agent(1);
    for (endpoint, netns) in [("byname", "tadopt-a"), ("bypath", "/run/netns/tadopt-a")] {
        let namespace = Temporary::make("tadopt-a")?;
        run::checked("ip -n tadopt-a link add own0 type bridge")?;
        let address = add(&agent, endpoint, &["--netns", netns])?;
        is_a_full_member("tadopt-a", &address, "tadopt")?;
        agent.tell(&["endpoint", "del", endpoint])?;
        assert_eq!(interfaces("tadopt-a")?, ["own0"], "after {endpoint}");
        drop(namespace);
    }
    Ok(guard.down()?)
}

#[test]
fn a_process_tells_its_namespace() -> Result<()> {
    let guard = Guard::pair("tpid")?;
    let (agent, name) = (guard.agent(1), &guard.topology().shape.name);
    let namespace = Temporary::make("tpid-p")?;
    let start = Step::Start {
        task: "sleeper".to_owned(),
        argv: words(inside("tpid-p", "sleep 1000")),
        log: state::log_file(name, "sleeper"),
    };
    run::run_step(name, &start)?;
    let sleeper = processes::task(name, "sleeper")?.context("sleep was not started")?;
    // `nsenter` has entered when it has become `sleep`.
    poll::until(
        || fs::read_to_string(format!("/proc/{}/comm", sleeper.pid)),
        |name| name.trim() == "sleep",
    )?;

    let address = add(&agent, "proc", &["--pid", &sleeper.pid.to_string()])?;
    is_a_full_member("tpid-p", &address, "tpid")?;
    agent.tell(&["endpoint", "del", "proc"])?;
    assert_eq!(interfaces("tpid-p")?, Vec::<String>::new());
    drop(namespace);
    Ok(guard.down()?)
}

#[test]
fn an_address_may_be_chosen_and_belongs_to_one() -> Result<()> {
    let guard = Guard::pair("tchoose")?;
    let agent = guard.agent(1);
    let address = add(
        &agent,
        "one",
        &["--netns", "tchoose-a", "--address", "10.244.1.99"],
    )?;
    assert_eq!(address, "10.244.1.99");
    for (code, what, arguments) in [
        (
            6,
            "10.244.1.99",
            ["two", "--network", "lab", "--address", "10.244.1.99"],
        ),
        (
            2,
            "10.244.2.9",
            ["two", "--network", "lab", "--address", "10.244.2.9"],
        ),
        (
            5,
            "elsewhere",
            ["two", "--network", "elsewhere", "--address", "10.244.1.98"],
        ),
        (
            6,
            "one",
            ["one", "--network", "lab", "--address", "10.244.1.98"],
        ),
    ] {
        let mut command = vec!["endpoint", "add", "--netns", "tchoose-b"];
        command.extend(arguments);
        let out = agent.ask(&command)?;
        assert_eq!(
            out.code,
            Some(code),
            "{arguments:?}: {}{}",
            out.stdout,
            out.stderr
        );
        assert!(out.stderr.contains(what), "no {what:?} in {}", out.stderr);
        assert!(
            !Path::new("/run/netns/tchoose-b").exists(),
            "made for {arguments:?}"
        );
    }
    assert_eq!(list(&agent)?.len(), 2);
    Ok(guard.down()?)
}

#[test]
fn addresses_stay_with_their_endpoints_when_the_agent_dies() -> Result<()> {
    let guard = Guard::pair("tkill")?;
    let agent = guard.agent(1);

    // One more container in the configuration, without an address.
    let mut config = scenario::agents::config(guard.topology(), &guard.topology().nodes[0]);
    config.endpoints.push(Endpoint {
        name: "listed".to_owned(),
        network: "lab".to_owned(),
        netns: Some("tkill-l".to_owned()),
        ..Endpoint::default()
    });
    fs::write(agent.config_file(), config.to_toml())?;
    let listed = poll::until_well(|| match address_of(&agent, "listed") {
        Ok(Some(_)) => None,
        other => Some(format!("{other:?}")),
    });
    assert_eq!(listed, Ok(()), "{}", agent.log()?);

    let first = add(&agent, "first", &["--netns", "tkill-a"])?;
    let second = add(&agent, "second", &["--netns", "tkill-b"])?;
    assert_ne!(first, second);
    agent.tell(&["endpoint", "del", "first"])?;
    let before = list(&agent)?;

    let process = agent.process()?.context("no agent runs")?;
    process.signal(Signal::SIGKILL)?;
    assert!(process.wait(Instant::now() + Duration::from_secs(20)));
    // Nobody is needed for forwarding.
    is_a_full_member("tkill-b", &second, "tkill")?;

    agent.start()?;
    assert_eq!(list(&agent)?, before);
    agent.until_done()?;
    is_a_full_member("tkill-b", &second, "tkill")?;
    let third = add(&agent, "third", &["--netns", "tkill-c"])?;
    let taken: Vec<_> = before
        .iter()
        .filter_map(|endpoint| endpoint["addresses"][0].as_str())
        .collect();
    assert!(
        !taken.contains(&third.as_str()),
        "{third} is one of {taken:?}"
    );
    is_a_full_member("tkill-c", &third, "tkill")?;
    Ok(guard.down()?)
}

/// A name of our own in the forwarding container's network, and one that nobody allows it.
const BEHIND: &str = "10.244.99.1";
const FORBIDDEN: &str = "10.244.98.1";

/// Whether a ping from one of several addresses is answered; it must not be dropped otherwise
/// than as a spoofed one.
fn is_answered(instance: &str, from: &str, source: &str, to: &str) -> Result<bool> {
    let spoofed = || -> Result<u64> {
        let drops = counters::reasons(instance, DROPS)?;
        let mut drops = drops.into_iter();
        let found = drops.find(|(name, _)| name == "spoofed_source");
        Ok(found.map_or(0, |(_, packets)| packets))
    };
    let before = spoofed()?;
    let ping = format!("ping -n -c 1 -W 3 -I {source} {to}");
    let out = run::output(inside(from, ping))?;
    let dropped = spoofed()? - before;
    assert_eq!(
        dropped,
        u64::from(!out.success),
        "{}{}",
        out.stdout,
        out.stderr
    );
    Ok(out.success)
}

#[test]
fn one_that_forwards_may_send_from_what_is_behind_it() -> Result<()> {
    let guard = Guard::pair("tepfwd")?;
    let agent = guard.agent(1);
    let there = guard.topology().nodes[0].containers[0].address.to_string();
    let place = ["--netns", "tepfwd-r"];
    let forwards = ["--forwarding", "--allowed-source", "10.244.99.0/24"];
    add(&agent, "router", &[&place[..], &forwards].concat())?;
    for address in [BEHIND, FORBIDDEN] {
        let line = format!("ip -n tepfwd-r addr add {address}/32 dev lo");
        run::checked(line)?;
    }
    let answered = |source: &str| is_answered(&agent.instance, "tepfwd-r", source, there.as_str());
    // This also finds the gateway, whom it may not ask for in another's name.
    assert_eq!(
        check::ping("tepfwd-r", there.parse::<IpAddr>()?)?,
        Answer::Ttl(64)
    );
    for on in [true, false] {
        agent.fastpath(on)?;
        assert!(answered(BEHIND)?, "fast path {on}");
    }
    agent.fastpath(true)?;
    assert!(!answered(FORBIDDEN)?);

    // It is remembered.
    agent.kill()?;
    agent.start()?;
    let router = || -> Result<Value> {
        let mut all = list(&agent)?.into_iter();
        all.find(|endpoint| endpoint["name"] == "router")
            .context("no router")
    };
    assert_eq!(router()?["forwarding"], true);
    assert_eq!(router()?["allowed_sources"], json!(["10.244.99.0/24"]));
    assert!(answered(BEHIND)? && !answered(FORBIDDEN)?);
    agent.until_done()?;

    for (arguments, said) in [
        (&["--allowed-source", "10.244.97.0/24"][..], "--forwarding"),
        (
            &["--forwarding", "--allowed-source", "10.244.99.128/25"],
            "endpoint router",
        ),
        (
            &["--forwarding", "--allowed-source", "10.244.2.0/28"],
            "peer tepfwd-n2",
        ),
    ] {
        let mut command = vec!["endpoint", "add", "second", "--network", "lab"];
        command.extend(["--netns", "tepfwd-s"]);
        command.extend(arguments);
        let out = agent.ask(&command)?;
        assert_eq!(out.code, Some(2), "{arguments:?}: {out:?}");
        assert!(out.stderr.contains(said), "no {said:?} in {}", out.stderr);
    }

    // The configuration gives what is behind it to somebody else.
    let whole = fs::read_to_string(agent.config_file())?;
    let mut config = guard.first_config();
    config.networks[0].peers[0]
        .subnet
        .push("10.244.99.0/25".to_owned());
    fs::write(agent.config_file(), config.to_toml())?;
    agent.status_until(|status| {
        let problems = status["problems"].to_string();
        problems.contains("10.244.99.0/24 is not behind it any more")
    })?;
    assert_eq!(router()?["allowed_sources"], json!([]));
    assert!(!answered(BEHIND)?);
    fs::write(agent.config_file(), whole)?;
    agent.status_until(|status| status["healthy"] == true)?;
    assert!(answered(BEHIND)?);
    Ok(guard.down()?)
}
