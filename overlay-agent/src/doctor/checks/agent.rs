//! The instance's agent, and what it says of itself.

use std::collections::BTreeSet;

use super::{Check, Fault, Look, advice, command, machine, setup::split};
use crate::{api::Finding, doctor::facts::Facts};

const REFUSED: Fault = Fault::problem(
    "config-refused",
    "What the file asks for is not in force; the node works by the one before.",
);
const UNAVAILABLE: Fault = Fault::problem(
    "fastpath-unavailable",
    "The kernel's VXLAN device carries everything, slower, and without the checks of sources.",
);
const FAILED: Fault = Fault::problem(
    "agent-cannot",
    "The node is not as the configuration asks for; the agent tries again and again.",
);
const REPLACED: Fault = Fault::warning(
    "agent-replaced",
    "What runs is not what is installed; a restart loses no packet.",
);
const SWITCHED_OFF: Fault = Fault::note(
    "fastpath-off",
    "An operator has switched it off; the kernel's VXLAN device carries everything.",
);

pub(super) const CHECKS: [Check; 5] = [
    Check {
        fault: REFUSED,
        look: Look::Always(refused),
    },
    Check {
        fault: UNAVAILABLE,
        look: Look::Always(unavailable),
    },
    Check {
        fault: FAILED,
        look: Look::Always(failed),
    },
    Check {
        fault: REPLACED,
        look: Look::Always(replaced),
    },
    Check {
        fault: SWITCHED_OFF,
        look: Look::Always(switched_off),
    },
];

fn refused(facts: &Facts) -> Vec<Finding> {
    let reasons = facts.agent.refused.iter();
    let cure = "correct the file; \"overlay-agent check --config FILE\" tells all that is wrong";
    reasons
        .map(|why| REFUSED.at("configuration", why, advice(cure)))
        .collect()
}

fn unavailable(facts: &Facts) -> Vec<Finding> {
    if machine::keeps_programs_out(facts) {
        return Vec::new();
    }
    let reasons = facts.agent.unavailable.iter();
    reasons
        .map(|reason| {
            let (what, cure) = split(reason);
            UNAVAILABLE.at("fast path", what, advice(cure))
        })
        .collect()
}

/// What no other check of the set-up has a name for.
fn failed(facts: &Facts) -> Vec<Finding> {
    let obstacles = facts.obstacles.iter().map(ToString::to_string);
    let problems = facts.problems.iter().map(ToString::to_string);
    let named: BTreeSet<String> = obstacles.chain(problems).collect();
    let told = facts.agent.problems.iter().flat_map(|text| text.lines());
    told.filter(|problem| !named.contains(*problem))
        .map(|problem| {
            let (what, cure) = split(problem);
            FAILED.at("agent", what, advice(cure))
        })
        .collect()
}

fn replaced(facts: &Facts) -> Vec<Finding> {
    if !facts.agent.replaced {
        return Vec::new();
    }
    let cure = command("restart it", "systemctl restart overlay-agent");
    let what = "its program was replaced or removed on the disk after it was started";
    vec![REPLACED.at("agent", what, cure)]
}

fn switched_off(facts: &Facts) -> Vec<Finding> {
    if !facts.agent.fastpath_off {
        return Vec::new();
    }
    let cure = command("switch it on again", "overlay-agent fastpath on");
    let what = "it was switched off with \"overlay-agent fastpath off\"";
    vec![SWITCHED_OFF.at("fast path", what, cure)]
}

#[cfg(test)]
mod tests {
    use super::super::healthy::only;
    use crate::{api::Severity, desired::Problem};

    #[test]
    fn what_the_agent_says_is_told_once() {
        let problem = Problem::NoWay {
            peer: "n2".parse().unwrap(),
            vtep: "192.168.56.12".parse().unwrap(),
        };
        let found = only("peer-no-route", |facts| {
            facts.agent.problems = vec![problem.to_string()];
            facts.problems = vec![problem.clone()];
        });
        assert_eq!(found.object, "n2");
        let found = only("agent-cannot", |facts| {
            facts.agent.problems = vec!["set ovl1 up: it is busy; wait".to_owned()];
        });
        assert_eq!(found.what, "set ovl1 up: it is busy");
        assert_eq!(found.cure.text, "wait");
    }

    #[test]
    fn an_agent_that_does_not_use_its_file_or_programs_is_told() {
        let found = only("config-refused", |facts| {
            facts.agent.refused = Some("line 3: no such key".to_owned());
        });
        assert_eq!(found.what, "line 3: no such key");
        only("fastpath-unavailable", |facts| {
            facts.agent.unavailable = Some("load programs: no; yes".to_owned());
        });
        only("kernel-too-old", |facts| {
            "5.15.0".clone_into(&mut facts.machine.release);
            facts.agent.unavailable = Some("check the kernel's release: no; yes".to_owned());
        });
        only("agent-replaced", |facts| facts.agent.replaced = true);
        let found = only("fastpath-off", |facts| facts.agent.fastpath_off = true);
        assert_eq!(found.severity, Severity::Note);
    }
}
