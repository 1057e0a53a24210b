//! Containers that come at once: each is carried and judged as soon as its runtime hears of it, and
//! the programs come when it is quiet.

use std::process::Child;

use anyhow::{Result, ensure};
use overlay_tests::{guard::Guard, netns::Temporary};
use serde_json::Value;

use crate::{address, attachments, nothing_is_left, plugin::Cni, reaches, tell, veths};

/// As many as a busy runtime starts at once.
const SERIES: usize = 12;
/// On the other node.
const REMOTE: &str = "tcno-n2c1";

/// The containers of a series: what their runtime calls, and what it has heard.
fn come(places: &[String]) -> Result<Vec<(Cni, Value)>> {
    let all = places.iter().map(|place| Cni::new("tcno-n1", place, place));
    let started: Vec<(Cni, Child)> = all
        .map(|cni| Ok((cni.clone(), cni.start("ADD")?)))
        .collect::<Result<_>>()?;
    started
        .into_iter()
        .map(|(cni, plugin)| {
            let output = plugin.wait_with_output()?;
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            ensure!(output.status.success(), "ADD has failed: {said}");
            Ok((cni, serde_json::from_str(&said)?))
        })
        .collect()
}

#[test]
fn a_series_is_carried_and_judged_at_once_and_has_its_programs_when_it_is_quiet() -> Result<()> {
    let guard = Guard::pair("tcno")?;
    let agent = guard.agent(1);
    let before = veths(&agent)?;
    let names: Vec<String> = (0..SERIES)
        .map(|number| format!("tcno-s{number}"))
        .collect();
    let places = names.iter().map(|name| Ok(Temporary::make(name)?));
    let _places: Vec<Temporary> = places.collect::<Result<_>>()?;

    let series = come(&names)?;
    for (_, result) in series.iter().rev() {
        reaches(REMOTE, address(result)?)?;
    }
    agent.until_done()?;
    ensure!(
        agent.log()?.contains("attached the programs of"),
        "all of a series had their programs at once"
    );
    for (_, result) in &series {
        reaches(REMOTE, address(result)?)?;
    }
    for (cni, _) in &series {
        cni.run("DEL")?.well()?;
    }
    nothing_is_left(&agent, before)?;

    // Whoever says that it is another one is not believed before its programs are there, either.
    let series = come(&names)?;
    let remote = guard.topology().nodes[1].containers[0].address;
    for place in names.iter().rev() {
        tell(place, "ip addr add 10.244.1.250/32 dev lo")?;
        let argv = format!("ping -c 1 -W 1 -I 10.244.1.250 {remote}");
        ensure!(tell(place, &argv).is_err(), "{place} is believed");
    }
    // Some go before they had them, and an agent that is killed meanwhile forgets none of the rest.
    let (gone, stay) = series.split_at(SERIES / 2);
    for (cni, _) in gone {
        cni.run("DEL")?.well()?;
    }
    agent.kill()?;
    agent.start()?;
    agent.until_done()?;
    ensure!(attachments(&agent)?.len() == stay.len());
    for (_, result) in stay {
        reaches(REMOTE, address(result)?)?;
    }
    for place in &names[SERIES / 2..] {
        reaches(place, remote.into())?;
    }
    for (cni, _) in stay {
        cni.run("DEL")?.well()?;
    }
    nothing_is_left(&agent, before)
}
