//! Rules of others, as far as they follow connections: when they are read, and what is told of it.

use std::collections::BTreeMap;

use overlay_core::{
    filter::Following,
    model::{FastPath, Name},
};
use overlay_kernel::nft;
use tracing::{info, warn};

use super::{Reconciler, watches::Changed};

impl Reconciler {
    /// Whether the next round lists all rules.
    pub(super) fn lists_rules(&self) -> bool {
        !self.known.has_rules()
    }

    /// Notes what a watch has told of; whether it is news.
    pub(super) fn heed(&mut self, changed: Changed) -> bool {
        let of_rules = matches!(changed, Changed::Rules | Changed::RulesOfOthers);
        let is_known = |generation| self.known.has_rules_of(generation);
        if of_rules && nft::generation().is_ok_and(is_known) {
            return false;
        }
        if changed != Changed::RulesOfOthers {
            self.distrust();
        }
        if of_rules {
            self.known.forget_rules();
        }
        true
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
                    info!("network {}: resolved: {}", network.name, rules.text());
                }
                _ => {}
            }
        }
    }
}
