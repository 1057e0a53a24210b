//! Without the programs, and with an underlay that is down: the end is what really happens.

use anyhow::{Context as _, Result};
use overlay_tests::{
    check::{self, Answer},
    families::Families,
    poll,
};

use crate::said::{explain, lab, nft, within};

#[test]
fn what_is_not_attached_delivers_nothing() -> Result<()> {
    let guard = lab("texpslow", Families::V4)?;
    let (here, there) = (guard.agent(1), guard.agent(2));
    let nodes = &guard.topology().nodes;
    let (from, to) = (&nodes[0].containers[0], &nodes[1].containers[0]);
    let question = [from.namespace.as_str(), to.namespace.as_str()];
    let arrives = || -> Result<bool> {
        Ok(matches!(
            check::ping(&from.namespace, to.address)?,
            Answer::Ttl(_)
        ))
    };

    // The kernel's path alone, at both ends.
    here.fastpath(false)?;
    there.fastpath(false)?;
    let said = explain(&here, &question)?;
    assert!(arrives()? && said.good, "{:#?}", said.hops);
    assert_eq!(said.hops.len(), 2, "{:#?}", said.hops);
    assert_eq!(said.ttl(), Some(62));
    assert!(
        said.kernel().contains("no program is attached"),
        "{}",
        said.kernel()
    );

    // A filter that the programs go past: a policy, which is meant for nobody.
    let closed = |rest: &str| {
        let chain = format!("type filter hook input priority 0; {rest}");
        let rules = format!("table inet closed {{ chain input {{ {chain} }}; }}");
        nft(&there.instance, &rules)
    };
    closed("policy drop;")?;
    let said = explain(&here, &question)?;
    assert!(!arrives()? && !said.good, "{:#?}", said.hops);
    assert!(
        said.kernel().contains("inet closed input drops it"),
        "{}",
        said.kernel()
    );
    // They do go past it.
    there.fastpath(true)?;
    let said = explain(&here, &question)?;
    assert!(arrives()? && said.good, "{:#?}", said.hops);
    within(&there.instance, "nft delete table inet closed")?;

    // A rule about the tunnel has its turn.
    closed("udp dport 4789 drop;")?;
    let heeded = poll::until_well(|| match explain(&here, &question) {
        Ok(said) if !said.good && said.kernel().contains("inet closed input drops it") => None,
        Ok(said) => Some(format!("{:#?}", said.hops)),
        Err(error) => Some(format!("{error:#}")),
    });
    assert_eq!(heeded, Ok(()));
    assert!(!arrives()?);
    within(&there.instance, "nft delete table inet closed")?;

    // What forwards at the sender.
    let rules = "table inet shut { chain forward {
        type filter hook forward priority 0; policy drop;
        }
        }";
    nft(&here.instance, rules)?;
    let said = explain(&here, &question)?;
    assert!(!arrives()? && !said.good, "{:#?}", said.hops);
    within(&here.instance, "nft delete table inet shut")?;
    here.fastpath(true)?;
    Ok(guard.down()?)
}

/// Of what the programs are for, the tables of the agent hold the rules without them, too.
#[test]
fn what_a_rule_drops_is_said_to_be_dropped_without_the_programs() -> Result<()> {
    let guard = lab("texprule", Families::V4)?;
    let agent = guard.agent(1);
    let nodes = &guard.topology().nodes;
    let (from, to) = (&nodes[0].containers[0], &nodes[1].containers[0]);
    let here = nodes[0].underlay.to_string();
    let there = nodes[1].underlay.to_string();
    let stranger = nodes[0].containers[1].address.to_string();
    for on in [true, false] {
        agent.fastpath(on)?;
        let udp = ["--proto", "udp"];
        let tunnel = [&udp[..], &["--dport", "4789"]].concat();
        let spoofed = [&udp[..], &["--source", &stranger]].concat();
        for (destination, options, reason) in [
            (&to.address.to_string(), &spoofed, "spoofed_source"),
            (&here, &tunnel, "tunnel_from_endpoint"),
            (&there, &tunnel, "tunnel_from_endpoint"),
        ] {
            let question = [&[from.namespace.as_str(), destination], &options[..]].concat();
            let said = explain(&agent, &question)?;
            assert!(!said.good, "{on}: {question:?}: {:#?}", said.hops);
            let (_, of_program) = said.verdict(0).context("a verdict")?;
            let named = said.kernel().contains(reason) || (on && of_program == Some(reason));
            assert!(named, "{on}: {question:?}: {:#?}", said.hops);
        }
        // Other ports of those are nobody's secret.
        let question = [&[from.namespace.as_str(), &here], &udp[..]].concat();
        assert!(explain(&agent, &question)?.good, "{on}");
    }
    Ok(guard.down()?)
}

#[test]
fn an_underlay_that_is_down_takes_nothing() -> Result<()> {
    let guard = lab("texpdown", Families::V4)?;
    let agent = guard.agent(1);
    let nodes = &guard.topology().nodes;
    let (from, to) = (&nodes[0].containers[0], &nodes[1].containers[0]);
    let question = [from.namespace.as_str(), to.namespace.as_str()];
    let said = explain(&agent, &question)?;
    assert!(said.good, "{:#?}", said.hops);
    within(&agent.instance, "ip link set eth1 down")?;
    for on in [true, false] {
        agent.ask(&["fastpath", if on { "on" } else { "off" }])?;
        let said = explain(&agent, &question)?;
        assert!(!said.good, "{on}: {:#?}", said.hops);
        assert_eq!(said.hops.len(), 1, "{on}: {:#?}", said.hops);
    }
    let answer = check::ping(&from.namespace, to.address)?;
    assert!(!matches!(answer, Answer::Ttl(_)), "{answer:?}");
    Ok(guard.down()?)
}
