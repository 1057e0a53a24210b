//! One container comes or goes, and nobody looks at the others.

use anyhow::{Context as _, Result};
use overlay_tests::{guard::Guard, netns::Temporary};

use super::{add, address_of, interfaces, is_a_full_member};

/// What the agent has written while it attached or detached a container by itself.
fn work(log: &str, what: &str) -> Result<Vec<String>> {
    let (_, from) = log
        .split_once(&format!("{what}\n"))
        .with_context(|| format!("no {what:?} in:\n{log}"))?;
    let (work, _) = from.split_once("applied ").context("it was never done")?;
    Ok(work.lines().map(str::to_owned).collect())
}

#[test]
fn one_more_container_is_attached_without_a_look_at_the_others() -> Result<()> {
    const CONTAINERS: usize = 12;
    let guard = Guard::pair("tmore")?;
    let agent = guard.agent(1).with("OVERLAY_LOG", "debug");
    agent.stop()?;
    agent.start()?;
    let name = |number| format!("more{number}");
    let mut address = String::new();
    for number in 1..=CONTAINERS {
        address = add(
            &agent,
            &name(number),
            &["--netns", &format!("tmore-{number}")],
        )?;
    }
    let log = agent.log()?;
    let (first, last) = (
        work(&log, &format!("attaching {}", name(1)))?,
        work(&log, &format!("attaching {}", name(CONTAINERS)))?,
    );
    for (number, work) in [(1, &first), (CONTAINERS, &last)] {
        assert!(
            !work
                .iter()
                .any(|line| line.contains("looking at everything")),
            "{work:#?}"
        );
        let own = format!("/run/netns/tmore-{number}");
        let mut entered = work.iter().filter(|line| line.contains("looking into"));
        assert!(entered.all(|line| line.ends_with(&own)), "{work:#?}");
    }
    // Of a series, the programs of all but the first come later.
    let [one, other] = [&first, &last].map(|work| {
        let steps = work.iter().filter(|line| !line.contains("DEBUG attach "));
        steps.count()
    });
    assert_eq!(one, other, "{first:#?}\n{last:#?}");

    is_a_full_member(&format!("tmore-{CONTAINERS}"), &address, "tmore")?;
    agent.until_done()?;
    let status = agent.json(&["status"])?;
    assert_eq!(status["healthy"], true, "{status}");
    Ok(guard.down()?)
}

#[test]
fn one_less_container_is_detached_without_a_look_at_the_others() -> Result<()> {
    let guard = Guard::pair("tless")?;
    let agent = guard.agent(1).with("OVERLAY_LOG", "debug");
    agent.stop()?;
    agent.start()?;
    let namespaces = ["tless-a", "tless-b"];
    let [first_made, other_made] = namespaces.map(Temporary::make);
    let _made = (first_made?, other_made?);
    let first = add(&agent, "gone", &["--netns", namespaces[0]])?;
    let other = add(&agent, "stays", &["--netns", namespaces[1]])?;
    is_a_full_member(namespaces[0], &first, "tless")?;
    agent.tell(&["endpoint", "del", "gone"])?;
    let work = work(&agent.log()?, "detaching gone")?;
    let everything = |line: &String| line.contains("looking");
    assert!(!work.iter().any(everything), "{work:#?}");
    assert_eq!(interfaces(namespaces[0])?, Vec::<String>::new());
    assert_eq!(address_of(&agent, "gone")?, None);
    agent.until_done()?;
    is_a_full_member(namespaces[1], &other, "tless")?;

    // What it had is free again, and nobody misses what went with it.
    let again = add(&agent, "next", &["--netns", namespaces[0]])?;
    assert_eq!(again, first);
    is_a_full_member(namespaces[0], &again, "tless")?;
    let log = agent.log()?;
    let (_, since) = log.split_once("detaching gone\n").context("cut off")?;
    assert!(!since.contains(" has changed"), "{since}");
    assert_eq!(agent.json(&["status"])?["healthy"], true);
    Ok(guard.down()?)
}
