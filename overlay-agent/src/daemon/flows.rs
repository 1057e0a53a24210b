//! Flows that the kernel translates, of which the programs must not forget any as long as
//! connection tracking knows of it, however many have come since.
//!
//! The programs learn them from what leaves the kernel, and where there is no room for more, the
//! one that was longest without a packet goes. So connection tracking is asked now and then, and
//! what it still knows of is made the youngest. What it does not know of any more ages, and goes
//! when its place is needed.
//!
//! It knows of a connection for ten seconds after its end at least: where its connections all find
//! room, those that come and go between two looks do as well.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use nix::time::{ClockId, clock_gettime};
use overlay_common::maps::{self, FlowKey, MAX_FLOWS, mapped, network_flags};
use overlay_control::FastPathState;
use overlay_core::{
    model::{Network, Vni},
    objects::Hook,
    plan::{Plan, Step},
    trouble::{Trouble, ids},
};
use overlay_kernel::{
    self as kernel, KernelError,
    bpf::{self, Kept},
    conntrack::{self, Tuple},
};
use tokio::task::{JoinHandle, spawn_blocking};
use tracing::{debug, info};

use super::Reconciler;

/// From one look to the next,
const PERIOD: Duration = Duration::from_secs(10);
/// and at least this many times as long as the look took.
const SHARE: u32 = 20;

/// So many flows that the programs may soon not know of all of them. Rows that a processor holds
/// ready for those to come are taken from others before all are in use,
const TOO_MANY: usize = MAX_FLOWS / 16 * 15;
/// and so few that this is over.
const FEW: usize = MAX_FLOWS / 4 * 3;

/// The looks.
#[derive(Default)]
pub(super) struct Flows {
    look: Option<JoinHandle<kernel::Result<Seen>>>,
    /// The earliest time of the next one,
    rested: Option<Instant>,
    /// and of one that is needed.
    able: Option<Instant>,
    /// Whether flows may have begun of which the programs have seen nothing.
    missed: bool,
    /// The same of single containers, whose programs came later than they.
    late: bool,
    seen: Seen,
    /// The networks that are left to the kernel, as the programs cannot know of all that it
    /// translates.
    too_many: BTreeSet<Vni>,
    failure: Option<KernelError>,
}

/// The result of a look.
#[derive(Debug, Default)]
struct Seen {
    /// Flows between addresses of a network that the kernel translates, by network.
    flows: BTreeMap<Vni, usize>,
    /// Those that the programs did not know,
    added: usize,
    /// and what it took.
    took: Duration,
}

/// Whose flows are of the programs' concern.
struct Ends {
    endpoints: HashMap<IpAddr, Vni>,
    ranges: Vec<(IpNet, Vni)>,
}

impl Ends {
    /// The network of a flow between a container of this node and somebody of the same network.
    fn network_of(&self, tuple: &Tuple) -> Option<Vni> {
        let ends = [tuple.source, tuple.destination];
        let vni = *ends.iter().find_map(|end| self.endpoints.get(end))?;
        let is_within = |end: &IpAddr| {
            let mut ranges = self.ranges.iter();
            ranges.any(|(range, of)| *of == vni && range.contains(end))
        };
        ends.iter().all(is_within).then_some(vni)
    }
}

impl Flows {
    /// Notes what was done: where programs came, or were told to carry what the kernel did before,
    /// they have missed what it translates.
    pub(super) fn follow(&mut self, plan: &Plan, begins: bool) {
        let attaches = |step: &Step| {
            matches!(
                step,
                Step::Attach {
                    hook: Hook::FromEndpoint,
                    ..
                }
            )
        };
        self.missed |= begins;
        self.late |= plan.steps().iter().any(attaches);
    }

    /// How many the kernel translates, as of the last look.
    pub(super) fn translated(&self) -> usize {
        self.seen.flows.values().sum()
    }

    /// The networks that are to be left to the kernel, for that it translates too many.
    pub(super) fn too_many(&self) -> &BTreeSet<Vni> {
        &self.too_many
    }

