//! The cost of many peers.
//!
//! Peers are added behind node 2's address: the kernel's way to `vxlan`, into the maps for
//! `overlay`. A container of node 1 sends to random containers of all of them; node 2
//! drops what arrives, because it is not those peers.

mod floor;
mod frames;
mod kernel;
mod maps;
mod peers;

use anyhow::{Context as _, Result, ensure};
use overlay_common::{
    maps::{MAX_PEERS, PEER_STATS},
    wire,
};
use overlay_tests::{run, script::inside};

use super::{
    labs::Way,
    load::{datagrams, on},
    measure::{Bench, Reading},
    subject::Subject,
    witness,
};

/// What `growth` means on the command line.
pub(crate) const NAME: &str = "growth";

/// A lab whose number of peers grows.
pub(crate) struct Growing {
    way: Way,
    kind: Kind,
    peers: u32,
}

enum Kind {
    Kernel,
    Programs(Box<maps::Node>),
}

impl Growing {
    /// Prepares a subject's lab; it is of no other use afterwards.
    pub(crate) fn prepare(bench: &Bench, subject: Subject) -> Result<Self> {
        let way = bench.labs.across(subject)?;
        sink(&way.server_node)?;
        let (_, peer) = bench.labs.nodes(subject)?;
        let kind = if subject == Subject::Overlay {
            // It would take away entries that its configuration does not name. The programs
            // need no agent to run, but counters for so many peers.
            for agent in bench.labs.agents(subject)? {
                agent.kill()?;
                agent
                    .with("OVERLAY_MAP_ENTRIES", format!("{PEER_STATS}={MAX_PEERS}"))
                    .start()?;
                agent.kill()?;
            }
            Kind::Programs(Box::new(maps::Node::open(&way, peer)?))
        } else {
            kernel::prepare(&way.client_node, peer)?;
            Kind::Kernel
        };
        Ok(Self {
            way,
            kind,
            peers: 0,
        })
    }

    /// Adds peers until there are this many.
    pub(crate) fn grow(&mut self, peers: u32) -> Result<()> {
        let new = self.peers..peers;
        match &self.kind {
            Kind::Kernel => kernel::add(&self.way, new)?,
            Kind::Programs(node) => node.add(new)?,
        }
        self.peers = peers;
        Ok(())
    }

    /// Takes all of them away again, where that is quickly done; whether it was.
    fn shrink(&mut self) -> Result<bool> {
        let Kind::Programs(node) = &self.kind else {
            return Ok(false);
        };
        node.remove(0..self.peers)?;
        self.peers = 0;
        Ok(true)
    }

    /// One round at the present number of peers.
    pub(crate) fn measure(&self, bench: &Bench) -> Result<Vec<Reading>> {
        let rate = Reading::new(&format!("pps_{}_peers", self.peers), self.flood(bench)?)?;
        Ok(vec![rate])
    }

    /// One round of the programs alone with each of these numbers of peers, right after one
    /// another: of the subject itself, and of others that need its maps. None of the kernel.
    pub(crate) fn measure_programs(
        &mut self,
        bench: &Bench,
        numbers: &[u32],
    ) -> Result<Vec<(Subject, Vec<Reading>)>> {
        let mut measured = Vec::new();
        if !self.shrink()? {
            return Ok(measured);
        }
        for &peers in numbers {
            self.grow(peers)?;
            if let Kind::Programs(node) = &self.kind {
                let cost = node.cost(bench.cores.client, peers, bench.times.test_runs)?;
                measured.push((self.way.subject, readings(&cost.overlay, peers)?));
                measured.push((Subject::Ceiling, readings(&cost.floor, peers)?));
            }
        }
        Ok(measured)
    }

    /// Packets per second to random peers.
    fn flood(&self, bench: &Bench) -> Result<f64> {
        let way = &self.way;
        let tunnel = way.tunnel().context("this subject has no tunnel")?;
        let seen = || {
            Ok::<_, anyhow::Error>((
                witness::packets_sent(&way.client_node, Way::UNDERLAY)?,
                witness::packets_sent(&way.client_node, &tunnel)?,
            ))
        };
        let before = seen()?;
        let (sent, elapsed) = on(&way.client, bench.cores.client, || {
            datagrams::flood(peers::container, self.peers, bench.times.flood)
        })?;
        let after = seen()?;
        #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 packets")]
        let sent = sent as f64;
        let (underlay, tunnelled) = (after.0 - before.0, after.1 - before.1);
        ensure!(
            underlay >= 0.95 * sent,
            "{underlay} of {sent} packets got to the underlay"
        );
        let by_kernel = tunnelled >= 0.95 * sent;
        ensure!(
            by_kernel == matches!(self.kind, Kind::Kernel),
            "the VXLAN device counted {tunnelled} of {sent} packets, which is not the path of {}",
            way.subject
        );
        Ok(sent / elapsed.as_secs_f64())
    }
}

fn readings(costs: &maps::Costs, peers: u32) -> Result<Vec<Reading>> {
    let directions = [("encap", costs.encapsulate), ("decap", costs.decapsulate)];
    let of = |(what, cost): (&str, maps::Cost)| {
        [("ns", cost.next), ("first_ns", cost.first)]
            .map(|(which, value)| Reading::new(&format!("{what}_{which}_{peers}_peers"), value))
    };
    directions.into_iter().flat_map(of).collect()
}

/// Drops on a node what is not for it, before it takes part in the cost.
fn sink(node: &str) -> Result<()> {
    let ports = format!("{}, {}", wire::IANA_PORT, 8472);
    let rules = format!(
        "add table ip bench; \
         add chain ip bench sink {{ type filter hook prerouting priority raw; }}; \
         add rule ip bench sink udp dport {{ {ports} }} drop"
    );
    let mut argv = overlay_tests::script::words(inside(node, "nft"));
    argv.push(rules);
    run::checked(&argv)?;
    Ok(())
}
