//! Beside the rules that firewalls write, with the commands of `docs/beside.md`: services are
//! reached, what nobody translates is fast, and `doctor` finds nothing.

use std::fs;

use anyhow::{Context as _, Result};
use overlay_tests::{
    families::{Families, Family},
    guard::Guard,
    kernel,
    packages::{self, Release},
    run,
    shape::{Scenario, Shape},
};

use crate::{
    asking::asks,
    cases::{PORT, REMOTE, service},
    kube,
    states::until_followed,
};

/// As Debian 12's ufw 0.36.2 has set them.
const UFW: [(&str, &str); 2] = [
    ("iptables-nft-restore", include_str!("ufw4.rules")),
    ("ip6tables-nft-restore", include_str!("ufw6.rules")),
];
/// As its firewalld 1.3.3 has, in the form that it hands to nftables.
const FIREWALLD: &str =
    include_str!("../../../../overlay-agent/core/src/filter/rulesets/firewalld-allowed.json");

fn beside(name: &str, invalid: bool, write: impl Fn(&str) -> Result<()>) -> Result<()> {
    let shape = Shape::usual(name, Scenario::Overlay)?;
    let guard = Guard::up(shape.speaking(Families::V4, Families::Both)?)?;
    let topology = guard.topology();
    let [node, other] = topology.two_nodes();
    let (client, far) = (&node.containers[0].namespace, &other.containers[0]);
    write(&node.namespace)?;
    kube::by_nftables(topology)?;
    let agent = guard.agent(1);
    until_followed(&agent, invalid)?;
    // Programs that send IPv6 through IPv4 and cannot receive it would show connection tracking one
    // direction of it.
    let is_left = invalid && !kernel::strips_other_family();
    for on in [true, false] {
        agent.fastpath(on)?;
        for family in [Family::V4, Family::V6] {
            let what = || format!("{family:?}, fast path {on}");
            let at = (service(REMOTE, family), PORT);
            asks(client, at, &far.namespace, far.at(family)).with_context(what)?;
            if on && is_left {
                kube::is_left(&guard, family).with_context(what)?;
            } else {
                kube::is_plain(&guard, family, on).with_context(what)?;
            }
        }
    }
    agent.fastpath(true)?;
    kube::finds_nothing(&agent)?;
    Ok(guard.down()?)
}

#[test]
fn services_answer_beside_ufw() -> Result<()> {
    let Some(packages) = Release::Bookworm.folder() else {
        return Ok(());
    };
    beside("tsvcu", false, |node| {
        for (program, rules) in UFW {
            packages::restore(&packages, node, program, rules)?;
        }
        Ok(())
    })
}

/// It drops what is invalid before it looks at zones.
#[test]
fn services_answer_beside_firewalld() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let rules = folder.path().join("firewalld.json");
    fs::write(&rules, FIREWALLD)?;
    beside("tsvcd", true, |node| {
        let enter = format!("--net=/run/netns/{node}");
        let argv = [
            "nsenter",
            &enter,
            "nft",
            "--json",
            "--file",
            &rules.to_string_lossy(),
        ];
        run::checked(argv.map(str::to_owned))?;
        Ok(())
    })
}