    /// Takes in what a look has found, once it is at its end; whether other networks are to be left
    /// to the kernel than before.
    async fn take(&mut self) -> bool {
        let Some(look) = self.look.take_if(|look| look.is_finished()) else {
            return false;
        };
        let mut took = Duration::ZERO;
        match look.await {
            Ok(Ok(seen)) => {
                debug!(
                    "looked for {:?} at {} flows that the kernel translates, of which {} were not known",
                    seen.took,
                    seen.flows.values().sum::<usize>(),
                    seen.added
                );
                took = seen.took;
                self.seen = seen;
                self.failure = None;
            }
            Ok(Err(error)) => {
                debug!("{error}");
                self.failure = Some(error);
            }
            Err(panicked) => {
                let operation = "look for translated flows";
                self.failure = Some(KernelError::io(operation, &panicked.into()));
            }
        }
        let now = Instant::now();
        self.rested = Some(now + PERIOD.max(took * SHARE));
        self.able = Some(now + took * SHARE);
        self.judge()
    }

    fn judge(&mut self) -> bool {
        let most = if self.too_many.is_empty() {
            TOO_MANY
        } else {
            FEW
        };
        let too_many: BTreeSet<Vni> = if self.translated() > most {
            let known = self.seen.flows.keys().copied();
            known.chain(self.too_many.iter().copied()).collect()
        } else {
            BTreeSet::new()
        };
        let differs = self.too_many != too_many;
        if differs {
            info!(
                "the kernel translates {} flows, of which the programs can know {MAX_FLOWS}: {}",
                self.translated(),
                if too_many.is_empty() {
                    "the fast path carries the others again"
                } else {
                    "their networks are left to it"
                }
            );
        }
        self.too_many = too_many;
        differs
    }
}

impl Reconciler {
    /// Looks for what the kernel translates when it is time for that, and waits for nothing; whether
    /// a round is to follow from what was found.
    pub(super) async fn keep_flows(&mut self) -> bool {
        let has_changed = self.flows.take().await;
        self.look_for_flows();
        has_changed
    }

    /// Whether the programs are to carry what they may have missed.
    pub(super) fn begins(&self, plan: &Plan) -> bool {
        begins(plan, &self.observed.objects.entries.networks)
    }

    /// Has the programs know what the kernel translates before they carry anything: an answer that
    /// gets to a client untranslated ends its connection. What begins meanwhile the next look finds,
    /// which also tells what fails.
    pub(super) async fn know_flows(&self) {
        let rows = bpf::Flows::open(&self.node.pins);
        let ends = self.ends();
        let looked = spawn_blocking(move || rows?.map(|rows| look(rows, &ends)).transpose()).await;
        match looked {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => debug!("{error}"),
            Err(panicked) => debug!("look for translated flows: {panicked}"),
        }
    }

    fn look_for_flows(&mut self) {
        if self.flows.look.is_some() || self.fastpath_state() != FastPathState::On {
            return;
        }
        let now = Instant::now();
        let is_past = |then: Option<Instant>| then.is_none_or(|then| then <= now);
        let is_needed = self.flows.missed || (self.flows.late && is_past(self.flows.able));
        if !is_needed && !is_past(self.flows.rested) {
            return;
        }
        let rows = match bpf::Flows::open(&self.node.pins) {
            Ok(Some(rows)) => rows,
            Ok(None) => return,
            Err(error) => return debug!("{error}"),
        };
        // Where nobody has translated anything, nothing is looked at, and nothing again but what failed.
        let is_owed = is_needed || self.flows.failure.is_some();
        if !is_owed && !rows.is_in_use().unwrap_or(true) {
            return;
        }
        self.flows.missed = false;
        self.flows.late = false;
        let ends = self.ends();
        self.flows.look = Some(spawn_blocking(move || look(rows, &ends)));
    }

