//! A kernel that is older than the oldest supported one is told so, and carries what it can by
//! itself. `cargo xtask vm --kernel 5.10` boots one.

use anyhow::{Context as _, Result};
use nix::sys::utsname::uname;
use overlay_tests::{
    check::{self, Answer},
    guard::Guard,
    poll, scenario,
    script::Step,
    shape::{Scenario, Shape},
    snapshot::Snapshot,
    state,
};
use serde_json::Value;

/// What the agent says of this kernel.
fn refusal() -> Result<String> {
    let name = uname()?;
    let release = name.release().to_str().context("a release is text")?;
    Ok(format!(
        "check the kernel's release: this is Linux {release}, and the programs need 6.1 or newer; \
         boot a newer kernel, or set fastpath = \"off\" to leave the networks to this one"
    ))
}

/// Two nodes whose network has this `fastpath`, with the steps of the usual lab that are wanted.
fn lab(name: &str, fastpath: &str, wanted: impl Fn(&Step) -> bool) -> Result<Guard> {
    let shape = Shape::of(name, Scenario::Overlay, 2, 1)?;
    let guard = Guard::by(shape, |topology, agent| {
        let mut script = scenario::up(topology, agent);
        for node in &topology.nodes {
            let mut config = scenario::agents::config(topology, node);
            config.networks[0].fastpath = Some(fastpath.to_owned());
            let file = state::config_file(&topology.shape.name, &node.namespace);
            script.rewrite(&file, &config.to_toml());
        }
        for section in &mut script.sections {
            section.steps.retain(&wanted);
        }
        script
    })?;
    Ok(guard)
}

#[test]
#[ignore = "it needs a kernel before 6.1: cargo xtask vm --kernel 5.10"]
fn a_network_that_requires_the_programs_does_not_start() -> Result<()> {
    let guard = lab("toldreq", "required", |step| {
        !matches!(step, Step::Start { .. } | Step::Await { .. })
    })?;
    let agent = guard.agent(1);
    let before = Snapshot::of(&agent.instance)?;
    assert!(!agent.try_start()?);
    let log = agent.log()?;
    assert!(log.contains(&refusal()?), "{log}");
    let changes = Snapshot::of(&agent.instance)?.changes_since(&before);
    assert!(changes.lines.is_empty(), "{changes}");
    Ok(guard.down()?)
}

#[test]
#[ignore = "it needs a kernel before 6.1: cargo xtask vm --kernel 5.10"]
fn a_network_that_can_do_without_them_is_carried_by_the_kernel() -> Result<()> {
    // A node without the programs that it wants is never in good order.
    let guard = lab("toldauto", "auto", |step| {
        !matches!(step, Step::Await { .. })
    })?;
    let agent = guard.agent(1);
    let nodes = &guard.topology().nodes;
    let (from, to) = (&nodes[0].containers[0], &nodes[1].containers[0]);
    let carried = poll::until_well(|| match check::ping(&from.namespace, to.address) {
        Ok(Answer::Ttl(62)) => None,
        other => Some(format!("{other:?}")),
    });
    assert_eq!(carried, Ok(()), "{}", agent.log()?);
    check::all_pairs_are_well(guard.topology())?;

    let refusal = refusal()?;
    assert!(agent.log()?.contains(&refusal), "{}", agent.log()?);
    // It answers once its first round is done.
    poll::until(|| agent.ask(&["status"]), |status| status.code == Some(1))?;
    let fastpath = agent.json(&["status"])?["fastpath"].take();
    assert_eq!(fastpath["state"], "unavailable", "{fastpath:#}");
    assert_eq!(fastpath["reason"], Value::from(refusal.as_str()));

    let diagnosis = agent.json(&["doctor"])?;
    let findings = diagnosis["findings"].as_array().context("findings")?;
    let of_the_kernel = findings
        .iter()
        .find(|finding| finding["check"] == "kernel-too-old")
        .with_context(|| format!("{findings:#?}"))?;
    let what = of_the_kernel["what"].as_str().context("what was seen")?;
    assert!(refusal.contains(what), "{what}");

    for agent in guard.agents() {
        agent.tell(&["down"])?;
    }
    Ok(guard.down()?)
}
