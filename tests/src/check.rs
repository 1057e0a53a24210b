//! Reachability: a ping from every node and container to every node, gateway and container.

use std::{collections::VecDeque, fmt, net::IpAddr, sync::Mutex, thread, time::Duration};

use crate::{
    error::{Error, Result},
    families::{Families, Family},
    run,
    script::inside,
    shape::Scenario,
    topology::{Node, Topology},
};

/// TTL with which Linux sends.
const INITIAL_TTL: u8 = 64;
/// How long an answer may take on a machine under load.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pings under way at a time; each is a process that mostly waits.
const PARALLEL: usize = 8;

/// One who sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its namespace.
    pub namespace: String,
    node: u8,
    is_container: bool,
}

/// One who answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Short name, as in a column's head.
    pub label: String,
    /// Where it is pinged.
    pub address: IpAddr,
    node: u8,
    kind: Kind,
}

/// The kind of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A node, at its address on the underlay.
    Node,
    /// A node, at its address on the bridge.
    Gateway,
    Container,
}

/// How an answer must look.
///
/// `ping` shows the TTL that is left of the answer. A container's answer passes its own
/// node's routing when it leaves the node, and the asker's node's when the asker is a
/// container. Nothing routes on the way between two who share a node: bridged traffic,
/// and a node's own, keep their TTL. The path of the question does not matter.
pub fn expected_ttl(source: &Source, target: &Target) -> u8 {
    if source.node == target.node {
        return INITIAL_TTL;
    }
    INITIAL_TTL - u8::from(source.is_container) - u8::from(target.kind == Kind::Container)
}

/// Whether there is a way at all.
///
/// Containers speak the families that the network has. A node answers a remote container
/// from its underlay address through the tunnel, where that is accepted from the tunnel's
/// own address alone: so it has to be of the tunnel's family.
fn is_reachable(topology: &Topology, source: &Source, target: &Target) -> bool {
    let family = Family::of(target.address);
    if !source.is_container || source.node == target.node || target.kind != Kind::Node {
        return !source.is_container || topology.shape.inside.has(family);
    }
    let node = |number: u8| topology.nodes.iter().find(|node| node.number == number);
    let tunnel = node(source.node)
        .zip(node(target.node))
        .map(|(from, to)| topology.tunnel(from, to));
    topology.shape.inside.has(family) && tunnel == Some(family)
}

/// Everyone who sends.
pub fn sources(topology: &Topology) -> Vec<Source> {
    let of_node = |node: &Node| {
        let source = |namespace: &String, is_container| Source {
            namespace: namespace.clone(),
            node: node.number,
            is_container,
        };
        std::iter::once(source(&node.namespace, false))
            .chain(
                node.containers
                    .iter()
                    .map(|container| source(&container.namespace, true)),
            )
            .collect::<Vec<_>>()
    };
    topology.nodes.iter().flat_map(of_node).collect()
}

/// Everyone who answers: nodes first, then gateways, then containers.
pub fn targets(topology: &Topology) -> Vec<Target> {
    let shape = &topology.shape;
    let both =
        [shape.underlay, shape.inside].contains(&Families::Both) || shape.underlay != shape.inside;
    let target = |label: String, node: &Node, kind: Kind, address: IpAddr| Target {
        label: match Family::of(address) {
            Family::V6 if both => format!("{label}/6"),
            _ => label,
        },
        address,
        node: node.number,
        kind,
    };
    let mut targets = Vec::new();
    for node in &topology.nodes {
        for &family in shape.underlay.all() {
            let label = format!("n{}", node.number);
            targets.push(target(label, node, Kind::Node, node.underlay_at(family)));
        }
    }
    for node in &topology.nodes {
        for gateway in shape
            .inside
            .all()
            .iter()
            .filter_map(|&family| node.gateway_at(family))
        {
            let label = format!("gw{}", node.number);
            targets.push(target(label, node, Kind::Gateway, gateway));
        }
    }
    for node in &topology.nodes {
        for container in &node.containers {
            for &family in shape.inside.all() {
                let label = format!("n{}c{}", node.number, container.number);
                targets.push(target(label, node, Kind::Container, container.at(family)));
            }
        }
    }
    targets
}

