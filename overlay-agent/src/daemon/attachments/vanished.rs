//! Attachments that nobody comes to detach.

use overlay_core::{desired::veth_name, model::Name};
use tracing::{info, warn};

use super::Reconciler;

impl Reconciler {
    /// Forgets what is to be detached since nobody was there to hear it; whether there was any.
    pub(in crate::daemon) fn take_from_spool(&mut self) -> bool {
        let keys = match self.spool.keys() {
            Ok(keys) => keys,
            Err(error) => {
                warn!("read what is to be detached: {error}");
                return false;
            }
        };
        let mut found = false;
        for key in keys {
            let key = match key {
                Ok(key) => key,
                Err(error) => {
                    warn!("understand what is to be detached: {error}");
                    continue;
                }
            };
            if let Some(there) = self.by_key(&key) {
                if let Err(error) = self.store.forget(&there.name) {
                    warn!("{error}");
                    continue;
                }
                info!("endpoint {} was to go while no agent ran", there.name);
                found = true;
            }
            if let Err(error) = self.spool.remove(&key) {
                warn!("note that container {} is detached: {error}", key.container);
            }
        }
        if found {
            self.complete();
        }
        found
    }

    /// Forgets what runtimes have left behind: containers whose namespace and device are gone.
    pub(in crate::daemon) fn forget_vanished(&mut self) {
        let links = &self.observed.around.links;
        let has_device = |name: &Name| veth_name(name).is_some_and(|it| links.contains_key(&it));
        let endpoints = self.store.content().endpoints.iter();
        let vanished: Vec<Name> = endpoints
            .filter(|endpoint| endpoint.attachment.is_some() && !has_device(&endpoint.name))
            .filter(|endpoint| !self.is_alive(endpoint))
            .map(|endpoint| endpoint.name.clone())
            .collect();
        for name in &vanished {
            match self.store.forget(name) {
                Ok(()) => info!("endpoint {name} is forgotten: its namespace is gone"),
                Err(error) => warn!("{error}"),
            }
        }
        if !vanished.is_empty() {
            self.complete();
        }
    }
}
