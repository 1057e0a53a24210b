//! State that an observation takes over from earlier ones.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use overlay_core::{
    desired::{Few, OfSome},
    filter::{Hooked, Places},
    model::{IfName, Model, Peer},
    objects::{AttachmentState, Hook, PeerObjects, Stray},
    plan::Step,
    shared::Shared,
    surroundings::Way,
};
use overlay_kernel::{netlink::Event, nft};

use super::{
    devices::Devices,
    endpoints::Insides,
    hooks::Hooks,
    meant::{self, Meant, Tunnels},
    rules::Others,
    tables::Tables,
    ways::Ways,
    wireguard::Heard,
};

/// The entries of all peers, and the routes to them.
type Followed = (Shared<PeerObjects>, Shared<BTreeMap<IpAddr, Way>>);

/// The known state of the node.
#[derive(Default)]
pub struct Known {
    pub(super) devices: Devices,
    pub(super) tables: Option<Tables>,
    pub(super) ways: Ways,
    pub(super) insides: Insides,
    pub(super) attachments: Attachments,
    pub(super) hooks: Hooks,
    /// Names of the maps that are pinned, if those are known.
    pub(super) pins: Option<BTreeSet<&'static str>>,
    /// Strays among the map entries of the peers, if those are known.
    pub(super) peer_strays: Option<BTreeSet<Stray>>,
    /// The packet filter of others.
    pub(super) others: Others,
    /// What it is about, where these are our places.
    pub(super) hooked: Option<(Places, Hooked)>,
    /// Whom it is meant for, where these are our tunnels.
    pub(super) meant: Option<(Vec<Tunnels>, Meant)>,
    /// What has come by devices that encrypt.
    pub(super) heard: Heard,
}

/// The attachments.
#[derive(Default)]
pub(super) struct Attachments {
    states: BTreeMap<(IfName, Hook), AttachmentState>,
    /// The indices of the devices.
    devices: BTreeMap<IfName, u32>,
    known: bool,
}

impl Attachments {
    pub(super) fn unchanged(
        &self,
        devices: &BTreeMap<IfName, u32>,
    ) -> Option<&BTreeMap<(IfName, Hook), AttachmentState>> {
        let same = |(name, index): (&IfName, &u32)| devices.get(name) == Some(index);
        (self.known && self.devices.iter().all(same)).then_some(&self.states)
    }

    pub(super) fn note(
        &mut self,
        states: BTreeMap<(IfName, Hook), AttachmentState>,
        devices: &BTreeMap<IfName, u32>,
    ) {
        let attached = states
            .keys()
            .filter_map(|(name, _)| devices.get_key_value(name));
        self.devices = attached.map(|(name, index)| (*name, *index)).collect();
        self.states = states;
        self.known = true;
    }
}

