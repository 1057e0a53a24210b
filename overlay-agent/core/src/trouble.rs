//! Problems, in the one form that the log, `status` and `doctor` share.

use std::{borrow::Cow, fmt, path::Path};

use serde::Serialize;

use crate::model::Name;

/// One thing that is not as it should be, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Trouble {
    /// Stable, in kebab case: scripts know it, and `docs/doctor.md` explains it.
    pub id: &'static str,
    /// Its subject: a peer, an endpoint, a device, a network.
    pub subject: String,
    /// The operation with its object; empty where there was none.
    pub operation: String,
    /// The fault.
    pub what: String,
    /// The cure.
    pub cure: Cow<'static, str>,
    /// The endpoint that it concerns, if it concerns one.
    #[serde(skip)]
    pub endpoint: Option<Name>,
}

impl Trouble {
    /// For what concerns no single endpoint.
    pub fn new(
        id: &'static str,
        subject: impl fmt::Display,
        what: impl Into<String>,
        cure: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            id,
            subject: subject.to_string(),
            operation: String::new(),
            what: without_numbers(&what.into()),
            cure: cure.into(),
            endpoint: None,
        }
    }

    /// Adds what was to be done.
    #[must_use]
    pub fn during(mut self, operation: impl Into<String>) -> Self {
        self.operation = operation.into();
        self
    }

    /// Lets the commands of the cure be pasted anywhere on a machine that has other instances, and
    /// nodes that are namespaces.
    pub fn cure_on(&mut self, instance: Option<&Name>, netns: Option<&Path>) {
        if let Some(netns) = netns {
            self.cure = on_node(&self.cure, netns).into();
        }
        if let Some(instance) = instance {
            self.cure = for_instance(&self.cure, instance).into();
        }
    }

    /// Adds whom it concerns.
    #[must_use]
    pub fn of_endpoint(mut self, endpoint: &Name) -> Self {
        self.endpoint = Some(endpoint.clone());
        self
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        sentence(f, &self.operation, &self.what, &self.cure)
    }
}

/// Several as one text, a line each.
pub fn list<'a>(troubles: impl IntoIterator<Item = &'a Trouble>) -> String {
    let lines: Vec<String> = troubles.into_iter().map(Trouble::to_string).collect();
    lines.join("\n")
}

/// Operation, cause and cure as one sentence.
pub fn sentence(
    f: &mut fmt::Formatter<'_>,
    operation: &str,
    what: &str,
    cure: &str,
) -> fmt::Result {
    if !operation.is_empty() {
        write!(f, "{operation}: ")?;
    }
    write!(f, "{what}; {cure}")
}

/// Without the numbers of the kernel's errors, which the standard library adds to their words.
pub fn without_numbers(message: &str) -> String {
    let mut out = String::new();
    let mut rest = message;
    while let Some((before, after)) = rest.split_once(" (os error ") {
        out += before;
        rest = match after.split_once(')') {
            Some((number, after)) if number.bytes().all(|byte| byte.is_ascii_digit()) => after,
            _ => {
                out += " (os error ";
                after
            }
        };
    }
    out + rest
}

/// Programs that look at the network namespace that they run in, or change it.
const OF_THE_NODE: [&str; 9] = [
    "ip",
    "bridge",
    "nft",
    "ss",
    "sysctl",
    "tc",
    "ethtool",
    "tcpdump",
    "tracepath",
];

/// A command in a network namespace.
///
/// `nsenter`, because `ip netns exec` takes names alone, and mounts a `/sys` without bpffs.
pub fn inside(netns: &Path, command: impl fmt::Display) -> String {
    format!("nsenter --net={} {command}", netns.display())
}

/// A text in whose quotes commands about a node enter its namespace first.
pub fn on_node(text: &str, netns: &Path) -> String {
    in_quotes(text, |command| {
        let (program, _) = command.split_once(' ')?;
        let is_one = OF_THE_NODE.contains(&program) && !is_of_the_machine(command);
        is_one.then(|| inside(netns, command))
    })
}

/// A text in whose quotes commands of the agent's program name its instance, unless they are for
/// another node.
pub fn for_instance(text: &str, instance: &Name) -> String {
    let elsewhere = elsewhere(text);
    let mut number = 0;
    in_quotes(text, |command| {
        number += 1;
        let is_here = !elsewhere.contains(&number);
        let is_ours = command.starts_with("overlay-agent ");
        let names_it = command.contains("--instance") || command.contains("--config");
        (is_here && is_ours && !names_it).then(|| format!("{command} --instance {instance}"))
    })
}

/// Which commands, counted from 1, another node is to run: the words beside them say so.
fn elsewhere(text: &str) -> Vec<usize> {
    let parts: Vec<&str> = text.split('"').collect();
    let part = |at: usize| parts.get(at).copied().unwrap_or_default();
    (1..parts.len())
        .step_by(2)
        .filter(|at| is_for_another_node(part(at - 1), part(at + 1)))
        .map(|at| at.div_ceil(2))
        .collect()
}

/// Whether a command in quotes is one for another node, by what stands before it and behind it.
pub fn is_for_another_node(before: &str, after: &str) -> bool {
    const THERE: &str = "on that node";
    let before = before.rsplit([';', ':', '\n']).next();
    let after = after.split([';', ',', '\n']).next();
    let mut clauses = before.into_iter().chain(after);
    clauses.any(|words| words.contains(THERE))
}

