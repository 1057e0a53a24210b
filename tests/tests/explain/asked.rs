//! What is asked, of whom, and in which state of the programs.

use anyhow::{Context as _, Result};
use overlay_tests::{
    check::{self, Answer},
    families::Families,
    guard::Guard,
    shape::{Scenario, Shape},
};

use crate::said::{explain, lab};

#[test]
fn another_state_of_the_programs_is_told() -> Result<()> {
    let guard = lab("texpoff", Families::V4)?;
    let agent = guard.agent(1);
    let question = ["texpoff-n1c1", "texpoff-n2c1"];
    agent.tell(&["log-level", "debug"])?;
    let said = explain(&agent, &question)?;
    assert_eq!(said.hops[0]["stages"][0]["attached"], "watched");
    agent.tell(&["log-level", "off"])?;
    let said = explain(&agent, &question)?;
    assert_eq!(said.hops[0]["stages"][0]["attached"], "same");
    agent.fastpath(false)?;
    let said = explain(&agent, &question)?;
    assert_eq!(said.hops[0]["stages"][0]["attached"], "nothing");
    Ok(guard.down()?)
}

#[test]
fn what_cannot_be_asked_is_bad_input() -> Result<()> {
    let guard = Guard::overlay("texpbad")?;
    let agent = guard.agent(1);
    for (arguments, says) in [
        (&["nobody", "10.244.2.10"][..], "endpoint list"),
        (&["texpbad-n1c1", "nobody"], "address"),
        (&["texpbad-n1c1", "fd00::1"], "family"),
        (&["texpbad-n1c1", "10.244.2.10", "--size", "12"], "headers"),
        (
            &["texpbad-n1c1", "10.244.2.10", "--dport", "53"],
            "--proto udp",
        ),
        (
            &["texpbad-n1c1", "10.244.2.10", "--size", "60000"],
            "at most",
        ),
    ] {
        let out = agent.ask(&[&["explain"], arguments].concat())?;
        assert_eq!(out.code, Some(2), "{arguments:?}: {}", out.stderr);
        assert!(out.stderr.contains(says), "{arguments:?}: {}", out.stderr);
    }
    Ok(guard.down()?)
}

#[test]
fn the_guard_is_asked_before_the_stack() -> Result<()> {
    for (name, rx, programs) in [
        ("texpgt", None, &["underlay_guard", "from_underlay"][..]),
        ("texpgx", Some("xdp"), &["underlay_guard"]),
    ] {
        let shape = Shape::new(name.parse()?, Scenario::Overlay, Some(2), Some(1))?;
        let guard = Guard::configured(shape, |_, config| {
            config.node.guard = Some("native");
            config.node.rx = rx;
        })?;
        let nodes = &guard.topology().nodes;
        let (from, to) = (&nodes[0].containers[0], &nodes[1].containers[0]);
        assert_eq!(check::ping(&from.namespace, to.address)?, Answer::Ttl(62));
        let said = explain(&guard.agent(1), &[&from.namespace, &to.address.to_string()])?;
        assert!(said.good, "{:#?}", said.hops);
        let stages = said.hops[1]["stages"].as_array().context("stages")?;
        let met: Vec<_> = stages.iter().map(|stage| &stage["program"]).collect();
        assert_eq!(met, programs);
        assert_eq!(said.ttl(), Some(62));
        guard.down()?;
    }
    Ok(())
}

#[test]
fn the_next_node_can_be_named() -> Result<()> {
    let guard = lab("texppeer", Families::V4)?;
    let agent = guard.agent(1);
    let nodes = &guard.topology().nodes;
    let far = nodes[1].containers[0].address.to_string();
    let from = &nodes[0].containers[0].namespace;
    let socket = format!("/run/overlay/{}/api.sock", nodes[1].namespace);
    for peer in [nodes[1].namespace.as_str(), &socket] {
        let said = explain(&agent, &[from, &far, "--peer", peer])?;
        assert!(said.good && said.hops.len() == 2, "{:#?}", said.hops);
    }
    // The wrong one says so, and nobody is no node.
    let wrong = agent.ask(&["explain", from, &far, "--peer", &agent.instance])?;
    assert_eq!(wrong.code, Some(2), "{}", wrong.stderr);
    assert!(
        wrong.stderr.contains("no underlay device"),
        "{}",
        wrong.stderr
    );
    let nobody = agent.ask(&["explain", from, &far, "--peer", "nobody"])?;
    assert_eq!(nobody.code, Some(3), "{}", nobody.stderr);
    // What was found out before is there all the same.
    assert!(nobody.stdout.contains("from_endpoint"), "{}", nobody.stdout);
    Ok(guard.down()?)
}