impl Known {
    /// Takes in what steps have done that nobody announces; `all` of them, or else it is not
    /// known which.
    pub fn follow<'a>(&mut self, steps: impl Iterator<Item = &'a Step>, all: bool) {
        for step in steps {
            if let Some(endpoint) = step.endpoint() {
                self.insides.forget(endpoint);
            }
            if let Step::Attach { link, .. } | Step::Detach { link, .. } = step {
                self.hooks.forget(*link);
            }
            match step {
                Step::SetVtep { .. }
                | Step::DeleteVtep { .. }
                | Step::SetPeer { .. }
                | Step::DeletePeer { .. } => self.peer_strays = None,
                Step::PinMap { .. } => self.pins = None,
                Step::Attach { link, hook } if all => {
                    let state = AttachmentState::Current;
                    self.attachments.states.insert((*link, *hook), state);
                }
                Step::Detach { link, hook } if all => {
                    self.attachments.states.remove(&(*link, *hook));
                }
                Step::Attach { .. } | Step::Detach { .. } => self.attachments.known = false,
                _ => {}
            }
        }
    }

    /// The attachments of a device, by the steps and observations so far.
    pub fn attached_to(&self, device: IfName) -> BTreeMap<(IfName, Hook), AttachmentState> {
        let states = Hook::ALL.into_iter().filter_map(|hook| {
            let state = self.attachments.states.get(&(device, hook))?;
            Some(((device, hook), *state))
        });
        states.collect()
    }

    /// What is there for the peers is what should be: one copy of it is enough.
    pub fn confirm(&mut self, peers: &Shared<PeerObjects>) {
        if let Some(tables) = &mut self.tables {
            tables.peers = peers.clone();
        }
    }

    /// The ways to peers that come to a network where others go; `None` where the kernel would have to
    /// be asked.
    pub fn ways_to(
        &self,
        come: &[Peer],
        gone: &[Peer],
        port: u16,
    ) -> Option<BTreeMap<IpAddr, Way>> {
        let tables = self.tables.as_ref()?;
        if tables.others_changed || self.peer_strays.is_none() {
            return None;
        }
        let gone: BTreeSet<IpAddr> = gone.iter().map(|peer| peer.vtep).collect();
        let way = |peer: &Peer| {
            let goes = gone.contains(&peer.vtep);
            Some((peer.vtep, self.ways.to(peer.vtep, port, goes)?))
        };
        come.iter().map(way).collect()
    }

    /// Strays among the map entries of the peers, if those are known.
    pub fn peer_strays(&self) -> Option<BTreeSet<Stray>> {
        self.peer_strays.clone()
    }

    /// Takes in what was done for few peers, where there are these strays as before.
    pub fn change_peers(
        &mut self,
        model: &Model,
        few: Few<'_>,
        of_few: &OfSome,
        strays: Option<BTreeSet<Stray>>,
    ) -> Option<Followed> {
        let tables = self.tables.as_mut()?;
        let (there, wanted) = (&of_few.there.peers, &of_few.wanted.peers);
        tables.peers.replace(there, wanted);
        let gone: Vec<IpAddr> = few.gone.iter().map(|peer| peer.vtep).collect();
        for vtep in &gone {
            tables.vteps.remove(vtep);
        }
        tables.vteps.extend(few.come.iter().map(|peer| peer.vtep));
        self.ways.change(model, &gone, few.ways);
        self.peer_strays = strays;
        Some((tables.peers.clone(), self.ways.found.clone()))
    }

    /// Other programs are loaded than those that were current.
    pub fn forget_programs(&mut self) {
        self.attachments.known = false;
        self.hooks.forget_all();
        self.pins = None;
    }

    /// Filters are attachments that the kernel tells of; without events nobody knows.
    pub(super) fn follow_filters(&mut self, events: Option<&[Event]>) {
        let changed = |events: &[Event]| {
            let mut events = events.iter();
            events.any(|event| matches!(event, Event::Filters))
        };
        if events.is_none_or(changed) {
            self.attachments.known = false;
            self.hooks.forget_all();
        }
    }

    /// All rules of the packet filter may have changed.
    pub fn forget_rules(&mut self) {
        self.others.forget();
    }

    /// Takes in what somebody else has changed of the packet filter by the transaction with which
    /// this generation began; whether it may be about networks.
    pub fn take_rules(&mut self, touched: &[nft::Touched], generation: u32) -> bool {
        let Some((tunnels, _)) = &self.meant else {
            return self.others.take(touched, generation, |_| true);
        };
        let ours = |net: &IpNet| meant::concerns(tunnels, net);
        self.others.take(touched, generation, ours)
    }

    /// From when on a look lists rules of others that have changed; `None` where none have.
    pub fn rules_due(&self) -> Option<Instant> {
        self.others.due()
    }

    /// What lists of rules have taken, and what was made of them, since this was asked last.
    pub fn effort_for_rules(&mut self) -> Duration {
        self.others.effort()
    }

    /// Whether what began up to a generation is no news.
    pub fn has_seen_rules(&self, generation: u32) -> bool {
        self.others.has_seen(generation)
    }

    /// Nothing but this agent has changed the packet filter between two generations, if all was known
    /// up to the first.
    pub fn follow_rules(&mut self, before: u32, after: u32) {
        if self.others.is_at(before) {
            self.others.follow(after);
        }
    }

    /// Whatever nobody announces may have changed.
    pub fn distrust(&mut self) {
        self.devices.distrust();
        if let Some(tables) = &mut self.tables {
            tables.others_changed = true;
        }
        self.pins = None;
        self.peer_strays = None;
        self.attachments.known = false;
        self.hooks.forget_all();
        self.insides.forget_all();
    }
}
