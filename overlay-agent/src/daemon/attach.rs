//! Attaching and detaching one container without a look at all that are there.
//!
//! A round takes time for each container of the node, so a container that comes to many others
//! is attached by itself: what it needs follows from the network, which the last round has left
//! as it should be, and from a look at its own device, namespace and entries. The steps are those
//! of a round, and afterwards there is another look. One that goes is looked at, and goes, in the
//! same way. Whatever is not as usual is left to a round, which knows what to do about it and what
//! to tell.
//!
//! It is not the last word: the kernel announces what was made or removed, and the round that
//! follows from that looks at everything.

use std::collections::BTreeSet;

use overlay_core::{
    desired,
    model::{Endpoint, IfName, Name, NetnsRef, Vni},
    objects::{Guard, GuardedEndpoint, Objects},
    plan::plan,
    plural::count_of,
};
use overlay_kernel::{self as kernel, KernelError, bpf, nft};
use overlay_node::observe::{Found, observe_endpoint};
use tokio::time::Instant;
use tracing::{debug, info};

use super::{Reconciler, reconcile::Untold};

impl Reconciler {
    /// Looks at the place of a container, and notes what is there; `None` where it cannot be
    /// looked at.
    pub(super) async fn look_for(&mut self, endpoint: &Endpoint) -> Option<Found> {
        let vni = self.model.network(&endpoint.network)?.vni;
        match self.look_at(vni, endpoint).await {
            Ok(found) => {
                let around = &mut self.observed.around;
                let place = found.place.clone();
                around.endpoints.insert(endpoint.name.clone(), place);
                if let Some((name, link)) = &found.device {
                    around.links.entry(*name).or_insert_with(|| link.clone());
                }
                Some(found)
            }
            Err(error) => {
                debug!("{error}");
                None
            }
        }
    }

    /// Attaches a container of the model that is not attached yet; whether it is attached now
    /// and all is as it should be. `before` is what was seen of it just now.
    pub(super) async fn attach(&mut self, endpoint: &Endpoint, before: Option<Found>) -> bool {
        let network = self.model.network(&endpoint.network);
        let Some(vni) = network.map(|network| network.vni).filter(|_| self.settled) else {
            return false;
        };
        let late = self.may_be_late(endpoint);
        let attached = self.attach_to(vni, endpoint, before).await;
        let attached = attached.unwrap_or_else(|error| {
            debug!("{error}");
            false
        });
        if late && !attached {
            // The round that does it has its programs attached, too.
            self.late.forget(&endpoint.name);
        }
        if attached && !late {
            self.settle_wish();
        }
        self.late.note_change(Instant::now());
        attached
    }

    async fn attach_to(
        &mut self,
        vni: Vni,
        endpoint: &Endpoint,
        before: Option<Found>,
    ) -> Result<bool, KernelError> {
        debug!("attaching {}", endpoint.name);
        let before = match before {
            Some(before) => before,
            None => self.look_at(vni, endpoint).await?,
        };
        if before.device.is_some() {
            return Ok(false);
        }
        let places = &mut self.observed.around.endpoints;
        places.insert(endpoint.name.clone(), before.place);
        let Some(mut wanted) = desired::for_endpoint(self.inputs(), endpoint) else {
            return Ok(false);
        };
        // Attaching removes no namespace, and one of ours that is there is as it should be.
        let there = before.objects.namespaces.iter().cloned();
        wanted.namespaces.extend(there);
        let steps = plan(&before.objects, &wanted);
        if !self.carry_out(&steps).await.is_complete() {
            return Ok(false);
        }
        let mut made = self.look_at(vni, endpoint).await?;
        if let Some((device, _)) = made.device {
            made.objects.attachments = self.known.attached_to(device);
        }
        if !plan(&made.objects, &wanted).is_empty() {
            return Ok(false);
        }
        info!("applied {}", count_of(steps.steps().len(), "step"));
        self.take_in(endpoint, made);
        match desired::guarded(self.inputs(), endpoint) {
            // Nothing of it is carried unjudged by the kernel once its owner hears of it.
            Some(guarded) => self.alter_guard(|endpoints| {
                endpoints.insert(guarded);
            }),
            None => Ok(true),
        }
    }

