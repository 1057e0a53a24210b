//! The checks: from what was seen to what is wrong.
//!
//! A check looks for one fault, and has its name. What follows from a fault that another check
//! finds is not told a second time.

mod agent;
mod causes;
mod containers;
mod devices;
mod firewall;
mod machine;
mod peers;
mod programs;
mod room;
mod routes;
mod settings;
mod setup;
mod tunnel;
mod wire;
mod writers;

#[cfg(test)]
mod healthy;

use std::{collections::BTreeSet, fmt::Display, mem};

use overlay_control::{Cure, Finding, Severity, Skipped};
use overlay_core::{
    desired::troubles,
    model::Name,
    trouble::{ids, on_node},
};

use super::facts::Facts;

/// What a check finds, or why it cannot be made.
type Looked = Result<Vec<Finding>, String>;

/// One check.
struct Check {
    fault: Fault,
    look: Look,
}

/// How a check is made.
enum Look {
    /// What it takes is always there.
    Always(fn(&Facts) -> Vec<Finding>),
    /// It takes what could perhaps not be looked at.
    IfSeen(fn(&Facts) -> Looked),
    /// Nobody but the agent knows.
    Told,
}

/// The fault that a check looks for.
struct Fault {
    /// Stable: scripts know it, and `docs/doctor.md` explains it.
    name: &'static str,
    severity: Severity,
    /// Why it matters.
    why: &'static str,
}

impl Fault {
    const fn problem(name: &'static str, why: &'static str) -> Self {
        Self {
            name,
            severity: Severity::Problem,
            why,
        }
    }

    const fn warning(name: &'static str, why: &'static str) -> Self {
        Self {
            name,
            severity: Severity::Warning,
            why,
        }
    }

    const fn note(name: &'static str, why: &'static str) -> Self {
        Self {
            name,
            severity: Severity::Note,
            why,
        }
    }

    /// The check for it, for which everything is always there.
    const fn always(self, look: fn(&Facts) -> Vec<Finding>) -> Check {
        Check {
            fault: self,
            look: Look::Always(look),
        }
    }

    /// The check for it, which needs facts that could perhaps not be observed.
    const fn if_seen(self, look: fn(&Facts) -> Looked) -> Check {
        Check {
            fault: self,
            look: Look::IfSeen(look),
        }
    }

    /// The check for it where nobody but the agent knows.
    const fn by_agent(self) -> Check {
        Check {
            fault: self,
            look: Look::Told,
        }
    }

    fn at(&self, object: impl Display, what: impl Into<String>, cure: Cure) -> Finding {
        Finding {
            check: self.name.to_owned(),
            severity: self.severity,
            object: object.to_string(),
            what: what.into(),
            why: self.why.to_owned(),
            follows_from: None,
            cure,
        }
    }
}

/// A cure that takes a decision.
fn advice(text: impl Into<String>) -> Cure {
    Cure {
        text: text.into(),
        commands: Vec::new(),
    }
}

/// A cure by one command.
fn command(text: impl Into<String>, command: impl Into<String>) -> Cure {
    Cure {
        text: text.into(),
        commands: vec![command.into()],
    }
}

/// What only helps when it is the same everywhere.
fn on_all_nodes(set: impl Display, network: &Name) -> String {
    format!("set {set} for network {network} on all nodes")
}

/// All checks, in the order in which one would look: the machine first, containers last, and the link
/// before the way that leads by it.
fn all() -> impl Iterator<Item = Check> {
    machine::CHECKS
        .into_iter()
        .chain(agent::CHECKS)
        .chain(devices::CHECKS)
        .chain(setup::CHECKS)
        .chain(settings::CHECKS)
        .chain(programs::CHECKS)
        .chain(firewall::CHECKS)
        .chain(routes::CHECKS)
        .chain(peers::CHECKS)
        .chain(tunnel::CHECKS)
        .chain(wire::CHECKS)
        .chain(room::CHECKS)
        .chain(containers::CHECKS)
}

/// Names of all checks.
pub fn names() -> Vec<&'static str> {
    all().map(|check| check.fault.name).collect()
}

/// What came of all checks.
#[derive(Debug, Default)]
pub(super) struct Judgement {
    pub(super) findings: Vec<Finding>,
    pub(super) passed: Vec<String>,
    pub(super) skipped: Vec<Skipped>,
}

/// Makes all checks, and adds what the agent knows and they have not found.
pub(super) fn judge(facts: &Facts) -> Judgement {
    let mut judgement = Judgement::default();
    for check in all() {
        let name = check.fault.name.to_owned();
        let looked = match check.look {
            Look::Always(look) => Ok(look(facts)),
            Look::IfSeen(look) => look(facts),
            Look::Told if facts.agent.running => Ok(Vec::new()),
            Look::Told => Err("no agent runs".to_owned()),
        };
        let (mut found, unseen) = match looked {
            Ok(found) => (found, None),
            Err(because) => (Vec::new(), Some(because)),
        };
        let told = told(facts, &check.fault, &found);
        found.extend(told);
        match unseen {
            Some(because) if found.is_empty() => judgement.skipped.push(Skipped {
                check: name,
                because,
            }),
            None if found.is_empty() => judgement.passed.push(name),
            _ => judgement.findings.extend(found),
        }
    }
    tell_once(facts, &mut judgement);
    if let Some(netns) = &facts.commands.netns {
        for finding in &mut judgement.findings {
            finding.cure.text = on_node(&finding.cure.text, netns);
        }
    }
    causes::in_order(facts, &mut judgement.findings);
    judgement
}

