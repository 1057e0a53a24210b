//! Looking, without changing anything.
//!
//! What the agent believes is not asked: the kernel is looked at anew, as if there were no
//! agent. Only what nobody else knows comes from it.

mod checksums;
mod containers;
mod node;
mod peers;
mod programs;
mod routes;
mod speak;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    path::PathBuf,
    time::Duration,
};

use overlay_control::{Diagnosis, SCHEMA};
use overlay_core::{
    filter::Ruleset,
    model::{Model, Name},
    state::Content,
    surroundings::Observed,
    trouble::Trouble,
};
use overlay_kernel::{self as kernel, KernelError, capability, nft, statistics, sysctl};
use overlay_node::{key::KeyFile, node::Node, preview::look_ahead};
use serde_json::Value;

use super::{
    checks::{Judgement, judge},
    commands::Commands,
    facts::{AgentFacts, Facts, Health, Machine, NetworkFacts, NodeAddress, Seen},
    leftovers::{self, Leftover},
};

/// The subject of an examination.
#[derive(Debug)]
pub struct Patient {
    /// The desired state of the node.
    pub model: Model,
    /// Its saved state.
    pub content: Content,
    /// Folder of the instance's pins.
    pub pins: PathBuf,
    /// Its private key.
    pub key: KeyFile,
    /// The namespace that the calling thread is in, when it is not the machine's.
    pub netns: Option<PathBuf>,
    /// How long counters are watched.
    pub sample: Duration,
    /// The agent, if it runs.
    pub agent: Option<Agent>,
}

/// Facts that only a running agent can tell.
#[derive(Clone, Debug, Default)]
pub struct Agent {
    /// All that it knows is not as it should be.
    pub troubles: Vec<Trouble>,
    /// Whether its program is not on the disk any more.
    pub replaced: bool,
    /// Results of its probes, by network and peer.
    pub health: BTreeMap<(Name, Name), Health>,
}

/// Why a node cannot be examined.
#[derive(Debug, thiserror::Error)]
pub enum ExamineError {
    /// The kernel does not let us look.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// There are no means to wait for its answers.
    #[error("start the runtime: {0}")]
    Runtime(#[from] io::Error),
}

/// Examines a node, in the calling thread's namespace; it blocks for as long as it takes.
pub fn examine(patient: &Patient) -> Result<Diagnosis, ExamineError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let facts = runtime.block_on(gather(patient))?;
    let Judgement {
        findings,
        passed,
        skipped,
    } = judge(&facts);
    Ok(Diagnosis {
        schema: SCHEMA,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        instance: patient.content.instance().clone(),
        node: patient.model.node.name.clone(),
        agent_running: patient.agent.is_some(),
        findings,
        passed,
        skipped,
        notes: Vec::new(),
    })
}

/// What everything else is looked at through.
struct Look<'a> {
    node: &'a Node,
    /// The configuration with what was added at run time.
    model: &'a Model,
    content: &'a Content,
    observed: &'a Observed,
    networks: &'a [NetworkFacts],
}

async fn gather(patient: &Patient) -> kernel::Result<Facts> {
    let node = Node::open(patient.pins.clone(), patient.key.clone())?;
    let (observed, desired) = look_ahead(&node, &patient.model, &patient.content).await?;
    let (desired, obstacles) = match desired {
        Ok(desired) => (desired, Vec::new()),
        Err(obstacles) => (overlay_core::desired::Desired::default(), obstacles.0),
    };
    let model = patient.content.complete(patient.model.clone());
    let networks = node::networks(&model, &observed, &desired.facts);
    let look = Look {
        node: &node,
        model: &model,
        content: &patient.content,
        observed: &observed,
        networks: &networks,
    };
    let mut underlay = node::underlay(&look).await?;
    let vteps = node::vteps(&desired.facts, &underlay, &observed);
    let before = checksums::Counted::now(&look);
    let mut watched = peers::watch(&look, &underlay, &vteps, patient.sample).await?;
    let wrong_checksums = told(before.and_then(|before| {
        let after = checksums::Counted::now(&look)?;
        Ok(after.since(&before))
    }));
    for device in &mut underlay {
        device.received = watched.received.get(&device.name).copied().unwrap_or(0);
    }
    let listing = told(nft::ruleset());
    let addresses = node::addresses(&look).await?;
    let mut agent = patient.agent.clone().unwrap_or_default();
    for peer in &mut watched.peers {
        let of = (peer.network.clone(), peer.name.clone());
        peer.health = agent.health.remove(&of);
    }
    Ok(Facts {
        commands: Commands {
            netns: patient.netns.clone(),
            instance: Some(patient.content.instance().clone()),
        },
        machine: machine(patient)?,
        agent: AgentFacts {
            running: patient.agent.is_some(),
            troubles: agent.troubles,
            replaced: agent.replaced,
            fastpath_off: patient.content.fastpath_off,
            established: observed.around.links.values().any(|link| link.ours),
        },
        obstacles,
        problems: desired.problems,
        no_guard: observed.around.no_guard.clone(),
        settings: settings(&observed)?,
        vteps,
        leftovers: leftovers(&look, &listing, &addresses),
        addresses,
        ruleset: ruleset(&patient.content, &listing),
        legacy_tables: legacy_tables()?,
        detached: programs::detached(&look),
        ahead: programs::ahead(&look),
        foreign_xdp: programs::foreign_xdp(&look, &underlay),
        diverted: told(routes::diverted(&look, &watched.peers).await),
        maps: node::maps(&look),
        containers: containers::look(&look, &watched.peers).await,
        peers: watched.peers,
        growth: watched.growth,
        wrong_checksums,
        underlay,
        networks,
    })
}