    /// The sentence of `status` about a network that is left to the kernel for its flows.
    pub(super) fn left_for_flows(&self, network: &Network) -> Option<String> {
        let is_left = self.flows.too_many.contains(&network.vni);
        is_left.then(|| {
            format!(
                "left to the kernel: it translates more connections between containers than the \
                 programs can know of, {MAX_FLOWS} in all networks"
            )
        })
    }

    /// Problems that keep the programs from knowing all that the kernel translates.
    pub(super) fn flow_troubles(&self) -> Vec<Trouble> {
        let left = self.model.networks.iter();
        let left = left.filter_map(|network| {
            let what = self.left_for_flows(network)?;
            let cure = "have fewer connections translated, by another load balancer or over more \
                        nodes, or let connection tracking forget idle ones sooner \
                        (net.netfilter.nf_conntrack_tcp_timeout_established)";
            Some(Trouble::new(ids::FLOWS_FULL, &network.name, what, cure))
        });
        let mut troubles: Vec<Trouble> = left.collect();
        if let Some(error) = &self.flows.failure {
            let cure = error.cure().unwrap_or("the agent tries again").to_owned();
            let trouble = Trouble::new(ids::FLOWS_UNKNOWN, "flows", error.what(), cure);
            troubles.push(trouble);
        }
        troubles
    }

    fn ends(&self) -> Ends {
        let endpoints = self.observed.objects.entries.endpoints.keys();
        let networks = self.model.networks.iter();
        Ends {
            endpoints: endpoints.map(|&(vni, address)| (address, vni)).collect(),
            ranges: networks
                .flat_map(|network| {
                    let ranges = network.ranges.iter();
                    ranges.map(|range| (range.cidr, network.vni))
                })
                .collect(),
        }
    }
}

/// Whether the programs are to carry what they may have missed, where these are the networks that they
/// know. They miss nothing of one that only others' hooks leave to the kernel: they see what leaves it.
fn begins(plan: &Plan, known: &BTreeMap<Vni, maps::Network>) -> bool {
    let is_looked_at = |network: &maps::Network| network.flags & network_flags::TRACKED == 0;
    plan.steps().iter().any(|step| match step {
        Step::SetNetwork { vni, network } => {
            is_looked_at(network) && !known.get(vni).is_some_and(is_looked_at)
        }
        Step::Attach { hook, .. } => matches!(
            hook,
            Hook::FromUnderlay | Hook::FromHost | Hook::GuardNative
        ),
        _ => false,
    })
}

fn look(mut rows: bpf::Flows, ends: &Ends) -> kernel::Result<Seen> {
    let start = effort();
    let mut seen = Seen::default();
    let mut failure = None;
    conntrack::translated(|tuple| {
        let Some(vni) = ends.network_of(&tuple) else {
            return;
        };
        let (key, direction) = key(vni, &tuple);
        match rows.keep(&key, direction) {
            Ok(kept) => {
                *seen.flows.entry(vni).or_default() += 1;
                seen.added += usize::from(kept == Kept::Added);
            }
            Err(error) => failure = Some(error),
        }
    })?;
    if seen.added != 0 {
        rows.use_them()?;
    }
    seen.took = effort().saturating_sub(start);
    match failure {
        Some(error) => Err(error),
        None => Ok(seen),
    }
}

/// The processor's time that this thread has taken: on a busy machine a look is slow, and to look
/// the less often for it would not help anybody.
fn effort() -> Duration {
    let now = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID);
    now.map_or(Duration::ZERO, Duration::from)
}

fn key(vni: Vni, tuple: &Tuple) -> (FlowKey, u32) {
    let octets = |address| match address {
        IpAddr::V4(address) => mapped(address.octets()),
        IpAddr::V6(address) => address.octets(),
    };
    let [source, destination] = tuple.ports_be;
    FlowKey::between(
        vni.get(),
        tuple.protocol,
        (octets(tuple.source), source),
        (octets(tuple.destination), destination),
    )
}

#[cfg(test)]
mod tests;
