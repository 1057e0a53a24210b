//! Rules of others, as far as they follow connections: when they are read, and what is told of it.

use std::collections::BTreeMap;

use tracing::{info, warn};

use super::{Reconciler, watches::Changed};
use crate::{
    doctor::filter::Following,
    model::{FastPath, Name},
};

impl Reconciler {
    /// Notes what a watch has told of.
    pub(super) fn heed(&mut self, changed: Changed) {
        if changed != Changed::RulesOfOthers {
            self.distrust();
        }
        if matches!(changed, Changed::Rules | Changed::RulesOfOthers) {
            self.known.forget_rules();
        }
    }

    /// Says which networks are left to the kernel from now on, and which are not any more.
    pub(super) fn tell_of_followed(&self, before: &BTreeMap<Name, Following>) {
        let now = &self.observed.around.followed;
        for network in &self.model.networks {
            match (before.get(&network.name), now.get(&network.name)) {
                (before, Some(rules)) if before != Some(rules) => {
                    let (name, text) = (&network.name, rules.text());
                    if network.fastpath == FastPath::Required {
                        warn!("network {name}, whose fast path is required: {text}");
                    } else {
                        info!("network {name}: {text}");
                    }
                }
                (Some(rules), None) => {
                    info!("network {}: no longer: {}", network.name, rules.text());
                }
                _ => {}
            }
        }
    }
}
