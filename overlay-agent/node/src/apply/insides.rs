//! Sockets in the namespaces of endpoints.

use std::{collections::BTreeMap, path::PathBuf};

use overlay_core::model::{Model, Name};
use overlay_kernel::netlink::Netlink;

use super::{ApplyError, steps::Result};

/// Open for as long as a plan is carried out: it has several steps in a namespace, and a longer
/// life would keep one alive that its owner has removed.
#[derive(Default)]
pub(super) struct Insides(BTreeMap<Name, Netlink>);

impl Insides {
    /// The socket in an endpoint's namespace.
    pub(super) fn of(&mut self, model: Option<&Model>, endpoint: &Name) -> Result<Netlink> {
        if let Some(open) = self.0.get(endpoint) {
            return Ok(open.clone());
        }
        let opened = Netlink::open_in(&netns_of(model, endpoint)?)?;
        self.0.insert(endpoint.clone(), opened.clone());
        Ok(opened)
    }

    /// Lets go of all of them.
    pub(super) fn close(&mut self) {
        self.0.clear();
    }
}

/// The file that stands for an endpoint's namespace.
pub(super) fn netns_of(model: Option<&Model>, endpoint: &Name) -> Result<PathBuf> {
    let endpoints = model.map_or(&[][..], |model| &model.endpoints[..]);
    let found = endpoints.iter().find(|other| other.name == *endpoint);
    Ok(found
        .ok_or_else(|| ApplyError::Gone(format!("endpoint {endpoint}")))?
        .netns
        .path())
}