/// The largest packet that a namespace's kernel would send to an address, after what routers
/// have said.
pub fn path_mtu(namespace: &str, to: IpAddr) -> Result<u16> {
    let ask = |question: String| run::json(format!("ip -n {namespace} -j {question}"));
    let route = &ask(format!("route get {to}"))?[0];
    let mut mtu = route["metrics"][0]["mtu"].as_u64();
    if mtu.is_none() {
        let device = route["dev"].as_str().unwrap_or_default();
        mtu = ask(format!("link show dev {device}"))?[0]["mtu"].as_u64();
    }
    mtu.and_then(|mtu| mtu.try_into().ok()).ok_or_else(|| {
        Error::output(
            format!("ip -n {namespace} -j route get {to}"),
            format!("no MTU in {route}"),
        )
    })
}

/// The outcome of one ping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It came back with this TTL.
    Ttl(u8),
    /// It did not; what `ping` said.
    None(String),
}

/// All pings of a lab.
#[derive(Clone, Debug)]
pub struct Matrix {
    scenario: Scenario,
    sources: Vec<Source>,
    targets: Vec<Target>,
    /// Row by row; none where there is no way.
    answers: Vec<Option<Answer>>,
}

/// Pings every pair once, without a second try: a network that loses its first packet is broken.
pub fn all_pairs(topology: &Topology) -> Result<Matrix> {
    let (sources, targets) = (sources(topology), targets(topology));
    let pairs = sources
        .iter()
        .flat_map(|source| targets.iter().map(move |target| (source, target)));
    let waiting: Mutex<VecDeque<_>> = Mutex::new(pairs.enumerate().collect());
    let next = || {
        waiting
            .lock()
            .map_or(None, |mut waiting| waiting.pop_front())
    };
    let worker = || -> Result<Vec<(usize, Option<Answer>)>> {
        let mut done = Vec::new();
        while let Some((index, (source, target))) = next() {
            let answer = is_reachable(topology, source, target)
                .then(|| ping(&source.namespace, target.address))
                .transpose()?;
            done.push((index, answer));
        }
        Ok(done)
    };
    let mut answers = thread::scope(|scope| {
        let workers: Vec<_> = (0..PARALLEL).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().try_fold(Vec::new(), |mut all, worker| {
            let done = worker
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            all.extend(done?);
            Ok::<_, Error>(all)
        })
    })?;
    answers.sort_by_key(|&(index, _)| index);
    let answers = answers.into_iter().map(|(_, answer)| answer).collect();
    Ok(Matrix {
        scenario: topology.shape.scenario,
        sources,
        targets,
        answers,
    })
}

/// Asserts that every pair reaches each other as it must.
///
/// # Panics
/// When one does not.
pub fn all_pairs_are_well(topology: &Topology) -> Result<()> {
    let matrix = all_pairs(topology)?;
    assert_eq!(matrix.faults(), Vec::<String>::new(), "\n{matrix}");
    Ok(())
}

/// One ping from a namespace.
pub fn ping(namespace: &str, address: impl Into<IpAddr>) -> Result<Answer> {
    ping_for(namespace, address.into(), PATIENCE)
}

/// One ping that is waited for so long.
pub fn ping_for(namespace: &str, address: IpAddr, patience: Duration) -> Result<Answer> {
    let seconds = patience.as_secs_f32();
    let ping = format!("ping -n -c 1 -W {seconds} {address}");
    let line = inside(namespace, ping);
    let out = run::output(&line)?;
    let ttl = out
        .stdout
        .split_whitespace()
        .find_map(|word| word.strip_prefix("ttl=")?.parse().ok());
    match ttl {
        Some(ttl) if out.success => Ok(Answer::Ttl(ttl)),
        _ if out.code == Some(1) => Ok(Answer::None(reason(&out.stdout))),
        // Exit code 2 is about ping itself, not about the network, but for "unreachable".
        _ if out.stderr.contains("nreachable") => Ok(Answer::None(out.stderr.trim().to_owned())),
        _ => Err(Error::output(line, out.stderr)),
    }
}

/// Asserts how many routers are on the way there: TTL or hop limit decides whether a ping
/// arrives.
///
/// # Panics
/// When there are more or fewer.
pub fn routers_on_the_way(from: &str, to: &str, routers: u8) -> Result<()> {
    let reaches = |limit: u8| -> Result<bool> {
        let ping = format!("ping -n -c 1 -W 5 -t {limit} {to}");
        Ok(run::output(inside(from, ping))?.success)
    };
    let enough = routers + 1;
    assert!(reaches(enough)?, "{from} → {to}, limit {enough}");
    if routers > 0 {
        assert!(!reaches(routers)?, "{from} → {to}, limit {routers}");
    }
    Ok(())
}

