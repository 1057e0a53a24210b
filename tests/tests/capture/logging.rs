//! What the log tells of packets.

use std::fs;

use anyhow::{Context as _, Result};
use overlay_tests::{
    check::{self, Answer},
    poll,
};

use crate::{DROPPED, are_back, lab, programs, spoof};

#[test]
fn the_log_tells_as_much_as_is_asked_for() -> Result<()> {
    let guard = lab("tcapl")?;
    let agent = guard.agent(1);
    let from = &guard.topology().nodes[0].containers[0].namespace;
    let before = programs(&agent.instance)?;
    let lines = |text: &str| -> Result<usize> {
        Ok(agent
            .log()?
            .lines()
            .filter(|line| line.contains(text))
            .count())
    };
    spoof(&guard, 3)?;
    assert_eq!(lines(DROPPED)?, 0);

    agent.tell(&["log-level", "warn"])?;
    // Longer programs of the same names; those that were there before go when nothing has them any more.
    let longer = poll::until_well(|| match programs(&agent.instance) {
        Ok(now) if now.len() != before.len() => Some(format!("{now:?}")),
        Ok(now) => {
            let mut pairs = before.iter().zip(&now);
            // One drops nothing, and has nothing to tell.
            let longer = pairs.all(|(a, b)| a.0 == b.0 && (a.2 < b.2 || a.0 == "to_endpoint"));
            (!longer).then(|| format!("{now:?}"))
        }
        Err(error) => Some(error.to_string()),
    });
    assert_eq!(longer, Ok(()));
    spoof(&guard, 3)?;
    let told = |text: &'static str, least: usize| {
        poll::until_well(|| match lines(text) {
            Ok(found) if found >= least => None,
            other => {
                let log = agent.log().unwrap_or_default();
                let last = log.len() - log.len().min(8_000);
                let log = log.get(last..).unwrap_or(&log);
                Some(format!("{other:?} lines of {text} in\n{log}"))
            }
        })
    };
    assert_eq!(told(DROPPED, 3), Ok(()));
    let [here, there] = guard.topology().two_nodes();
    let (from_whom, as_whom) = (&here.containers[0], &here.containers[1]);
    let line = format!(
        "{DROPPED}  endpoint {}  udp {}:1000 → {}:9  bytes ",
        from_whom.namespace, as_whom.address, there.containers[0].address
    );
    assert_eq!(lines(&line)?, 3, "{}", agent.log()?);
    assert_eq!(lines("passed to_node")?, 0);

    agent.tell(&["log-level", "debug"])?;
    // To the node itself: the kernel's.
    let gateway = guard.topology().nodes[0].gateway.context("a gateway")?;
    assert_eq!(check::ping(from, gateway)?, Answer::Ttl(64));
    assert_eq!(told("passed to_node", 1), Ok(()));

    // A flood does not fill the log.
    let file = agent.log_file();
    let size = fs::metadata(&file)?.len();
    spoof(&guard, 20_000)?;
    assert_eq!(told("more messages of the programs", 1), Ok(()));
    let grown = fs::metadata(&file)?.len() - size;
    assert!(grown < 100_000, "{grown} bytes");

    agent.tell(&["log-level", "off"])?;
    are_back(&agent, &before)?;
    let so_far = lines(DROPPED)?;
    spoof(&guard, 3)?;
    assert_eq!(check::ping(from, gateway)?, Answer::Ttl(64));
    assert_eq!(lines(DROPPED)?, so_far, "{}", agent.log()?);
    let out = agent.ask(&["log-level", "loud"])?;
    assert_eq!(out.code, Some(2), "{}", out.stderr);
    Ok(guard.down()?)
}
