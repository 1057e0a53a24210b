//! The configuration: a change is applied as a difference, a mistake is refused whole.

use std::{fs, net::IpAddr, path::Path};

use anyhow::Result;
use overlay_tests::{
    check::{self, Answer},
    config::{Endpoint, line_of},
    guard::Guard,
    poll, run,
    script::words,
    shape::{Scenario, Shape},
    snapshot::Snapshot,
};

fn lab(name: &str) -> Result<Shape> {
    Ok(Shape::new(
        name.parse()?,
        Scenario::Overlay,
        Some(2),
        Some(1),
    )?)
}

fn answers(from: &str, address: &str) -> Result<bool> {
    Ok(matches!(
        check::ping(from, address.parse::<IpAddr>()?)?,
        Answer::Ttl(_)
    ))
}

#[test]
fn a_change_is_applied_and_the_rest_is_left_alone() -> Result<()> {
    let guard = Guard::up(lab("treload")?)?;
    let agent = guard.agent(1);
    let look = || {
        run::checked(&words(
            "ip -n treload-n1c1 -4 -details address show dev eth0",
        ))
    };
    let before = look()?;

    let mut config = guard.first_config();
    config.endpoints.push(Endpoint {
        name: "extra".to_owned(),
        network: "lab".to_owned(),
        netns: Some("treload-n1cx".to_owned()),
        address: vec!["10.244.1.77".to_owned()],
        ..Endpoint::default()
    });
    fs::write(agent.config_file(), config.to_toml())?;
    let added = poll::until_well(|| match answers("treload-n2c1", "10.244.1.77") {
        Ok(true) => None,
        Ok(false) => Some("10.244.1.77 does not answer".to_owned()),
        Err(error) => Some(error.to_string()),
    });
    assert_eq!(added, Ok(()), "{}", agent.log()?);
    assert_eq!(look()?, before, "the other container was touched");

    config.endpoints.pop();
    fs::write(agent.config_file(), config.to_toml())?;
    let namespace = Path::new("/run/netns/treload-n1cx");
    let removed = poll::until_well(|| match (namespace.exists(), agent.plan()) {
        (false, Ok(plan)) if plan.is_empty() => None,
        (exists, plan) => Some(format!("namespace there: {exists}, to be done: {plan:?}")),
    });
    assert_eq!(removed, Ok(()), "{}", agent.log()?);
    assert_eq!(look()?, before, "the other container was touched");
    Ok(guard.down()?)
}

#[test]
fn a_peer_comes_and_goes() -> Result<()> {
    let guard = Guard::up(lab("tpeer")?)?;
    let agent = guard.agent(1);
    let route = || run::checked(&words("ip -n tpeer-n1 route show 10.244.2.0/24"));
    let whole = guard.first_config();
    let mut alone = whole.clone();
    alone.networks[0].peers.clear();
    for (config, there) in [(alone, false), (whole, true)] {
        fs::write(agent.config_file(), config.to_toml())?;
        let done = poll::until_well(|| match route() {
            Ok(route) => (route.trim().is_empty() == there).then_some(format!("route: {route:?}")),
            Err(error) => Some(error.to_string()),
        });
        assert_eq!(done, Ok(()), "{}", agent.log()?);
        assert_eq!(answers("tpeer-n1c1", "10.244.2.10")?, there);
    }
    Ok(guard.down()?)
}

#[test]
fn a_mistake_is_refused_whole_and_named() -> Result<()> {
    let guard = Guard::up(lab("tbad")?)?;
    let agent = guard.agent(1);
    let before = Snapshot::of(&agent.instance)?;

    let mut config = guard.first_config();
    // A good change and a bad one: neither may be applied.
    config.endpoints.push(Endpoint {
        name: "good".to_owned(),
        network: "lab".to_owned(),
        netns: Some("tbad-n1cx".to_owned()),
        address: vec!["10.244.1.77".to_owned()],
        ..Endpoint::default()
    });
    config.networks[0].peers[0].subnet = vec!["10.99.0.0/24".to_owned()];
    let text = config.to_toml();
    let line = line_of(&text, "10.99.0.0/24");
    fs::write(agent.config_file(), text)?;

    let place = format!(":{}: networks[0].peers[0].subnet", line.unwrap_or_default());
    let logged = poll::until_well(|| match agent.log() {
        Ok(log) if log.contains(&place) => None,
        Ok(log) => Some(format!("no {place:?} in {log}")),
        Err(error) => Some(error.to_string()),
    });
    assert_eq!(logged, Ok(()));
    assert!(
        !Path::new("/run/netns/tbad-n1cx").exists(),
        "the good half was applied"
    );
    let changes = Snapshot::of(&agent.instance)?.changes_since(&before);
    assert!(changes.lines.is_empty(), "{changes}");
    assert!(answers("tbad-n1c1", "10.244.2.10")?);

    fs::write(agent.config_file(), guard.first_config().to_toml())?;
    let well = poll::until_well(|| match agent.ask(&["status"]) {
        Ok(out) if out.success => None,
        Ok(out) => Some(out.stdout + &out.stderr),
        Err(error) => Some(error.to_string()),
    });
    assert_eq!(well, Ok(()));
    Ok(guard.down()?)
}

#[test]
fn plan_changes_nothing() -> Result<()> {
    let guard = Guard::underlay(lab("tdry")?)?;
    let agent = guard.agent(1);
    fs::write(agent.config_file(), guard.first_config().to_toml())?;
    let before = Snapshot::of(&agent.instance)?;
    assert!(!agent.plan()?.is_empty(), "everything is to be made");
    let changes = Snapshot::of(&agent.instance)?.changes_since(&before);
    assert!(changes.lines.is_empty(), "{changes}");
    Ok(guard.down()?)
}