/// A text with another command between quotes, where there is to be another one.
fn in_quotes(text: &str, mut other: impl FnMut(&str) -> Option<String>) -> String {
    // What stands between quotes is every other part.
    let parts = text.split('"').enumerate().map(|(number, part)| {
        let other = if number % 2 == 1 { other(part) } else { None };
        other.unwrap_or_else(|| part.to_owned())
    });
    parts.collect::<Vec<_>>().join("\"")
}

/// Whether a command is about namespaces, wherever it is run.
fn is_of_the_machine(command: &str) -> bool {
    command.starts_with("ip netns")
}

/// What the agent itself finds, beside what stands in its way ([`crate::desired::Obstacle`]) or is
/// left out ([`crate::desired::Problem`]).
pub mod ids {
    /// The configuration file is not in force.
    pub const CONFIG_REFUSED: &str = "config-refused";
    /// A file of peers counts not, or not as it is.
    pub const PEERS_REFUSED: &str = "peers-refused";
    /// The helper of the cluster does not run.
    pub const CLUSTER_HELPER: &str = "cluster-helper";
    /// What the cluster's store says does not count.
    pub const CLUSTER_REFUSED: &str = "cluster-refused";
    /// No member of the cluster's store answers.
    pub const CLUSTER_AWAY: &str = "cluster-away";
    /// Something in the cluster's store is wrong, or in this node's way.
    pub const CLUSTER_ENTRY: &str = "cluster-entry";
    /// `subnet.env` cannot be written.
    pub const SUBNET_ENV: &str = "cluster-subnet-env";
    /// The programs cannot be used.
    pub const FASTPATH_UNAVAILABLE: &str = "fastpath-unavailable";
    /// A step fails.
    pub const AGENT_CANNOT: &str = "agent-cannot";
    /// The state is not on the disk.
    pub const STATE_NOT_SAVED: &str = "state-not-saved";
    /// Prometheus cannot be served.
    pub const METRICS_CLOSED: &str = "metrics-closed";
    /// Names of containers are not answered.
    pub const NAMES_CLOSED: &str = "names-closed";
    /// The kernel translates more flows than the programs can know of.
    pub const FLOWS_FULL: &str = "flows-full";
    /// It cannot be asked which flows the kernel translates.
    pub const FLOWS_UNKNOWN: &str = "flows-unknown";
    /// Probes cannot be sent or answered.
    pub const PROBES_FAIL: &str = "probes-fail";
    /// A peer has answered probes and does not any more.
    pub const PEER_SILENT: &str = "peer-silent";
    /// A peer on which an agent should run has never answered probes.
    pub const PEER_NEVER_ANSWERED: &str = "peer-never-answered";
    /// A peer is heard and does not hear us.
    pub const ONE_WAY: &str = "one-way";
    /// Large packets of a peer do not arrive, because this node's underlay has no room for them.
    pub const MTU_BELOW_PEERS: &str = "mtu-below-peers";
    /// Large packets vanish on the way.
    pub const PATH_BLACK_HOLE: &str = "path-black-hole";
    /// The configuration has given away what is behind an endpoint.
    pub const SOURCE_TAKEN: &str = "source-taken";
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Trouble, for_instance, on_node};

    #[test]
    fn a_cure_names_the_instance_that_it_is_for() {
        let text = "delete endpoint x: no; see \"overlay-agent endpoint list\", or \"ip link\"";
        let name = "n1".parse().unwrap();
        let told = for_instance(text, &name);
        assert_eq!(
            told,
            "delete endpoint x: no; see \"overlay-agent endpoint list --instance n1\", or \"ip link\""
        );
        assert_eq!(for_instance(&told, &name), told);
        let start = "start it with \"overlay-agent run --config FILE\"";
        assert_eq!(for_instance(start, &name), start);
    }

    #[test]
    fn what_another_node_is_to_run_names_no_instance_of_this_one() {
        let name = "n1".parse().unwrap();
        for text in [
            "write what \"overlay-agent key\" prints on that node, 44 characters",
            "on that node, \"overlay-agent key\" prints its key, which has to be k here",
            "see on that node, with \"overlay-agent doctor\", whether it has VNI 1",
        ] {
            assert_eq!(for_instance(text, &name), text);
        }
        let both = "start it on that node; see \"overlay-agent status\"";
        assert_eq!(
            for_instance(both, &name),
            "start it on that node; see \"overlay-agent status --instance n1\""
        );
    }

    #[test]
    fn commands_about_a_node_enter_its_namespace_and_no_others_do() {
        let netns = Path::new("/run/netns/n1");
        for (text, expected) in [
            (
                "see \"ip route get 192.0.2.1\", or \"ss -lunp sport = 1\"",
                "see \"nsenter --net=/run/netns/n1 ip route get 192.0.2.1\", or \
                 \"nsenter --net=/run/netns/n1 ss -lunp sport = 1\"",
            ),
            (
                "make it with \"ip netns add x\"",
                "make it with \"ip netns add x\"",
            ),
            ("write \"ip\" or ip link", "write \"ip\" or ip link"),
            ("run \"overlay-agent down\"", "run \"overlay-agent down\""),
        ] {
            let once = on_node(text, netns);
            assert_eq!(once, expected);
            assert_eq!(on_node(&once, netns), once);
        }
    }

    #[test]
    fn it_reads_as_operation_cause_cure() {
        let trouble = Trouble::new("peer-no-route", "n2", "there is no route", "add one");
        assert_eq!(trouble.to_string(), "there is no route; add one");
        let trouble = trouble.during("reach peer n2");
        assert_eq!(
            trouble.to_string(),
            "reach peer n2: there is no route; add one"
        );
    }
}
