//! Nodes at a switch whose wire goes bad, and what they were like when all was well.

use anyhow::{Context as _, Result};
use overlay_common::{
    maps::{ENDPOINTS4, NETWORKS, PEERS4, PORTS, VTEPS4},
    wire,
};
use overlay_tests::{
    check::{self, Answer},
    counters,
    families::{Families, Family},
    faults::{self, Fault, Faulty},
    guard::Guard,
    scenario,
    shape::{Scenario, Shape},
    snapshot::Snapshot,
    topology::{Container, UNDERLAY},
    traffic::Pair,
};
use serde_json::Value;

/// Who carries packets between the nodes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Path {
    Fast,
    Slow,
    /// No agent at all: the kernel's VXLAN, which sends no checksums either.
    Kernel,
}

/// Three nodes with a container each at a switch, and what they were like when all was well.
pub(crate) struct Stand {
    pub(crate) guard: Guard,
    pub(crate) path: Path,
    before: Vec<Snapshot>,
    maps: Vec<Vec<Value>>,
}

impl Stand {
    pub(crate) fn raise(name: &str, path: Path) -> Result<Self> {
        Self::raise_over(Families::V4, name, path)
    }

    pub(crate) fn raise_over(over: Families, name: &str, path: Path) -> Result<Self> {
        let scenario = match path {
            Path::Fast | Path::Slow => Scenario::Overlay,
            Path::Kernel => Scenario::Vxlan,
        };
        let shape = Shape::of(name, scenario, 3, 1)?
            .on_port(wire::IANA_PORT)
            .speaking(over, Families::V4)?;
        let guard = Guard::by(shape, |topology, agent| {
            let mut script = scenario::up(topology, agent);
            script.reword(|argv| {
                if argv.iter().any(|word| word == "vxlan") {
                    argv.push("noudpcsum".to_owned());
                }
            });
            script
        })?;
        faults::plain_frames(guard.topology(), UNDERLAY)?;
        if path == Path::Slow {
            guard
                .agents()
                .iter()
                .try_for_each(|agent| agent.fastpath(false))?;
        }
        let mut stand = Self {
            guard,
            path,
            before: Vec::new(),
            maps: Vec::new(),
        };
        stand.reaches_everyone()?;
        stand.before = stand.snapshots()?;
        stand.maps = stand.maps()?;
        Ok(stand)
    }

    pub(crate) fn container(&self, node: usize) -> &Container {
        &self.guard.topology().nodes[node].containers[0]
    }

    /// The one who asks, and the one who answers, behind the bad wire.
    pub(crate) fn pair(&self) -> Pair<'_> {
        Pair::between(self.container(0), self.container(1), Family::V4)
    }

    /// Makes the wire to the second node faulty.
    pub(crate) fn fault(&self, fault: Fault) -> Result<Faulty> {
        self.fault_towards(1, fault)
    }

    pub(crate) fn fault_towards(&self, node: usize, fault: Fault) -> Result<Faulty> {
        let topology = self.guard.topology();
        Ok(Faulty::towards(topology, &topology.nodes[node], fault)?)
    }

    pub(crate) fn reaches_everyone(&self) -> Result<()> {
        check::all_pairs_are_well(self.guard.topology())?;
        Ok(())
    }

    fn snapshots(&self) -> Result<Vec<Snapshot>> {
        let nodes = self.guard.topology().nodes.iter();
        Ok(nodes
            .map(|node| Snapshot::of(&node.namespace))
            .collect::<Result<_, _>>()?)
    }

    /// What the programs look up, on each node that has them.
    fn maps(&self) -> Result<Vec<Vec<Value>>> {
        let of = |instance: &str| -> Result<Vec<Value>> {
            let mut entries = Vec::new();
            for map in [NETWORKS, PEERS4, VTEPS4, ENDPOINTS4, PORTS] {
                let mut found = counters::dump(instance, map)?;
                found.sort_by_key(ToString::to_string);
                entries.extend(found);
            }
            Ok(entries)
        };
        let agents = self.guard.agents();
        agents.iter().map(|agent| of(&agent.instance)).collect()
    }

    /// What the second node has received and sent by the fast path, and the drops of all.
    pub(crate) fn carried_by_second(&self) -> Result<(u64, u64)> {
        let carried = counters::carried(&self.guard.agent(2).instance)?;
        Ok((carried.received, carried.sent))
    }

    /// Everything is as it was before the fault, from the first packet on.
    pub(crate) fn is_unharmed(&self) -> Result<()> {
        let answer = check::ping(&self.container(0).namespace, self.container(1).address)?;
        assert!(
            matches!(answer, Answer::Ttl(_)),
            "{:?}: {answer:?}",
            self.path
        );
        self.reaches_everyone()?;
        for (now, before) in self.snapshots()?.iter().zip(&self.before) {
            let changes = now.changes_since(before);
            assert!(changes.lines.is_empty(), "{:?}: {changes}", self.path);
        }
        assert_eq!(self.maps()?, self.maps, "{:?}", self.path);
        for agent in self.guard.agents() {
            assert_eq!(agent.plan()?, Vec::<Value>::new(), "{:?}", self.path);
        }
        self.pair().tcp(&[1 << 20])?;
        Ok(())
    }
}

/// Does the same with the kernel's VXLAN, with the fast path and with the slow one.
pub(crate) fn on_all_paths(name: &str, test: impl Fn(&Stand) -> Result<()>) -> Result<()> {
    for (path, letter) in [(Path::Kernel, 'k'), (Path::Fast, 'f'), (Path::Slow, 's')] {
        let stand = Stand::raise(&format!("{name}{letter}"), path)?;
        test(&stand).with_context(|| format!("{path:?}"))?;
        stand.guard.down()?;
    }
    Ok(())
}
