//! What the programs leave to the kernel does not always arrive, and it is said why.

use std::fs;

use anyhow::Result;
use overlay_tests::{
    agent::Agent,
    check::{self, Answer},
    families::Families,
    poll,
    topology::UNDERLAY,
};

use crate::said::{Explained, explain, lab, nft, within};

/// Asks until the answer is as it should be: the agent hears of what others change.
fn until(
    agent: &Agent,
    question: &[&str],
    is_right: impl Fn(&Explained) -> bool,
) -> Result<(), String> {
    poll::until_well(|| match explain(agent, question) {
        Ok(said) if is_right(&said) => None,
        Ok(said) => Some(format!("{:#?}", said.hops)),
        Err(error) => Some(format!("{error:#}")),
    })
}

#[test]
fn a_rule_about_a_peers_container_is_named_by_its_sender() -> Result<()> {
    let guard = lab("texpleft", Families::V4)?;
    let agent = guard.agent(1);
    let nodes = &guard.topology().nodes;
    let (from, to) = (&nodes[0].containers[0], &nodes[1].containers[0]);
    let question = [from.namespace.as_str(), to.namespace.as_str()];
    let rules = |hook: &str, does: &str| {
        format!(
            "table inet mine {{ chain c {{ type filter hook {hook} priority 0; ip daddr {} {does}; }}; }}",
            to.address
        )
    };
    for hook in ["prerouting", "forward", "postrouting"] {
        nft(&agent.instance, &rules(hook, "drop"))?;
        let told = until(&agent, &question, |said| {
            said.verdict(0) == Some(("passed", Some("hooked")))
                && said
                    .kernel()
                    .contains("a rule of chain inet mine c drops it")
                && !said.good
        });
        assert_eq!(told, Ok(()), "{hook}");
        let real = check::ping(&from.namespace, to.address)?;
        assert!(!matches!(real, Answer::Ttl(_)), "{hook}: {real:?}");

        // Its neighbour is on the same peer, and goes on as before.
        let other = &nodes[1].containers[1];
        let said = explain(&agent, &[from.namespace.as_str(), other.namespace.as_str()])?;
        assert!(said.good, "{hook}: {:#?}", said.hops);
        assert_eq!(said.verdict(0), Some(("forwarded", None)), "{hook}");

        nft(&agent.instance, "delete table inet mine")?;
        let told = until(&agent, &question, |said| said.good && said.hops.len() == 2);
        assert_eq!(told, Ok(()), "{hook}");
    }
    // What only counts it drops nothing.
    nft(&agent.instance, &rules("forward", "counter"))?;
    let said = explain(&agent, &question)?;
    assert!(said.good, "{:#?}", said.hops);
    nft(&agent.instance, "delete table inet mine")?;
    Ok(guard.down()?)
}

#[test]
fn another_vni_is_told_by_both_numbers() -> Result<()> {
    let guard = lab("texpvni", Families::V4)?;
    let agent = guard.agent(1);
    let nodes = &guard.topology().nodes;
    let (from, to) = (&nodes[0].containers[0], &nodes[1].containers[0]);
    let mut config = guard.first_config();
    config.networks[0].vni += 1;
    fs::write(agent.config_file(), config.to_toml())?;
    let question = [from.namespace.as_str(), to.namespace.as_str()];
    let told = until(&agent, &question, |said| {
        !said.good
            && said.hops.len() == 2
            && said
                .kernel()
                .contains("it is for VNI 2, which no network of this node has (lab has 1)")
    });
    assert_eq!(told, Ok(()));
    Ok(guard.down()?)
}

#[test]
fn a_peer_that_nobody_answers_for_is_not_reached() -> Result<()> {
    let guard = lab("texpgone", Families::V4)?;
    let agent = guard.agent(1);
    let nodes = &guard.topology().nodes;
    let (from, to) = (&nodes[0].containers[0], &nodes[1].containers[0]);
    let vtep = nodes[1].underlay;
    let question = [from.namespace.as_str(), to.namespace.as_str()];
    // Its card is there, and its address is not: as a node that is down behind a switch.
    within(
        &nodes[1].namespace,
        &format!("ip link set {UNDERLAY} arp off"),
    )?;
    within(
        &agent.instance,
        &format!("ip neigh flush dev {UNDERLAY} to {vtep}"),
    )?;
    for on in [true, false] {
        agent.fastpath(on)?;
        // Asked for by what is sent.
        let real = check::ping(&from.namespace, to.address)?;
        assert!(!matches!(real, Answer::Ttl(_)), "{on}: {real:?}");
        let told = until(&agent, &question, |said| {
            let silent = format!("nobody on {UNDERLAY} answers for {vtep}");
            !said.good && said.hops.len() == 1 && said.kernel().contains(&silent)
        });
        assert_eq!(told, Ok(()), "{on}");
    }
    Ok(guard.down()?)
}