    /// Has the guard know other containers; `false` where that takes a round.
    fn alter_guard(
        &mut self,
        alter: impl FnOnce(&mut BTreeSet<GuardedEndpoint>),
    ) -> Result<bool, KernelError> {
        let guard = &mut self.observed.objects.guard;
        let Some(Guard::Does(_)) = guard else {
            return Ok(guard.is_none());
        };
        let before = nft::generation().ok();
        let instance = self.store.content().instance();
        let altered = self
            .node
            .guard
            .alter(instance, |rules| alter(&mut rules.endpoints))?;
        let Some(digest) = altered else {
            return Ok(false);
        };
        *guard = Some(Guard::Does(digest));
        self.know_own_rules(before);
        Ok(true)
    }

    /// What there is of a container that can be detached without regard to others: nothing that
    /// it has is kept from them, and nothing of it is used by them.
    pub(super) async fn alone(&self, name: &Name) -> Option<Found> {
        let mut endpoints = self.model.endpoints.iter();
        let endpoint = endpoints.find(|endpoint| endpoint.name == *name)?;
        let network = self.model.network(&endpoint.network)?;
        let content = self.store.content();
        let made = matches!(&endpoint.netns, NetnsRef::Name(name) if content.namespaces.contains_key(name));
        let usual = self.settled && self.problems.is_empty();
        if !usual || made || !endpoint.allowed_sources.is_empty() {
            return None;
        }
        match self.look_at(network.vni, endpoint).await {
            Ok(found) => Some(found),
            Err(error) => {
                debug!("{error}");
                None
            }
        }
    }

    /// Removes what there is of a container that is no part of the model any more; whether
    /// nothing of it is left.
    pub(super) async fn detach(&mut self, name: &Name, there: Found) -> bool {
        let Some((device, link)) = there.device.filter(|(_, link)| link.ours) else {
            return false;
        };
        let detached = self.detach_from(name, device, link.index, there.objects);
        let detached = detached.await.unwrap_or_else(|error| {
            debug!("{error}");
            false
        });
        self.late.note_change(Instant::now());
        detached
    }

    async fn detach_from(
        &mut self,
        name: &Name,
        device: IfName,
        index: u32,
        mut objects: Objects,
    ) -> Result<bool, KernelError> {
        debug!("detaching {name}");
        // It is its owner's.
        objects.namespaces.clear();
        objects.attachments = self.known.attached_to(device);
        objects.qdiscs = bpf::qdiscs(&self.node.pins)?;
        objects.qdiscs.retain(|other| *other == device);
        let steps = plan(&objects, &Objects::default());
        let all = self.carry_out(&steps).await.is_complete();
        let left = self.node.netlink.link_by_name(device.as_str()).await?;
        if !all || left.is_some() {
            return Ok(false);
        }
        info!("applied {}", count_of(steps.steps().len(), "step"));
        self.observed.objects.forget_endpoint(name, device);
        self.observed.around.endpoints.remove(name);
        self.observed.around.links.remove(&device);
        self.have_patrol_told();
        self.alter_guard(|endpoints| endpoints.retain(|endpoint| endpoint.index != index))
    }

    pub(super) async fn look_at(&self, vni: Vni, endpoint: &Endpoint) -> kernel::Result<Found> {
        let around = &self.observed.around;
        observe_endpoint(&self.node, endpoint, vni, self.store.content(), around).await
    }

    /// Adds what was made to what was seen last.
    pub(super) fn take_in(&mut self, endpoint: &Endpoint, made: Found) {
        let around = &mut self.observed.around;
        around.endpoints.insert(endpoint.name.clone(), made.place);
        around.links.extend(made.device);
        self.observed.objects.extend_by_endpoint(made.objects);
        self.have_patrol_told();
    }

    fn have_patrol_told(&mut self) {
        self.node.recognise(&self.observed.around.links);
        self.name_messages();
        if self.untold == Untold::Nothing {
            self.untold = Untold::Containers;
        }
    }
}
