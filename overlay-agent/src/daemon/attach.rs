//! Attaching one container without a look at all that are there.
//!
//! A round takes time for each container of the node, so a container that comes to many others
//! is attached by itself: what it needs follows from the network, which the last round has left
//! as it should be, and from a look at its own device, namespace and entries. The steps are those
//! of a round, and afterwards there is another look. Whatever is not as usual is left to a round,
//! which knows what to do about it and what to tell.
//!
//! It is not the last word: the kernel announces what was made, and the round that follows from
//! that looks at everything.

use tracing::{debug, info};

use super::{Reconciler, reconcile::Untold};
use crate::{
    apply, desired,
    kernel::{self, KernelError},
    model::{Endpoint, Vni},
    observe::{Found, observe_endpoint},
    plan::plan,
};

impl Reconciler {
    /// Attaches a container of the model that is not attached yet; whether it is attached now
    /// and all is as it should be.
    pub(super) async fn attach(&mut self, endpoint: &Endpoint) -> bool {
        let network = self.model.network(&endpoint.network);
        let Some(vni) = network.map(|network| network.vni).filter(|_| self.settled) else {
            return false;
        };
        match self.attach_to(vni, endpoint).await {
            Ok(attached) => attached,
            Err(error) => {
                debug!("{error}");
                false
            }
        }
    }

    async fn attach_to(&mut self, vni: Vni, endpoint: &Endpoint) -> Result<bool, KernelError> {
        debug!("attaching {}", endpoint.name);
        let before = self.look_at(vni, endpoint).await?;
        if before.device.is_some() {
            return Ok(false);
        }
        let places = &mut self.observed.around.endpoints;
        places.insert(endpoint.name.clone(), before.place);
        let Some(wanted) = desired::for_endpoint(self.inputs(), endpoint) else {
            return Ok(false);
        };
        let steps = plan(&before.objects, &wanted);
        let report = apply::apply(&steps, &mut self.node, Some(&self.model), &mut self.store).await;
        let all = report.failed.is_empty();
        self.known.follow(steps.steps().iter(), all);
        self.steps += report.done;
        if !all {
            return Ok(false);
        }
        let mut made = self.look_at(vni, endpoint).await?;
        if let Some((device, _)) = made.device {
            made.objects.attachments = self.known.attached_to(device);
        }
        if !plan(&made.objects, &wanted).is_empty() {
            return Ok(false);
        }
        info!("applied {} steps", report.done);
        self.take_in(endpoint, made);
        Ok(true)
    }

    async fn look_at(&self, vni: Vni, endpoint: &Endpoint) -> kernel::Result<Found> {
        let around = &self.observed.around;
        observe_endpoint(&self.node, endpoint, vni, self.store.content(), around).await
    }

    /// Adds what was made to what was seen last.
    fn take_in(&mut self, endpoint: &Endpoint, made: Found) {
        let around = &mut self.observed.around;
        around.endpoints.insert(endpoint.name.clone(), made.place);
        around.links.extend(made.device);
        self.observed.objects.extend_by_endpoint(made.objects);
        self.node.recognise(&self.observed.around.links);
        if self.untold == Untold::Nothing {
            self.untold = Untold::Containers;
        }
    }
}