fn told<T>(seen: kernel::Result<T>) -> Seen<T> {
    seen.map_err(|error| error.to_string())
}

fn machine(patient: &Patient) -> kernel::Result<Machine> {
    // The folder of all instances lies in the file system itself.
    let folder = patient.pins.parent().and_then(|folder| folder.parent());
    let bpffs = folder.unwrap_or(&patient.pins).to_owned();
    let cause = |error: KernelError| error.cause().to_owned();
    Ok(Machine {
        release: sysctl::read("kernel/osrelease")?.unwrap_or_default(),
        no_bpffs: capability::check_bpffs(&bpffs).err().map(cause),
        unprivileged: capability::check_privileges().err().map(cause),
        bpffs,
    })
}

/// What no part of the desired state depends on.
const MORE_SETTINGS: [&str; 4] = [
    "kernel/bpf_stats_enabled",
    "net/core/bpf_jit_enable",
    "net/netfilter/nf_conntrack_count",
    "net/netfilter/nf_conntrack_max",
];

fn settings(observed: &Observed) -> kernel::Result<BTreeMap<String, String>> {
    let mut settings = observed.around.sysctls.clone();
    for key in MORE_SETTINGS {
        if let Some(value) = sysctl::read(key)? {
            settings.insert(key.to_owned(), value);
        }
    }
    Ok(settings)
}

/// Both families' tables of `iptables-legacy` in the calling thread's namespace.
fn legacy_tables() -> kernel::Result<Vec<String>> {
    let mut tables = Vec::new();
    for (list, prefix) in [("ip_tables_names", ""), ("ip6_tables_names", "ip6 ")] {
        let names = statistics::lines_of(list)?;
        tables.extend(names.iter().map(|name| format!("{prefix}{name}")));
    }
    Ok(tables)
}

/// An address of this node's subnets is vacant that neither a container has nor the node itself.
fn leftovers(
    look: &Look<'_>,
    listing: &Seen<Value>,
    of_node: &[NodeAddress],
) -> Seen<BTreeMap<IpAddr, Leftover>> {
    let listing = listing.as_ref().map_err(Clone::clone)?;
    let configured = look.model.endpoints.iter().flat_map(|it| &it.addresses);
    let allocated = look.content.allocations.values();
    let of_node = of_node.iter().map(|address| address.net.addr());
    let taken: BTreeSet<IpAddr> = configured
        .copied()
        .chain(allocated.flat_map(|it| it.addresses.iter().copied()))
        .chain(of_node)
        .collect();
    let subnets = || look.networks.iter().flat_map(|network| &network.subnets);
    Ok(leftovers::find(listing, |address| {
        subnets().any(|subnet| subnet.contains(address)) && !taken.contains(address)
    }))
}

/// Without our own tables, whose rules hold on both paths.
fn ruleset(content: &Content, listing: &Seen<Value>) -> Seen<Ruleset> {
    let listing = listing.as_ref().map_err(Clone::clone)?;
    let ours = nft::tables_of(listing, content.instance());
    Ok(Ruleset::read(listing, |family, table| {
        ours.contains(&(family.to_owned(), table.to_owned()))
    }))
}