/// What says of a peer why it is silent.
const OF_THE_PEER: [&str; 10] = [
    troubles::OWN_KEY,
    "peer-no-handshake",
    troubles::PEER_NO_ROUTE,
    troubles::DUPLICATE_VTEP,
    "peer-unreachable",
    "stale-neighbour",
    "tunnel-port-closed",
    "tunnel-silent",
    "source-not-behind-peer",
    ids::ONE_WAY,
];
/// The same of all peers.
const OF_THE_NODE: [&str; 3] = ["underlay-missing", "underlay-down", "firewall-drops-tunnel"];

/// Leaves out that a peer is silent where it is told why, and what a peer of several networks has
/// in each of them.
fn tell_once(facts: &Facts, judgement: &mut Judgement) {
    let is_silence =
        |finding: &Finding| [ids::PEER_SILENT, ids::PEER_NEVER_ANSWERED].contains(&&*finding.check);
    let (silent, mut others): (Vec<_>, Vec<_>) = mem::take(&mut judgement.findings)
        .into_iter()
        .partition(is_silence);
    let mut seen = BTreeSet::new();
    others.retain(|it| seen.insert((it.check.clone(), it.object.clone(), it.what.clone())));
    for finding in silent {
        let mut same = facts
            .peers
            .iter()
            .filter(|peer| peer.name.as_str() == finding.object);
        let vtep = same.next().map(|peer| peer.vtep.to_string());
        let says_why = |other: &&Finding| {
            let is_its = other.object == finding.object || Some(&other.object) == vtep.as_ref();
            OF_THE_NODE.contains(&&*other.check) || (OF_THE_PEER.contains(&&*other.check) && is_its)
        };
        match others.iter().find(says_why) {
            Some(why) => judgement.skipped.push(Skipped {
                because: format!("{} says why {} is silent", why.check, finding.object),
                check: finding.check,
            }),
            None => judgement.findings.push(finding),
        }
    }
    // What is wrong with the node comes before whom it does not hear.
    others.append(&mut judgement.findings);
    judgement.findings = others;
}

/// What the agent knows of a fault, besides what was found just now: `status` tells the same.
fn told(facts: &Facts, fault: &Fault, found: &[Finding]) -> Vec<Finding> {
    let troubles = facts.agent.troubles.iter();
    let of_this = troubles.filter(|trouble| trouble.id == fault.name);
    let new = of_this.filter(|trouble| !found.iter().any(|found| found.object == trouble.subject));
    new.map(|trouble| {
        let cure = advice(trouble.cure.clone());
        fault.at(&trouble.subject, &trouble.what, cure)
    })
    .collect()
}

/// Things as a list for people; of very many, the first.
fn list(things: impl IntoIterator<Item = impl Display>) -> String {
    const NAMED: usize = 5;
    let mut names: Vec<String> = things.into_iter().map(|thing| thing.to_string()).collect();
    let more = names.len().saturating_sub(NAMED);
    names.truncate(NAMED);
    let first = names.join(", ");
    if more > 0 {
        format!("{first} and {more} more")
    } else {
        first
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use overlay_core::trouble::{Trouble, ids};

    use super::{healthy::facts, judge, list, names};
    use crate::doctor::facts::Answer;

    #[test]
    fn names_are_stable_words_and_unique() {
        let names = names();
        let unique: BTreeSet<_> = names.iter().collect();
        assert_eq!(unique.len(), names.len());
        for name in names {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            assert!(name.chars().all(plain), "{name}");
        }
    }

    #[test]
    fn a_healthy_node_has_nothing() {
        let judgement = judge(&facts());
        assert!(judgement.findings.is_empty(), "{:#?}", judgement.findings);
        assert!(judgement.skipped.is_empty(), "{:#?}", judgement.skipped);
        assert_eq!(judgement.passed.len(), names().len());
    }

    #[test]
    fn a_dead_peer_of_two_networks_is_one_finding() {
        let mut facts = facts();
        facts.peers[0].port_answer = Answer::Answered;
        let in_another_network = facts.peers[0].clone();
        facts.peers.push(in_another_network);
        for id in [ids::PEER_SILENT, ids::PEER_NEVER_ANSWERED] {
            let silent = Trouble::new(id, "n2", "silent", "look");
            facts.agent.troubles = vec![silent];
            let judgement = judge(&facts);
            let found: Vec<_> = judgement.findings.iter().map(|it| &*it.check).collect();
            assert_eq!(found, ["tunnel-port-closed"]);
            assert_eq!(judgement.skipped[0].check, id);
            assert!(!judgement.passed.iter().any(|passed| passed == id));
        }
        facts.agent.troubles = vec![Trouble::new(ids::PEER_SILENT, "n3", "silent", "look")];
        assert_eq!(judge(&facts).findings.len(), 2, "another one is dead, too");
    }

    #[test]
    fn of_very_many_the_first_are_named() {
        assert_eq!(list(["a", "b"]), "a, b");
        assert_eq!(list(1..=7), "1, 2, 3, 4, 5 and 2 more");
    }
}
