//! A packet at a place of a node.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use ipnet::IpNet;
use overlay_control::explain::{End, Hop, Question, Received, Stage};
use overlay_core::{
    desired::Facts,
    model::{IfName, Model, Name, Rx, Vni},
    objects::{GuardRules, Hook, PeerObjects},
    shared::Shared,
    state::Content,
    surroundings::Observed,
};
use overlay_kernel::netlink::Netlink;
use tokio::task::spawn_blocking;

use super::{
    arriving, leaving,
    names::Names,
    slow,
    stage::{self, Outcome, Seen},
};

/// The agent's view of its node.
pub struct Scene<'a> {
    /// The desired state of the node.
    pub model: &'a Model,
    /// Its saved state.
    pub store: &'a Content,
    /// Facts that follow from both.
    pub facts: &'a Facts,
    /// The observed state.
    pub observed: &'a Observed,
    /// A socket in the node's namespace.
    pub netlink: &'a Netlink,
    /// The folder of the instance's pins.
    pub pins: &'a Path,
}

/// A packet, and what it takes to follow it.
pub struct Case {
    pub(super) node: Name,
    pub(super) instance: Name,
    pub(super) pins: PathBuf,
    pub(super) rx: Rx,
    pub(super) netlink: Netlink,
    pub(super) names: Names,
    /// The kernel's entries for the peers.
    pub(super) peers: Shared<PeerObjects>,
    pub(super) networks: Vec<Local>,
    /// The node's ends of the tunnels.
    pub(super) vteps: Vec<IpAddr>,
    /// Hooks of others for which packets are left to the kernel.
    pub(super) hooks: Vec<String>,
    /// The rules of the agent's own table on the kernel's path, if there is one.
    pub(super) guard: Option<Arc<GuardRules>>,
    pub(super) start: Start,
}

/// This node's share of a network, in one family.
#[derive(Clone, Debug)]
pub(super) struct Local {
    pub(super) network: Name,
    pub(super) vni: Vni,
    pub(super) subnet: IpNet,
    pub(super) gateway: IpAddr,
    pub(super) bridge: Option<IfName>,
    pub(super) port: u16,
    pub(super) mtu: Option<u16>,
    /// The endpoints that are in it.
    pub(super) endpoints: Vec<(IpAddr, Name)>,
}

/// Where a packet's journey begins.
pub(super) enum Start {
    /// At these programs, one after the other.
    Programs(Vec<Place>, Vec<u8>),
    /// Before any program, and it does not get to one.
    Nowhere(Vec<String>, bool),
}

/// Why there can be no packet that is asked about, in words.
pub enum Refusal {
    /// A name in the question is nobody's.
    Nobody(String),
    /// Something else is in the way.
    Other(String),
}

impl From<String> for Refusal {
    fn from(why: String) -> Self {
        Self::Other(why)
    }
}

/// A program on a device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) hook: Hook,
    pub(super) device: IfName,
    pub(super) ifindex: u32,
}

impl Case {
    /// A packet that an endpoint or the node sends.
    pub async fn leaving(known: Scene<'_>, question: &Question) -> Result<Self, Refusal> {
        let start = leaving::start(&known, question).await?;
        Ok(Self::new(&known, start))
    }

    /// A packet that has come from another node.
    pub async fn arriving(known: Scene<'_>, received: &Received) -> Result<Self, String> {
        let start = arriving::start(&known, received).await?;
        Ok(Self::new(&known, start))
    }

    fn new(known: &Scene<'_>, start: Start) -> Self {
        Self {
            node: known.model.node.name.clone(),
            instance: known.store.instance().clone(),
            pins: known.pins.to_owned(),
            rx: known.model.node.rx,
            netlink: known.netlink.clone(),
            names: Names::of(known),
            peers: known.observed.objects.peers.clone(),
            networks: locals(known),
            vteps: known.facts.vteps.clone(),
            hooks: hooks(known.facts),
            guard: guard(known),
            start,
        }
    }

    /// Follows the packet to where it leaves the node, or ends.
    pub async fn hop(mut self) -> Result<Hop, String> {
        let start = std::mem::replace(&mut self.start, Start::Nowhere(Vec::new(), false));
        let (places, frame) = match start {
            Start::Programs(places, frame) => (places, frame),
            Start::Nowhere(sentences, delivers) => {
                return Ok(self.ended(Vec::new(), sentences, End::Kernel { delivers }));
            }
        };
        let followed = spawn_blocking(move || {
            let seen = self.follow(&places, frame);
            (self, seen)
        });
        let (this, seen) = followed.await.map_err(|error| error.to_string())?;
        let seen = seen?;
        let Some(last) = seen.last() else {
            return Err("no program was asked".to_owned());
        };
        let (sentences, end) = slow::after(&this, last).await;
        let stages = seen.into_iter().map(|seen| seen.stage).collect();
        Ok(this.ended(stages, sentences, end))
    }

    /// The programs' part: until one does not let it go on to the next.
    fn follow(&self, places: &[Place], frame: Vec<u8>) -> Result<Vec<Seen>, String> {
        let mut all = Vec::new();
        let mut frame = frame;
        for &place in places {
            let seen = stage::run(self, place, &frame)?;
            let goes_on = place.hook.is_xdp() && matches!(seen.outcome, Outcome::Passed(_));
            frame.clone_from(&seen.frame);
            all.push(seen);
            if !goes_on {
                break;
            }
        }
        Ok(all)
    }

    fn ended(&self, stages: Vec<Stage>, kernel: Vec<String>, end: End) -> Hop {
        Hop {
            node: self.node.clone(),
            instance: self.instance.clone(),
            stages,
            kernel,
            end,
        }
    }

    /// The UDP port of the tunnels, as far as there is one for all.
    pub(super) fn port(&self) -> u16 {
        self.networks.first().map_or(0, |local| local.port)
    }
}

/// The rules that are in force: as they should be, where there is a table at all.
fn guard(known: &Scene<'_>) -> Option<Arc<GuardRules>> {
    known.observed.objects.guard.as_ref()?;
    known.facts.guard.clone()
}

fn hooks(facts: &Facts) -> Vec<String> {
    let of_networks = facts
        .hooks
        .iter()
        .map(|(name, hooks)| ("network", name, hooks));
    let endpoints = facts.endpoint_hooks.iter();
    let of_endpoints = endpoints.map(|(name, hooks)| ("endpoint", name, hooks));
    let all = of_networks.chain(of_endpoints);
    let told = all.flat_map(|(kind, name, hooks)| {
        let hooks = hooks.iter();
        hooks.map(move |hook| format!("heeded for {kind} {name}: {hook}"))
    });
    told.collect()
}

fn locals(known: &Scene<'_>) -> Vec<Local> {
    let mut locals = Vec::new();
    for network in &known.model.networks {
        for range in &network.ranges {
            let members = known.model.endpoints.iter();
            let members = members.filter(|endpoint| endpoint.network == network.name);
            let endpoints = members.filter_map(|endpoint| {
                let given = known.store.allocations.get(&endpoint.name)?;
                let address = given.address(range.family())?;
                Some((address, endpoint.name.clone()))
            });
            locals.push(Local {
                network: network.name.clone(),
                vni: network.vni,
                subnet: range.subnet,
                gateway: range.gateway(),
                bridge: overlay_core::desired::bridge_name(network.vni),
                port: network.port,
                mtu: known.facts.mtus.get(&network.name).copied(),
                endpoints: endpoints.collect(),
            });
        }
    }
    locals
}