/// The line in which `ping` quotes an ICMP error, or silence.
fn reason(stdout: &str) -> String {
    let error = stdout.lines().find(|line| line.starts_with("From "));
    error.map_or_else(|| "no answer in time".to_owned(), str::to_owned)
}

impl Matrix {
    /// Number of pings.
    pub fn len(&self) -> usize {
        self.answers.iter().flatten().count()
    }

    /// Whether there was nobody to ping.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A sentence for every pair that is not as it must be.
    pub fn faults(&self) -> Vec<String> {
        let wrong = |(source, target, answer): (&Source, &Target, &Option<Answer>)| {
            let expected = expected_ttl(source, target);
            let fault = match answer.as_ref()? {
                Answer::Ttl(ttl) if *ttl == expected => return None,
                Answer::Ttl(ttl) => format!("answered with TTL {ttl}, must be {expected}"),
                Answer::None(why) => why.clone(),
            };
            Some(format!(
                "{} → {} ({}): {fault}",
                source.namespace, target.label, target.address
            ))
        };
        self.cells().filter_map(wrong).collect()
    }

    fn cells(&self) -> impl Iterator<Item = (&Source, &Target, &Option<Answer>)> {
        let pairs = self
            .sources
            .iter()
            .flat_map(|source| self.targets.iter().map(move |target| (source, target)));
        pairs
            .zip(&self.answers)
            .map(|((source, target), answer)| (source, target, answer))
    }
}

impl fmt::Display for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let longest = |lengths: &mut dyn Iterator<Item = usize>| lengths.max().unwrap_or(0);
        let first = longest(&mut self.sources.iter().map(|source| source.namespace.len())).max(9);
        let width = longest(&mut self.targets.iter().map(|target| target.label.len())).max(4);

        write!(f, "{:first$}", "from \\ to")?;
        for target in &self.targets {
            write!(f, "  {:>width$}", target.label)?;
        }
        for (index, (source, target, answer)) in self.cells().enumerate() {
            if index % self.targets.len() == 0 {
                write!(f, "\n{:first$}", source.namespace)?;
            }
            let cell = match answer {
                Some(Answer::Ttl(ttl)) if *ttl == expected_ttl(source, target) => {
                    format!("✓ {ttl}")
                }
                Some(Answer::Ttl(ttl)) => format!("✗ {ttl}"),
                Some(Answer::None(_)) => "✗".to_owned(),
                None => String::new(),
            };
            write!(f, "  {cell:>width$}")?;
        }
        let faults = self.faults();
        let good = self.len() - faults.len();
        write!(
            f,
            "\n{good}/{} pings of scenario {} OK; numbers are the remaining TTL (initially 64)",
            self.len(),
            self.scenario
        )?;
        faults.iter().try_for_each(|fault| write!(f, "\n✗ {fault}"))
    }
}

#[cfg(test)]
mod tests {
    use super::{expected_ttl, sources, targets};
    use crate::{
        shape::{Scenario, Shape},
        topology::Topology,
    };

    fn lab(scenario: Scenario) -> Topology {
        Topology::new(Shape::new("lab".parse().unwrap(), scenario, None, None).unwrap())
    }

    #[test]
    fn the_talk_has_112_pings() {
        let counts = [
            Scenario::Single,
            Scenario::Bridge,
            Scenario::Direct,
            Scenario::Tun,
        ]
        .map(|scenario| sources(&lab(scenario)).len() * targets(&lab(scenario)).len());
        assert_eq!(counts, [4, 12, 48, 48]);
    }

    #[test]
    fn each_router_on_the_way_back_takes_one() {
        let lab = lab(Scenario::Overlay);
        let (sources, targets) = (sources(&lab), targets(&lab));
        let ttl = |from: &str, to: &str| {
            let source = sources
                .iter()
                .find(|source| source.namespace == from)
                .unwrap();
            let target = targets.iter().find(|target| target.label == to).unwrap();
            expected_ttl(source, target)
        };
        assert_eq!(ttl("lab-n1c1", "n2c1"), 62);
        assert_eq!(ttl("lab-n1c1", "n1c2"), 64);
        assert_eq!(ttl("lab-n1", "n2c1"), 63);
        assert_eq!(ttl("lab-n1c1", "n2"), 63);
        assert_eq!(ttl("lab-n1c1", "gw2"), 63);
        assert_eq!(ttl("lab-n1", "n2"), 64);
        assert_eq!(ttl("lab-n1", "gw2"), 64);
    }
}
