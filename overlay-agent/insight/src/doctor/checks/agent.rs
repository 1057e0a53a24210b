//! The instance's agent, and what it says of itself.

use overlay_control::Finding;
use overlay_core::trouble::ids;

use super::{Check, Fault, command};
use crate::doctor::facts::Facts;

const REFUSED: Fault = Fault::problem(
    ids::CONFIG_REFUSED,
    "What the file asks for is not in force; the node works by the one before.",
);
const FRAGMENT_REFUSED: Fault = Fault::problem(
    ids::PEERS_REFUSED,
    "None of its peers counts but those of its last good version; all else is in force.",
);
const CLUSTER_HELPER: Fault = Fault::problem(
    ids::CLUSTER_HELPER,
    "The cluster's peers are those of before: who has come or moved since is not reached.",
);
const CLUSTER_REFUSED: Fault = Fault::problem(
    ids::CLUSTER_REFUSED,
    "The cluster's peers are those of before: who has come or moved since is not reached.",
);
const CLUSTER_AWAY: Fault = Fault::problem(
    ids::CLUSTER_AWAY,
    "Known peers are reached as before; who has come or moved since is not.",
);
const CLUSTER_ENTRY: Fault = Fault::problem(
    ids::CLUSTER_ENTRY,
    "A node of the cluster is not reached, or this one has no subnet there.",
);
const SUBNET_ENV: Fault = Fault::problem(
    ids::SUBNET_ENV,
    "flannel's CNI plugin gives containers addresses of an old subnet, or none.",
);
const UNAVAILABLE: Fault = Fault::problem(
    ids::FASTPATH_UNAVAILABLE,
    "The kernel's VXLAN device carries everything, slower, and without the checks of sources.",
);
const FAILED: Fault = Fault::problem(
    ids::AGENT_CANNOT,
    "The node is not as the configuration asks for; the agent tries again and again.",
);
const NOT_SAVED: Fault = Fault::problem(
    ids::STATE_NOT_SAVED,
    "After a reboot the agent would not know the containers and addresses of now.",
);
const METRICS: Fault = Fault::warning(
    ids::METRICS_CLOSED,
    "Prometheus does not see this node, and cannot warn of anything.",
);
const NAMES: Fault = Fault::problem(
    ids::NAMES_CLOSED,
    "Containers find nobody by name, and where they have no other name server, nothing.",
);
const FLOWS_FULL: Fault = Fault::problem(
    ids::FLOWS_FULL,
    "The kernel carries these networks whole, slower, and with nothing lost.",
);
const FLOWS_UNKNOWN: Fault = Fault::warning(
    ids::FLOWS_UNKNOWN,
    "A translated connection that is silent while 131,072 newer ones begin does not get its next answer.",
);
const PROBES: Fault = Fault::warning(
    ids::PROBES_FAIL,
    "A peer that cannot be reached is not noticed.",
);
const SILENT: Fault = Fault::problem(
    ids::PEER_SILENT,
    "Its containers cannot be reached, or its agent does not run any more.",
);
const NEVER: Fault = Fault::problem(
    ids::PEER_NEVER_ANSWERED,
    "Nobody answers there: its containers may not be reached, its agent may not run, or it has none.",
);
const BELOW: Fault = Fault::problem(
    ids::MTU_BELOW_PEERS,
    "Full packets of the others vanish on the way here without a word: connections open, and then hang.",
);
const SOURCE: Fault = Fault::problem(
    ids::SOURCE_TAKEN,
    "What the container forwards for others is dropped.",
);
const REPLACED: Fault = Fault::warning(
    "agent-replaced",
    "What runs is not what is installed; a restart loses no packet.",
);
const SWITCHED_OFF: Fault = Fault::note(
    "fastpath-off",
    "An operator has switched it off; the kernel's VXLAN device carries everything.",
);

pub(super) const CHECKS: [Check; 21] = [
    REFUSED.by_agent(),
    FRAGMENT_REFUSED.by_agent(),
    CLUSTER_HELPER.by_agent(),
    CLUSTER_REFUSED.by_agent(),
    CLUSTER_AWAY.by_agent(),
    CLUSTER_ENTRY.by_agent(),
    SUBNET_ENV.by_agent(),
    UNAVAILABLE.by_agent(),
    FAILED.by_agent(),
    NOT_SAVED.by_agent(),
    METRICS.by_agent(),
    NAMES.by_agent(),
    FLOWS_FULL.by_agent(),
    FLOWS_UNKNOWN.by_agent(),
    PROBES.by_agent(),
    SILENT.by_agent(),
    NEVER.by_agent(),
    BELOW.by_agent(),
    SOURCE.by_agent(),
    REPLACED.always(replaced),
    SWITCHED_OFF.always(switched_off),
];

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
    let cure = command("switch it on again", facts.commands.agent("fastpath on"));
    let what = "it was switched off with \"overlay-agent fastpath off\"";
    vec![SWITCHED_OFF.at("fast path", what, cure)]
}

#[cfg(test)]
mod tests {
    use overlay_control::Severity;
    use overlay_core::{
        desired::Problem,
        trouble::{Trouble, ids},
    };

    use super::super::healthy::{broken, only};

    #[test]
    fn what_the_agent_says_is_told_once() {
        let problem = Problem::NoWay {
            peer: "n2".parse().unwrap(),
            vtep: "192.168.56.12".parse().unwrap(),
        };
        let found = only("peer-no-route", |facts| {
            facts.agent.troubles = vec![Trouble::from(&problem)];
            facts.problems = vec![problem.clone()];
        });
        assert_eq!(found.object, "n2");
        let found = only("agent-cannot", |facts| {
            facts.agent.troubles = vec![Trouble::new(ids::AGENT_CANNOT, "ovl1", "busy", "wait")];
        });
        assert_eq!(
            (&*found.object, &*found.what, &*found.cure.text),
            ("ovl1", "busy", "wait")
        );
    }

    #[test]
    fn all_that_the_agent_knows_is_found_under_the_same_name() {
        let all = [
            ids::CONFIG_REFUSED,
            ids::FASTPATH_UNAVAILABLE,
            ids::AGENT_CANNOT,
            ids::STATE_NOT_SAVED,
            ids::METRICS_CLOSED,
            ids::NAMES_CLOSED,
            ids::FLOWS_FULL,
            ids::FLOWS_UNKNOWN,
            ids::PROBES_FAIL,
            ids::PEER_SILENT,
            ids::PEER_NEVER_ANSWERED,
            ids::ONE_WAY,
            ids::PATH_BLACK_HOLE,
            ids::SOURCE_TAKEN,
            "endpoint-not-attached",
            "duplicate-vtep",
        ];
        for id in all {
            let found = only(id, |facts| {
                facts.agent.troubles = vec![Trouble::new(id, "it", "wrong", "right it")];
            });
            assert_eq!((&*found.object, &*found.what), ("it", "wrong"));
        }
    }

    #[test]
    fn two_faults_of_a_kind_are_both_told() {
        let found = broken(|facts| {
            let of = |subject| Trouble::new(ids::PEER_SILENT, subject, "silent", "look");
            facts.agent.troubles = vec![of("n2"), of("n3")];
        });
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn an_agent_that_was_replaced_or_switched_off_is_told() {
        only("agent-replaced", |facts| facts.agent.replaced = true);
        let found = only("fastpath-off", |facts| facts.agent.fastpath_off = true);
        assert_eq!(found.severity, Severity::Note);
    }
}
